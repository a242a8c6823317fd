"""Losses are computed in float32 or better: the Gram matrix of bfloat16 rows keeps two digits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def at_least_float32(rows: Tensor) -> Tensor:
    """The same numbers, widened where they come in half precision; float64 stays float64."""
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


def constant(rows: Tensor, like: Tensor) -> Tensor:
    """The same numbers in the precision of ``like``, without gradient: the teacher's, be they of inference mode too."""
    held = rows.detach().to(like.dtype)
    return held.clone() if held.is_inference() else held


def full_precision(rows: Tensor) -> AbstractContextManager[Any]:
    """A context in which a surrounding autocast does not reach matrix products on the device of ``rows``."""
    kind = rows.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
