"""Rows of all processes of a run, with gradients."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch import distributed as dist


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes, in order of rank, (sum of n_r, ...); the input itself outside of a distributed run.

    Batches may differ in length, be empty too. Gradients flow back to the process that a row came from, summed over
    the losses of all processes: where each computes the same loss of all rows, DistributedDataParallel's mean over
    processes then yields exactly the gradient of that loss in a single process.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows
    return cast(Tensor, _GatherRows.apply(rows))


class _GatherRows(torch.autograd.Function):
    """All-gather of blocks padded to the longest; backward is a sum over processes of which each keeps its part."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        counts = _counts(rows)
        longest = max(counts)
        padded = rows.new_zeros(longest, *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(gathered, padded)
        start = sum(counts[: dist.get_rank()])
        ctx.part = slice(start, start + len(rows))
        return torch.cat([block[:count] for block, count in zip(gathered, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        total = upstream.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.part]


def _counts(rows: Tensor) -> list[int]:
    """How many rows each process has."""
    mine = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, mine)
    return [int(count) for count in counts]
