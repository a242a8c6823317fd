"""Backbones of timm and of this room: made by name, with timm's weights or a local file, giving one kind of map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from reid_cckd.errors import CheckpointError, ConfigError, did_you_mean
from reid_cckd.models.cifar import CIFAR
from reid_cckd.models.faces import FACES
from reid_cckd.models.families import register
from reid_cckd.models.weights import weights_for

register((*CIFAR, *FACES))


def create_backbone(
    name: str, pretrained: bool | str, options: dict[str, Any], keep_classifier: bool = False
) -> nn.Module:
    """A model of timm, or of `CIFAR` and `FACES`, without its classifier unless it is to be kept.

    ``pretrained``: False, True (timm's own weights, downloaded or cached), or the path of a local file (.pth,
    .safetensors) that holds the same architecture: of timm, torchvision, fast-reid, torchreid, a run of this toolkit.

    Raises:
        ConfigError: timm has no such model, refuses an option, or cannot get the weights.
        CheckpointError: the local file is damaged or belongs to another architecture.
    """
    if not timm.is_model(name.partition(".")[0]):
        meant = did_you_mean(name, timm.list_models())
        raise ConfigError(f"model.backbone: timm {timm.__version__} has no model {name!r}.{meant}")
    try:
        classes: dict[str, Any] = {} if keep_classifier else {"num_classes": 0}
        backbone: nn.Module = timm.create_model(name, pretrained=pretrained is True, **{**options, **classes})
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"model.options: timm's {name} refuses {options}: {error}") from error
    except (OSError, RuntimeError) as error:
        hint = "without a network give model.pretrained the path of a local file, or false"
        raise ConfigError(f"model.pretrained: no weights for {name}: {error}; {hint}.") from error
    if isinstance(pretrained, str):
        _load_local(backbone, Path(pretrained), name)
    return backbone


def normalisation(backbone: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that the backbone's own timm configuration asks for, of values in [0, 1]."""
    settings = resolve_model_data_config(backbone)
    return tuple(settings["mean"]), tuple(settings["std"])


def feature_map(backbone: nn.Module, images: Tensor) -> Tensor:
    """The last features as (N, F, h, w): channels-last maps are turned, tokens become a map of width 1."""
    return as_map(backbone, backbone.forward_features(images))  # type: ignore[operator]


def as_map(backbone: nn.Module, features: Tensor) -> Tensor:
    """What `forward_features` gave as (N, F, h, w)."""
    if features.ndim == 3:  # (N, tokens, F): the first ones of a transformer are not patches
        prefix = int(getattr(backbone, "num_prefix_tokens", 0))
        return features[:, prefix:].transpose(1, 2).unsqueeze(-1)
    if getattr(backbone, "output_fmt", "NCHW") == "NHWC":
        return features.permute(0, 3, 1, 2)
    return features


def _load_local(backbone: nn.Module, path: Path, name: str) -> None:
    if not path.is_file():
        raise ConfigError(f"model.pretrained: there is no file {path}; expected a .pth or .safetensors file of {name}.")
    wanted = backbone.state_dict()
    state = weights_for(wanted, path)
    missing = [key for key in wanted if key not in state]
    misshapen = [key for key, value in state.items() if value.shape != wanted[key].shape]
    if missing or misshapen:
        wrong = [*missing, *misshapen]
        raise CheckpointError(
            f"model.pretrained: {path} is not a {name}: {len(missing)} of {len(wanted)} tensors are missing and "
            f"{len(misshapen)} have another shape (such as {', '.join(wrong[:3])}). {_remedy(backbone, state, wrong)}"
        )
    backbone.load_state_dict(state)


def _remedy(backbone: nn.Module, state: Mapping[str, Tensor], wrong: Sequence[str]) -> str:
    """What to do about tensors that are missing or have another shape."""
    named = backbone.pretrained_cfg["classifier"]  # type: ignore[index]
    heads = (named,) if isinstance(named, str) else named
    if not all(key.rpartition(".")[0] in heads for key in wrong):
        return "Give a file of the same architecture and options."
    classes = len(state[wrong[0]]) if wrong[0] in state else 0
    without = "" if classes else ", and learn from its embeddings alone (objective.alpha: 1)"
    return f"Only its head does not fit: set options: {{num_classes: {classes}}}{without}."
