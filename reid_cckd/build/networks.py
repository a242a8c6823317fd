"""From `model:` to a network, new or from a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from reid_cckd import config as configuration
from reid_cckd.config import Config
from reid_cckd.data import UNLABELLED, Manifest
from reid_cckd.engine import autocast, file_hash, in_bfloat16, load_checkpoint
from reid_cckd.errors import CheckpointError, ConfigError
from reid_cckd.losses import STAGES
from reid_cckd.models import Embedder, PublishedClassifier

N = TypeVar("N", bound=nn.Module)

STRANGE = UNLABELLED - 1  # and below: ids of classes that the data does not know


@dataclass(frozen=True)
class Loaded:
    """A network from a checkpoint and what it was made with; ``teacher_sha256``: of what it learned from, if known.

    ``classes``: the person ids of its class head, in order, and ``names`` theirs, where its data had names for them.
    """

    network: Embedder
    config: Config
    classes: list[int]
    sha256: str
    teacher_sha256: str | None = None
    names: Sequence[str] = ()

    def on(self, manifest: Manifest) -> Loaded:
        """The same with the ids that a data set has for the classes: the same name need not be the same number.

        A class that the data does not know gets a negative number, each another. Where either side has no names, or
        they have none in common, an id is the same class on both.
        """
        ids = {name: label for label, name in manifest.class_names.items()}
        if len(ids) < len(manifest.class_names) or not ids.keys() & set(self.names):
            return self
        return replace(self, classes=[ids.get(name, STRANGE - k) for k, name in enumerate(self.names)])


def build_network(config: Config, num_classes: int | None, pretrained: bool = True) -> Embedder:
    """The network of ``config.model``; ``pretrained=False`` leaves weights out that a checkpoint will replace."""
    model = config.model
    return Embedder(
        model.backbone,
        image_size=config.data.image_size,
        num_classes=num_classes if _has_head(config.objective) else None,
        pretrained=model.pretrained if pretrained else False,
        options=model.options,
        pooling=model.pooling,
        embedding=model.embedding,
        neck=model.neck,
    )


def _has_head(objective: configuration.Objective) -> bool:
    """Whether anything looks at class scores; a million identities make a head that nothing trains a costly one."""
    stages = {objective.correlate if objective.beta != 0 else "neck", *map(stage_of, objective.terms)}
    return objective.cross_entropy or objective.alpha < 1 or "logits" in stages


def stage_of(term: configuration.Term) -> configuration.Stage:
    """Where a term looks: as told, or where its loss belongs."""
    return term.on or STAGES.get(term.loss, "embedding")


def load_network(path: str | Path) -> Loaded:
    """The network of a checkpoint of `train`, in eval mode: of last.pt the averaged weights where an average was kept.

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
    known = content["classes"], file_hash(path), content.get("teacher_sha256"), content.get("class_names", ())
    return Loaded(network.eval(), config, *known)


def load_teacher(config: Config) -> Loaded:
    """The network of ``config.teacher``: of a checkpoint, or a classifier as it was published, its classes 0, 1, ...

    Raises:
        ConfigError, CheckpointError: no such model or weights, or a file that is damaged or of something else.
    """
    settings = config.teacher
    assert settings is not None
    if settings.checkpoint:
        return load_network(settings.checkpoint)
    assert settings.backbone is not None
    size = settings.image_size or config.data.image_size
    with _blaming_teacher():
        network = PublishedClassifier(
            settings.backbone, image_size=size, pretrained=settings.pretrained, options=settings.options
        )
    return Loaded(network, config, list(range(network.num_classes)), weights_hash(network))


@contextmanager
def _blaming_teacher() -> Iterator[None]:
    """The keys of a published teacher are those of a model, one section further."""
    try:
        yield
    except (ConfigError, CheckpointError) as error:
        raise type(error)(f"teacher, as {error}") from error


def timm_network(name: str, overrides: Sequence[str]) -> Loaded:
    """A timm backbone as it is, its pooled features the embedding; its hash is that of its weights.

    ``overrides`` are key=value pairs; data.root is one of them, and model.pretrained can name a local file.

    Raises:
        ConfigError: timm has no such model or cannot get its weights, or a key that is wrong or missing.
    """
    model = {"backbone": name, "pretrained": True, "neck": "none"}
    values = {"output": "-", "data": {}, "model": model}
    config = configuration.config_from_dict(values, f"timm's {name}", overrides)
    network = build_network(config, None)
    return Loaded(network, config, [], weights_hash(network))


def weights_hash(network: nn.Module) -> str:
    """SHA-256 over the names and bytes of all parameters and buffers, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def place(network: N, config: Config, device: torch.device) -> N:
    """The network on its device, in the memory order that the configuration asks for: the same to rounding."""
    last = config.train.channels_last
    if last is None:
        last = device.type == "cpu" or in_bfloat16(device, config.train.amp)
    if last:
        network = network.to(memory_format=torch.channels_last)
    return network.to(device)


def precision(config: Config, device: torch.device) -> partial[AbstractContextManager[object]]:
    """Makes the context of a forward pass."""
    return partial(autocast, device, config.train.amp)


def teacher_precision(config: Config, device: torch.device) -> partial[AbstractContextManager[object]]:
    """Makes the context of the teacher's forward pass."""
    own = None if config.teacher is None else config.teacher.amp
    return partial(autocast, device, own or config.train.amp)
