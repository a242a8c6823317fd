"""Rows of all processes of a run, with gradients.

A relational loss of a batch split over processes is not the mean of the parts' losses: pairs across processes count.

    loss(gather_rows(student), gather_rows(labels), ref_emb=gather_rows(teacher)).backward()

in every process, under DistributedDataParallel, gives the loss and the gradients of one process with the whole batch.
PML's ``DistributedLossWrapper(loss)`` does too, if all batches are of one size (its all-gather assumes so), but for the
value, which it multiplies by the number of processes. Its
``efficient=True`` puts the teacher's rows of all processes beside the student's rows of one: that raises. It takes
`CorrelationCongruenceLoss` alone: of the losses of this package no other is a loss class of PML, and the helper does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable

from reid_cckd.batch import Output

_whole: ContextVar[bool] = ContextVar("_whole", default=False)


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes, in order of rank, (sum of n_r, ...); the input itself outside of a distributed run.

    Batches may differ in length, be empty too. Every process must call it, and its backward. Gradients flow back to
    the process that a row came from, summed over the losses of all processes: where each computes the same loss of
    all rows, DistributedDataParallel's mean over processes is then exactly the gradient of that loss. Under
    `rows_are_whole` it is the identity.
    """
    if is_alone() or _whole.get():
        return rows
    return cast(Tensor, _GatherRows.apply(rows))


def gather_output(output: Output, stages: Collection[str]) -> Output:
    """The named stages of all processes; the others are left out."""
    named = output._asdict().items()
    gathered = (gather_rows(rows) if name in stages and rows is not None else None for name, rows in named)
    return Output(*gathered)  # type: ignore[arg-type]


def is_alone() -> bool:
    """Whether this process is the only one."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1


def part_of(count: int) -> range:
    """This process's part of ``count`` numbers, in order of rank."""
    if is_alone():
        return range(count)
    rank, world = dist.get_rank(), dist.get_world_size()
    return range(count * rank // world, count * (rank + 1) // world)


def total_of_parts(values: Tensor) -> Tensor:
    """The sum over processes of what each computed of its own part, where all compute the same loss of that sum.

    Every process must call it; the gradient of the loss reaches each part once.
    """
    return values if is_alone() else cast(Tensor, _TotalOfParts.apply(values))


def largest_of_parts(values: Tensor) -> Tensor:
    """The largest over processes of each value, without gradient."""
    values = values.detach().clone()
    if not is_alone():
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return values


def for_parts(rows: Tensor) -> Tensor:
    """Rows that are the same in all processes, of which each computes another part of one loss.

    Every process must call it, and its backward: the gradient is the sum of those of the parts.
    """
    return rows if is_alone() else cast(Tensor, _ForParts.apply(rows))


@contextlib.contextmanager
def rows_are_whole() -> Iterator[None]:
    """A context in which the rows at hand are those of all processes already: losses that remember gather nothing."""
    token = _whole.set(True)
    try:
        yield
    finally:
        _whole.reset(token)


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
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        total = upstream.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.part]


class _TotalOfParts(torch.autograd.Function):
    """All-reduce; backward is the identity, because every process holds the same loss."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        return upstream


class _ForParts(torch.autograd.Function):
    """The identity; backward is an all-reduce."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return rows.view_as(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        total = upstream.contiguous().clone()
        dist.all_reduce(total)
        return total


def _counts(rows: Tensor) -> list[int]:
    """How many rows each process has."""
    mine = torch.full((1,), len(rows), device=rows.device)
    counts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, mine)
    return [int(count) for count in counts]
