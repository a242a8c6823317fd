"""What options of losses have to be, and when a loss looks at the numbers that it was given."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def positive(name: str, value: float) -> float:
    """The value, or a ValueError that names it."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: expected a number above 0, got {value}")
    return value


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
