"""What is made of dot products: of tiles, by operations of torch or generated code, or of a small batch at once.

Generated loops read a tile once in place of once for each operation. A small batch is generated as a whole, products
and all: there the calls, of which a pass over tiles makes a hundred, take a third of the time. On an accelerator they
take nearly all of it, so that there a small batch is compared as a whole without generated code too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from reid_cckd.losses.kernels import Profile, inverse, inverse_of_finite
from reid_cckd.scratch import Scratch

Sums = tuple[Tensor, Tensor]  # of a tile along each row and along each column
Factors = tuple[Tensor, Tensor]  # of some rows of the student and of the teacher
STRIPS = 4  # of columns of a whole batch, each from the diagonal down: tall products are a little faster than wide ones
FEWEST, MOST = 16, 1024  # rows of a batch that is compared as a whole: matrices of all its pairs take 4 MB each at most
MOST_AT_ONCE, MOST_GENERATED = 2048, 4096  # on an accelerator: four matrices of 16 MB, or three of 64 if generated
KEPT = 31 * 2**20  # bytes; glibc keeps no larger pieces
_scratch = Scratch()


def compare_(
    profile: Profile, student: Tensor, teacher: Tensor, own: Tensor | None, other: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """D k' of tiles of dot products, which are written over, and the sums of D^2 in each row and in each column.

    ``own`` (rows, columns) and ``other`` (columns, rows) are weights of the pairs as rows and as columns see them.
    """
    if student.device.type == "cpu":
        difference, pull = (_scratch.take(name, student.shape, student) for name in ("difference", "pull"))
        profile.compare_(student, teacher, difference, pull)
    else:
        difference, pull = profile.compared(student, teacher)
    return pull, *_sums(difference.square_(), own, other)


def compare(
    profile: Profile,
    student: Tensor,
    teacher: Tensor,
    pull: Tensor,
    own: Tensor | None,
    other: Tensor | None,
    rows: Factors,
    columns: Factors,
) -> Sums:
    """`compare_` as a compiler likes it, nothing but ``pull`` is written; and with the factors of rows and columns.

    Gives the sums alone.
    """
    difference, result = _compared(profile, (student, teacher), rows, columns)
    pull.copy_(result)
    return _sums(difference.square(), own, other)


def _compared(profile: Profile, dots: Factors, rows: Factors, columns: Factors) -> tuple[Tensor, Tensor]:
    """D and D k' of dot products that are still to be multiplied by the factors of their rows and columns."""
    scale, other_scale = (one * two.T for one, two in zip(rows, columns, strict=True))
    student, teacher = dots[0] * scale, dots[1] * other_scale
    difference, pull = profile.compared(student, teacher)
    return difference, pull * scale


def _sums(square: Tensor, own: Tensor | None, other: Tensor | None) -> Sums:
    along = square if own is None else square * own
    across = square if other is None else square * other.T
    return along.sum(dim=1), across.sum(dim=0)


def compare_all(profile: Profile, student: Tensor, teacher: Tensor, normalize: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The row sums (n,), the gradient (n, d) of their sum, and the length of the longest row, for a compiler.

    Rows are taken as they are, with factors: right while the longest row is of moderate length.
    """
    norms = [torch.linalg.vector_norm(rows, dim=1, keepdim=True) for rows in (student, teacher)]
    # generated code finds the inverses anew for every pair, and this is a cheap way
    scale, other = (inverse_of_finite(norm) if normalize else torch.ones_like(norm) for norm in norms)
    sums = student.new_zeros(len(student))
    strips: list[Tensor] = []
    height = -(-len(student) // STRIPS)
    cuts = [*(strip * height for strip in range(STRIPS)), len(student)]
    for start, stop in itertools.pairwise(cuts):
        dots = student[start:] @ student[start:stop].T, teacher[start:] @ teacher[start:stop].T
        rows, columns = (scale[start:], other[start:]), (scale[start:stop], other[start:stop])
        difference, pull = _compared(profile, dots, rows, columns)
        along, across = _sums(difference.square(), None, None)
        sums[start:stop] += across
        sums[stop:] += along[stop - start :]
        strips.append(pull)
    gradient = 4 * (_mirrored(strips, cuts) @ student)
    if normalize:
        gradient = gradient - student * ((student * gradient).sum(dim=1, keepdim=True) * scale.square())
    return sums, gradient, torch.maximum(*(norm.max() for norm in norms))


def compare_at_once(profile: Profile, student: Tensor, teacher: Tensor, normalize: bool) -> Sums:
    """The row sums (n,) and the gradient (n, d) of their sum, in few operations and without a look at any number."""
    rows, others = student, teacher
    if normalize:
        norms = torch.stack([torch.linalg.vector_norm(rows, dim=1, keepdim=True) for rows in (student, teacher)])
        scale, other = inverse(norms).unbind()
        rows, others = student * scale, teacher * other
    difference, pull = profile.compared(rows @ rows.T, others @ others.T)
    gradient = torch.addmm(rows, pull, rows, beta=0, alpha=4)
    if normalize:
        gradient.addcmul_(rows, (rows * gradient).sum(dim=1, keepdim=True), value=-1).mul_(scale)
    return torch.linalg.vector_norm(difference, dim=1).square(), gradient


def _mirrored(strips: list[Tensor], cuts: list[int]) -> Tensor:
    """The symmetric matrix whose columns from the diagonal on are in ``strips``, which begin at ``cuts``."""
    columns = []
    for k, strip in enumerate(strips):
        above = [strips[m][cuts[k] - cuts[m] : cuts[k + 1] - cuts[m]].T for m in range(k)]
        columns.append(torch.cat([*above, strip]))
    return torch.cat(columns, dim=1)


def whole_fits(rows: Tensor, generated: bool) -> bool:
    """Whether a batch is small enough to be compared as a whole; on the CPU by generated code alone."""
    if rows.device.type == "cpu":
        return generated and FEWEST <= len(rows) <= MOST
    return FEWEST <= len(rows) <= MOST_GENERATED if generated else len(rows) <= MOST_AT_ONCE


class CompiledStep:
    """The three comparisons as generated code; compiled on first use, and anew where a copy is unpickled.

    Of copies of them, because torch counts the variants of a piece of code, and after eight of them, which several
    losses in one process together reach, would compile no more.
    """

    def __init__(self) -> None:
        self.tile, self.whole, self.at_once = (_compiled(step) for step in (compare, compare_all, compare_at_once))
        _keep_freed_memory()

    def __reduce__(self) -> tuple[type[CompiledStep], tuple[()]]:
        return CompiledStep, ()


def _compiled(function: Callable[..., Any]) -> Any:
    return torch.compile(FunctionType(function.__code__.replace(), globals()), dynamic=True)


def _keep_freed_memory() -> None:
    """Let generated code find the memory of its matrices again at the next call, not fetch it page by page.

    glibc returns what is freed to the system, but for twice the size of the largest piece that was freed so far.
    """
    torch.empty(KEPT, dtype=torch.uint8)
