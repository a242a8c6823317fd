"""From `model:` to a network, new or from a checkpoint."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from reid_cckd import config as configuration
from reid_cckd.config import Config
from reid_cckd.engine import autocast, file_hash, load_checkpoint
from reid_cckd.errors import CheckpointError
from reid_cckd.models import Embedder


@dataclass(frozen=True)
class Loaded:
    """A network from a checkpoint and what it was made with."""

    network: Embedder
    config: Config
    classes: list[int]  # the person ids of its class head, in order
    sha256: str


def build_network(config: Config, num_classes: int, pretrained: bool = True) -> Embedder:
    """The network of ``config.model``; ``pretrained=False`` leaves weights out that a checkpoint will replace."""
    model = config.model
    return Embedder(
        model.backbone,
        image_size=config.data.image_size,
        num_classes=num_classes,
        pretrained=model.pretrained if pretrained else False,
        options=model.options,
        pooling=model.pooling,
        embedding=model.embedding,
        neck=model.neck,
    )


def load_network(path: str | Path) -> Loaded:
    """The network of a checkpoint of `train`: of last.pt the averaged weights where an average was kept.

    Raises:
        CheckpointError: the file is damaged, or its weights do not fit its own configuration.
    """
    content = load_checkpoint(path)
    config = configuration.config_from_dict(content["config"], str(path))
    network = build_network(config, len(content["classes"]), pretrained=False)
    try:
        network.load_state_dict(content.get("average") or content["model"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path}: its weights are of another architecture than its configuration: {reason}"
        ) from error
    return Loaded(network, config, content["classes"], file_hash(path))


def precision(config: Config, device: torch.device) -> partial[AbstractContextManager[object]]:
    """Makes the context of a forward pass."""
    return partial(autocast, device, config.train.amp)
