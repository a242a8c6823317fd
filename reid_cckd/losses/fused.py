"""Row sums of squared kernel differences, with their gradient, tile by tile in one pass over the pairs.

For unit rows u (student) and v (teacher) and a kernel k of their dot products, the row sums are

    rows_i = sum_j w_ij D_ij^2,   D_ij = k(u_i . u_j) - k(v_i . v_j),

and the gradient of sum_i g_i rows_i is 2 sum_j (g_i w_ij + g_j w_ji) D_ij k'(u_i . u_j) u_j. D is symmetric, so
only tiles on and above the diagonal are formed, each serving both of its row blocks: two matrix products in place of
the three (student, teacher, gradient) of the plain formula. Tiles stay in the cache, nothing of size n x n exists.

The gradient for equal g, all that mean and sum reducers need, is found on the way forward and scaled on the way
back. For any other g, or a second backward, the pass is repeated with g in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from reid_cckd.losses.kernels import Profile, inverse_norms
from reid_cckd.losses.precision import full_precision

Weights = Callable[[slice, slice], Tensor]  # the tile w[i, j] of pair weights
Phi = Callable[[Tensor, Tensor], Tensor]
Step = Callable[..., None]  # `compare_`, or what does the same
TILE_ROWS = 384  # on CPU a tile stays in the cache of a core
BLOCK_ELEMENTS = 2**19  # wide rows come in blocks of at most 2 MB, of which a few exist at a time
ACCELERATOR_TILE_ROWS = 2048  # a tile that keeps an accelerator busy, 16 MB


class Kernel(NamedTuple):
    """What is done with two tiles of dot products: ``step`` with the ``profile`` of rows at unit length or not."""

    profile: Profile
    normalize: bool = True
    step: Step | None = None

    def matrix(self, rows: Tensor, others: Tensor) -> Tensor:
        """The kernel of all pairs, (n, m), but for its constant."""
        if self.normalize:
            rows, others = rows * inverse_norms(rows), others * inverse_norms(others)
        return self.profile.centred(rows @ others.T)


class Past(NamedTuple):
    """Rows held constant, (m, d) and (m, t), with which a batch is compared; weights None is 1 for all pairs."""

    student: Tensor
    teacher: Tensor
    weights: Weights | None = None


def compare_(profile: Profile, *tiles: Tensor) -> None:
    """`Profile.compare_`, the elementwise part of a tile."""
    profile.compare_(*tiles)


def compiled_step() -> Step:
    """`compare_` as one generated loop over the tile; compiled on first use."""
    return cast(Step, torch.compile(compare_, dynamic=True))


class Rows:
    """Rows of which blocks can be had at unit length, without a copy of all of them."""

    def __init__(self, rows: Tensor, normalize: bool) -> None:
        self.rows, self.blocks = rows, blocks(rows)
        self.scale = inverse_norms(rows) if normalize else None
        self.longest = max(index.stop - index.start for index in self.blocks)
        self._buffers = [rows.new_empty(self.longest, rows.shape[1]) for _ in range(2)] if normalize else []

    def block(self, index: slice, buffer: int = 0) -> Tensor:
        """The block, scaled; valid until the next one is asked of the same of two buffers."""
        if self.scale is None:
            return self.rows[index]
        place = self._buffers[buffer][: index.stop - index.start]
        return torch.mul(self.rows[index], self.scale[index], out=place)

    def chain_(self, gradient: Tensor) -> None:
        """Turn the gradient of the scaled rows into the gradient of the rows themselves, in place."""
        if self.scale is None:
            return
        for index in self.blocks:
            unit, part = self.block(index), gradient[index]
            along = torch.mul(unit, part, out=self._buffers[1][: len(unit)]).sum(dim=1, keepdim=True)
            part.addcmul_(unit, along, value=-1).mul_(self.scale[index])


def blocks(rows: Tensor) -> list[slice]:
    """Slices of nearly equal size that cover all rows."""
    count, width = rows.shape
    most = ACCELERATOR_TILE_ROWS
    if rows.device.type == "cpu":
        most = max(min(TILE_ROWS, BLOCK_ELEMENTS // max(width, 1)), 1)
    size = math.ceil(count / math.ceil(count / most))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class _Sweep:
    """One pass over pairs of rows, which adds up ``sums`` (n,) and, if it is not None, ``gradient`` (n, d).

    The gradient is that of sum_i upstream_i rows_i; ``upstream`` (n,) None is all ones.
    """

    def __init__(
        self, kernel: Kernel, student: Tensor, teacher: Tensor, upstream: Tensor | None, gradient: Tensor | None
    ) -> None:
        self.kernel, self.upstream, self.gradient = kernel, upstream, gradient
        self.mine, self.theirs = Rows(student, kernel.normalize), Rows(teacher, kernel.normalize)
        self.sums = student.new_zeros(len(student))
        self._tiles = student.new_empty(4, 0)

    def within(self, weights: Weights | None) -> None:
        """All pairs of the batch."""
        for position, i in enumerate(self.mine.blocks):
            student_i, teacher_i = self.mine.block(i), self.theirs.block(i)
            for j in self.mine.blocks[position:]:
                mirrored = i != j
                student_j = self.mine.block(j, buffer=1) if mirrored else student_i
                teacher_j = self.theirs.block(j, buffer=1) if mirrored else teacher_i
                square, pull = self._tile(student_i, student_j, teacher_i, teacher_j)
                self._add_sums(square, weights, i, j)
                if mirrored:
                    self._add_sums(square.T, weights, j, i)
                if self.gradient is None:
                    continue
                if weights is not None or self.upstream is not None:
                    pull *= 0.5 * (self._share(weights, i, j) + self._share(weights, j, i).T)
                self.gradient[i].addmm_(pull, student_j, alpha=4)
                if mirrored:
                    self.gradient[j].addmm_(pull.T, student_i, alpha=4)

    def against(self, past: Past) -> None:
        """All pairs of a row of the batch and a row held constant."""
        past_mine = Rows(past.student, self.kernel.normalize)
        past_theirs = Rows(past.teacher, self.kernel.normalize)
        for j in past_mine.blocks:
            student_j, teacher_j = past_mine.block(j), past_theirs.block(j)
            for i in self.mine.blocks:
                square, pull = self._tile(self.mine.block(i), student_j, self.theirs.block(i), teacher_j)
                self._add_sums(square, past.weights, i, j)
                if self.gradient is None:
                    continue
                if past.weights is not None or self.upstream is not None:
                    pull *= self._share(past.weights, i, j)
                self.gradient[i].addmm_(pull, student_j, alpha=2)

    def finish(self) -> Tensor:
        """The row sums; the gradient becomes that of the rows as they were given."""
        if self.gradient is not None:
            self.mine.chain_(self.gradient)
        return self.sums

    def _tile(
        self, student_i: Tensor, student_j: Tensor, teacher_i: Tensor, teacher_j: Tensor
    ) -> tuple[Tensor, Tensor]:
        """D^2 and D k' of a tile, valid until the next tile."""
        shape = len(student_i), len(student_j)
        if self._tiles.shape[1] < math.prod(shape):
            self._tiles = self.sums.new_empty(4, math.prod(shape))
        one, two, difference, pull = (flat[: math.prod(shape)].view(shape) for flat in self._tiles)
        torch.mm(student_i, student_j.T, out=one)
        torch.mm(teacher_i, teacher_j.T, out=two)
        (self.kernel.step or compare_)(self.kernel.profile, one, two, difference, pull)
        return difference.square_(), pull

    def _add_sums(self, square: Tensor, weights: Weights | None, i: slice, j: slice) -> None:
        self.sums[i] += (square if weights is None else square * weights(i, j)).sum(dim=1)

    def _share(self, weights: Weights | None, i: slice, j: slice) -> Tensor:
        """g_i w_ij, to be broadcast over the tile."""
        ones = self.sums.new_ones(1, 1)
        share = ones if self.upstream is None else self.upstream[i].unsqueeze(1)
        return share if weights is None else share * weights(i, j)


def _sweep(
    kernel: Kernel,
    student: Tensor,
    teacher: Tensor,
    weights: Weights | None,
    past: Sequence[Past],
    upstream: Tensor | None,
    gradient: Tensor | None,
) -> Tensor:
    with full_precision(student):
        sweep = _Sweep(kernel, student, teacher, upstream, gradient)
        sweep.within(weights)
        for others in past:
            sweep.against(others)
        return sweep.finish()


def plain_row_sums(phi: Phi, student: Tensor, teacher: Tensor, columns: Sequence[Past]) -> Tensor:
    """sum_j w_ij (phi(s_i, s_j) - phi(t_i, t_j))^2 over all columns, (n,), by autograd on whole matrices.

    ``phi`` maps rows (n, d) and (m, d) to a matrix (n, m).
    """
    sums = student.new_zeros(len(student))
    for other_student, other_teacher, weights in columns:
        with torch.no_grad():
            target = phi(teacher, other_teacher)
        square = (phi(student, other_student) - target).square()
        everything = slice(None)
        sums = sums + (square if weights is None else square * weights(everything, everything)).sum(dim=1)
    return sums


class _RowSums(torch.autograd.Function):
    """A sweep as one differentiable operation of the student's rows."""

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        kernel: Kernel,
        weights: Weights | None,
        past: Sequence[Past],
        wanted: bool,
    ) -> Tensor:
        ctx.save_for_backward(student, teacher)
        ctx.options = kernel, weights, past
        ctx.gradient = torch.zeros_like(student) if wanted else None
        return _sweep(kernel, student, teacher, weights, past, None, ctx.gradient)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        student, teacher = ctx.saved_tensors
        kernel, weights, past = ctx.options
        if torch.is_grad_enabled():  # create_graph=True: somebody is to differentiate the gradient
            with full_precision(student):
                sums = plain_row_sums(kernel.matrix, student, teacher, [Past(student, teacher, weights), *past])
            (gradient,) = torch.autograd.grad(sums, student, upstream, create_graph=True)
            return gradient, None, None, None, None, None
        # The gradient found on the way forward is given away, not copied: a second backward finds it anew.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is not None and bool((upstream == upstream[0]).all()):
            gradient.mul_(upstream[0])
        else:
            gradient = torch.zeros_like(student)
            _sweep(kernel, student, teacher, weights, past, upstream, gradient)
        return gradient, None, None, None, None, None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def row_sums(
    kernel: Kernel, student: Tensor, teacher: Tensor, weights: Weights | None = None, past: Sequence[Past] = ()
) -> Tensor:
    """sum_j w_ij D_ij^2 of each row i over the rows of the batch and of ``past``, (n,).

    Student (n, d), teacher (n, t) of the same type; differentiable in the student's rows. A second derivative
    (``create_graph=True``) goes through `plain_row_sums`.
    """
    wanted = student.requires_grad and torch.is_grad_enabled()
    return cast(Tensor, _RowSums.apply(student, teacher, kernel, weights, past, wanted))
