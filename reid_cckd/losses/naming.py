"""Losses and miners of pytorch-metric-learning by name."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

from pytorch_metric_learning import losses, miners
from torch import nn

from reid_cckd.errors import did_you_mean


def pml_loss(name: str, **options: Any) -> nn.Module:
    """A loss of pytorch-metric-learning, such as ``pml_loss("TripletMarginLoss", margin=0.3)``.

    Raises:
        ValueError: PML has no such loss, or it refuses an option.
    """
    return _make(losses, "loss", name, options)


def pml_miner(name: str, **options: Any) -> nn.Module:
    """A miner of pytorch-metric-learning, such as ``pml_miner("BatchHardMiner")``.

    Raises:
        ValueError: PML has no such miner, or it refuses an option.
    """
    return _make(miners, "miner", name, options)


def _make(module: ModuleType, kind: str, name: str, options: dict[str, Any]) -> nn.Module:
    known = [key for key, value in vars(module).items() if inspect.isclass(value) and not key.startswith("Base")]
    if name not in known:
        raise ValueError(f"pytorch-metric-learning has no {kind} {name!r}.{did_you_mean(name, known)}")
    try:
        made: nn.Module = getattr(module, name)(**options)
    except TypeError as error:
        raise ValueError(f"{name} refuses {options}: {error}") from error
    return made
