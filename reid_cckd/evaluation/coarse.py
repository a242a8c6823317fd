"""Which products of unit rows may reach a threshold, found in bfloat16 where that is many times as fast as float32."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reid_cckd.evaluation.counting import Floats, Ints
from reid_cckd.scratch import empty

_TOGETHER = 512  # rows converted together, so that they stay in the cache
_BLOCK = 2048  # rows on the right that are multiplied together; they and their products stay in the cache
_FEW = 0.004  # above four products in a thousand it is faster to multiply all in float32


@functools.cache
def available() -> bool:
    """Whether this processor multiplies matrices of bfloat16 in hardware (Intel's AMX)."""
    facts = Path("/proc/cpuinfo")
    return torch.backends.mkldnn.is_available() and facts.exists() and "amx_bf16" in facts.read_text()


def halve(rows: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Unit rows (N, D) in bfloat16: of unit rows, or of rows with these lengths."""
    halves = empty(rows.numel(), rows.device, torch.bfloat16).view(rows.shape)
    for start in range(0, len(rows), _TOGETHER):
        own = slice(start, start + _TOGETHER)
        unit = rows[own] if lengths is None else torch.from_numpy(rows[own].numpy() / lengths[own, None].numpy())
        halves[own] = unit
    return halves


def reaching(left: Tensor, right: Tensor, least: Floats) -> tuple[Ints, Ints] | None:
    """Pairs (row of ``left`` (A, D), row of ``right`` (B, D)), made by `halve`, whose product may reach ``least`` (A).

    All are among them whose exact product is ``least`` of its row or more. None where so many may be that the exact
    products of all are sooner computed.
    """
    wanted = torch.from_numpy(least - margin(left.shape[1])).bfloat16()[:, None]
    if not bool((wanted > 0).all()):
        return None
    bounds = wanted.view(torch.int16).numpy()
    found, count = [], 0
    for start in range(0, len(right), _BLOCK):
        products = left @ right[start : start + _BLOCK].T
        # the bits of positive numbers are in the order of the numbers, and those of negative ones are negative
        near = np.flatnonzero(products.view(torch.int16).numpy() >= bounds)
        rows, columns = np.divmod(near, products.shape[1])
        found.append((rows, start + columns))
        count += len(near)
        if count > _FEW * len(left) * (start + products.shape[1]):
            return None
    rows, columns = map(np.concatenate, zip(*found, strict=True))
    return rows, columns


def margin(width: int) -> float:
    """How far below the product of two unit rows that in bfloat16 can lie, before it is rounded.

    A rounded number is off by 2^-8 of itself or less, a rounded row as much; sums are of float32. Rounding of the
    product and of the threshold keeps their order.
    """
    return 2**-7 + 2**-16 + width * 2**-22
