"""Losses and miners by name: those of this package's table, and all of pytorch-metric-learning."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pytorch_metric_learning import losses, miners
from torch import nn

from reid_cckd.errors import did_you_mean
from reid_cckd.losses.table import LOSSES


def pml_miner(name: str, **options: Any) -> nn.Module:
    """A miner of pytorch-metric-learning, such as ``pml_miner("BatchHardMiner")``.

    Raises:
        ValueError: PML has no such miner, or it refuses an option.
    """
    make = _find(miners, "miner", name)
    try:
        return make(**options)
    except TypeError as error:
        raise ValueError(f"{name} refuses {options}: {error}") from error


def loss_class(name: str) -> type[nn.Module]:
    """The class of a loss of `LOSSES` or of pytorch-metric-learning.

    Raises:
        ValueError: there is no such loss.
    """
    if name in LOSSES:
        return LOSSES[name]
    try:
        return _find(losses, "loss", name)
    except ValueError as error:
        raise ValueError(f"{error} Losses of this toolkit: {', '.join(sorted(LOSSES))}.") from error


def filled(make: type[nn.Module], options: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """``options``, and what ``known`` has of the arguments that the class cannot do without.

    Those of its parents count too, as far as it hands on what it does not name itself (``*args``, ``**kwargs``).
    """
    return {**{name: known[name] for name in _required(make) if name in known}, **options}


def _required(make: type[nn.Module]) -> set[str]:
    found: set[str] = set()
    for base in (base for base in make.__mro__ if "__init__" in vars(base)):
        _, *parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        open_ended = {one.name for one in parameters if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
        found |= {one.name for one in parameters if one.default is one.empty} - open_ended
        if not open_ended:
            break
    return found


def _find(module: ModuleType, kind: str, name: str) -> type[nn.Module]:
    known = [key for key, value in vars(module).items() if inspect.isclass(value) and not key.startswith("Base")]
    if name not in known:
        raise ValueError(f"pytorch-metric-learning has no {kind} {name!r}.{did_you_mean(name, known)}")
    found: type[nn.Module] = getattr(module, name)
    return found
