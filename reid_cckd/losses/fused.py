"""Row sums of squared kernel differences, with their gradient, tile by tile in one pass over the pairs.

For unit rows u (student) and v (teacher) and a kernel k of their dot products, the row sums are

    rows_i = sum_j w_ij D_ij^2,   D_ij = k(u_i . u_j) - k(v_i . v_j),

and the gradient of sum_i g_i rows_i is 2 sum_j (g_i w_ij + g_j w_ji) D_ij k'(u_i . u_j) u_j. D is symmetric, so
only tiles on and above the diagonal are formed, each serving both of its row blocks: two matrix products in place of
the three (student, teacher, gradient) of the plain formula. Tiles stay in the cache, nothing of size n x n exists.

The gradient for equal g, all that mean and sum reducers need, is found on the way forward and scaled on the way
back. For any other g (or a second backward) the pass is repeated with g in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reid_cckd.losses.kernels import Profile, inverse_norms
from reid_cckd.losses.precision import full_precision

Weights = Callable[[slice, slice], Tensor]  # the tile w[i, j] of pair weights
Step = Callable[[Tensor, Tensor, Profile], tuple[Tensor, Tensor]]
TILE_ROWS = {"cpu": 256}  # three tiles fit into a core's L2 cache
TILE_ROWS_ELSEWHERE = 2048  # enough work for an accelerator


class Pass(NamedTuple):
    """What a pass over the pairs computes; ``weights`` None is 1 for all pairs."""

    profile: Profile
    normalize: bool = True
    weights: Weights | None = None
    step: Step | None = None


def difference_and_slope(student: Tensor, teacher: Tensor, profile: Profile) -> tuple[Tensor, Tensor]:
    """D = k(student) - k(teacher) of two tiles of dot products, and D k'(student)."""
    value, slope = profile.centred_and_slope(student)
    difference = value.sub_(profile.centred(teacher))
    return difference, slope * difference


def compiled_step() -> Step:
    """`difference_and_slope` as one generated loop over the tile; compiled on first use."""
    return cast(Step, torch.compile(difference_and_slope, dynamic=True))


class Rows:
    """Rows of which blocks can be had at unit length, without a copy of all of them."""

    def __init__(self, rows: Tensor, normalize: bool) -> None:
        self.rows = rows
        self.scale = inverse_norms(rows) if normalize else None

    def block(self, index: slice) -> Tensor:
        """The block, scaled."""
        block = self.rows[index]
        return block if self.scale is None else block * self.scale[index]

    def chain_(self, gradient: Tensor) -> None:
        """Turn the gradient of the scaled rows into the gradient of the rows themselves, in place."""
        if self.scale is None:
            return
        for index in blocks(len(gradient), gradient):
            unit, part = self.block(index), gradient[index]
            along = torch.linalg.vecdot(part, unit).unsqueeze(1)
            part.addcmul_(unit, along, value=-1).mul_(self.scale[index])


def blocks(count: int, rows: Tensor) -> Iterator[slice]:
    """Slices of equal size, but for the last."""
    size = TILE_ROWS.get(rows.device.type, TILE_ROWS_ELSEWHERE)
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def within(task: Pass, student: Tensor, teacher: Tensor, upstream: Tensor | None, gradient: Tensor | None) -> Tensor:
    """Row sums (n,) over all pairs of a batch; adds the gradient of sum_i upstream_i rows_i to ``gradient``.

    Student (n, d), teacher (n, t), upstream (n,) or None for ones; gradient has the student's shape or is None.
    """
    step = task.step or difference_and_slope
    mine, theirs = Rows(student, task.normalize), Rows(teacher, task.normalize)
    sums = student.new_zeros(len(student))
    tiles = list(blocks(len(student), student))
    for position, i in enumerate(tiles):
        student_i, teacher_i = mine.block(i), theirs.block(i)
        for j in tiles[position:]:
            mirrored = i != j
            student_j = mine.block(j) if mirrored else student_i
            teacher_j = theirs.block(j) if mirrored else teacher_i
            difference, pull = step(student_i @ student_j.T, teacher_i @ teacher_j.T, task.profile)
            square = difference.square_()
            _add_row_sums(sums, square, task.weights, i, j)
            if mirrored:
                _add_row_sums(sums, square.T, task.weights, j, i)
            if gradient is None:
                continue
            if task.weights is None and upstream is None:
                pull *= 2
            else:
                pull *= _share(task.weights, upstream, i, j) + _share(task.weights, upstream, j, i).T
            gradient[i].addmm_(pull, student_j, alpha=2)
            if mirrored:
                gradient[j].addmm_(pull.T, student_i, alpha=2)
    if gradient is not None:
        mine.chain_(gradient)
    return sums


def against(
    task: Pass,
    student: Tensor,
    teacher: Tensor,
    others: tuple[Tensor, Tensor],
    upstream: Tensor | None,
    gradient: Tensor | None,
) -> Tensor:
    """Row sums (n,) over the pairs of a batch with other (student, teacher) rows, (m, d) and (m, t), held constant."""
    step = task.step or difference_and_slope
    mine, theirs = Rows(student, task.normalize), Rows(teacher, task.normalize)
    other_mine, other_theirs = (Rows(rows, task.normalize) for rows in others)
    sums = student.new_zeros(len(student))
    for i in blocks(len(student), student):
        student_i, teacher_i = mine.block(i), theirs.block(i)
        for j in blocks(len(others[0]), student):
            student_j = other_mine.block(j)
            difference, pull = step(student_i @ student_j.T, teacher_i @ other_theirs.block(j).T, task.profile)
            _add_row_sums(sums, difference.square_(), task.weights, i, j)
            if gradient is None:
                continue
            if task.weights is not None or upstream is not None:
                pull *= _share(task.weights, upstream, i, j)
            gradient[i].addmm_(pull, student_j, alpha=2)
    if gradient is not None:
        mine.chain_(gradient)
    return sums


def _add_row_sums(sums: Tensor, square: Tensor, weights: Weights | None, i: slice, j: slice) -> None:
    sums[i] += (square if weights is None else square * weights(i, j)).sum(dim=1)


def _share(weights: Weights | None, upstream: Tensor | None, i: slice, j: slice) -> Tensor:
    """g_i w_ij, to be broadcast over the tile."""
    if upstream is None:
        assert weights is not None
        return weights(i, j)
    share = upstream[i].unsqueeze(1)
    return share if weights is None else share * weights(i, j)


class _RowSums(torch.autograd.Function):
    """`within` or `against` as one differentiable operation of the student's rows."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, run: Callable[..., Tensor], wanted: bool) -> Tensor:
        ctx.run, ctx.gradient = run, torch.zeros_like(student) if wanted else None
        ctx.save_for_backward(student)
        return run(student, None, ctx.gradient)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (student,) = ctx.saved_tensors
        # The gradient found on the way forward is given away, not copied: a second backward finds it anew.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is not None and bool((upstream == upstream[0]).all()):
            return gradient.mul_(upstream[0]), None, None
        gradient = torch.zeros_like(student)
        ctx.run(student, upstream, gradient)
        return gradient, None, None


@torch.compiler.disable
def row_sums(student: Tensor, teacher: Tensor, task: Pass, others: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """sum_j w_ij D_ij^2 for each row i, (n,), over the batch itself or over ``others``; differentiable once."""
    wanted = student.requires_grad and torch.is_grad_enabled()

    def run(rows: Tensor, upstream: Tensor | None, gradient: Tensor | None) -> Tensor:
        with full_precision(rows):
            if others is None:
                return within(task, rows, teacher, upstream, gradient)
            return against(task, rows, teacher, others, upstream, gradient)

    return cast(Tensor, _RowSums.apply(student, run, wanted))
