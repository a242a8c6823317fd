"""What losses refuse: options, and numbers where it is free to look at them."""

from __future__ import annotations

import math
from numbers import Integral

import torch
from torch import Tensor


def positive(name: str, value: float) -> float:
    """The value, or a ValueError that names it."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: expected a number above 0, got {value}")
    return value


def at_least(name: str, value: float, least: float) -> float:
    """The value, or a ValueError that names it."""
    if not least <= value < math.inf:
        raise ValueError(f"{name}: expected a number of {least:g} or more, got {value}")
    return value


def whole(name: str, value: int, least: int = 1) -> int:
    """The value, or a ValueError that names it."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}: expected a whole number of {least} or more, got {value!r}")
    return int(value)


def check_tensor(name: str, value: object) -> None:
    """Of arrays and lists, which others hand to losses too.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}; torch.as_tensor(...) makes one")


def may_look(numbers: Tensor) -> bool:
    """Whether to read numbers for a check that the result does not need.

    On the CPU always. Reading from an accelerator waits for all that it still has to do, at every step, so there a
    check is made under ``torch.autograd.detect_anomaly()`` only. Without it NaN or Inf in rows is NaN in the loss, and
    an index out of range is what torch makes of it there.
    """
    return numbers.device.type == "cpu" or torch.is_anomaly_enabled()


def out_of_range(indices: Tensor, count: int) -> bool:
    """Whether an index is seen that is not in 0 ... count - 1."""
    if not len(indices) or not may_look(indices):
        return False
    return int(indices.min()) < 0 or int(indices.max()) >= count


def finite(value: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
    """The loss itself.

    Raises:
        ValueError: it is NaN or Inf, and `may_look` says so; names the argument that made it so.
    """
    seen = may_look(value) and not math.isfinite(value.detach().sum())  # one operation in place of five
    if seen and not bool(value.isfinite().all()):  # and not only the sum
        raise ValueError(blame(student, teacher))
    return value


def blame(embeddings: Tensor, ref_emb: Tensor) -> str:
    """Which argument made the loss infinite or undefined."""
    for name, rows in (("embeddings", embeddings), ("ref_emb", ref_emb)):
        bad = (~rows.isfinite()).flatten(1).any(dim=1).nonzero().squeeze(1)
        if len(bad):
            return f"{name}: {len(bad)} of {len(rows)} rows hold NaN or Inf, the first is row {int(bad[0])}"
    return "embeddings, ref_emb: finite, but their kernel values are not; normalise or project them less steeply"
