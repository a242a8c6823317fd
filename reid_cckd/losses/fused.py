"""Row sums of squared kernel differences, with their gradient, tile by tile in one pass over the pairs.

For unit rows u (student) and v (teacher) and a kernel k of their dot products, the row sums are

    rows_i = sum_j w_ij D_ij^2,   D_ij = k(u_i . u_j) - k(v_i . v_j),

and the gradient of sum_i g_i rows_i is 2 sum_j (g_i w_ij + g_j w_ji) D_ij k'(u_i . u_j) u_j. D is symmetric, so
only tiles on and above the diagonal are formed, each serving its rows and its columns: little more than two matrix
products in place of the three (student, teacher, gradient) of the plain formula. Nothing of size n x n exists.

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
Sides = tuple[Tensor, Tensor]  # some rows of the student and the teacher's rows of the same instances
TILE_ROWS, TILE_COLUMNS = 256, 1024  # on CPU: low tiles waste little beside the diagonal, long ones mean few calls
COLUMN_ELEMENTS = 2**20  # embeddings that stand for the columns of a tile take at most 4 MB
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
    """Rows of which some can be had at unit length, without a copy of all of them.

    ``blocks`` are slices that cover all rows, as high as a tile; ``groups`` are runs of blocks, as many as it is wide.
    """

    def __init__(self, rows: Tensor, normalize: bool, tile: tuple[int, int]) -> None:
        self.rows, count = rows, len(rows)
        self.blocks, self.groups = (slices(count, size) for size in tile)
        self.scale = inverse_norms(rows) if normalize else None
        self._buffers = [rows.new_empty(min(size, count), rows.shape[1]) for size in tile] if normalize else []

    def block(self, index: slice) -> Tensor:
        """One of ``blocks``, scaled; valid until the next one is asked for."""
        return self._scaled(index, 0)

    def group(self, index: slice) -> Tensor:
        """One of ``groups``, scaled; valid until the next one is asked for."""
        return self._scaled(index, 1)

    def _scaled(self, index: slice, buffer: int) -> Tensor:
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


def slices(count: int, size: int) -> list[slice]:
    """Slices of ``size`` that cover 0 ... count; the last may be shorter."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def tile_of(student: Tensor, teacher: Tensor) -> tuple[int, int]:
    """Rows and columns of a tile: nearly equal parts of all rows, and a multiple of them."""
    count, width = len(student), max(student.shape[1], teacher.shape[1], 1)
    rows, columns = ACCELERATOR_TILE_ROWS, ACCELERATOR_TILE_ROWS
    if student.device.type == "cpu":
        rows, columns = TILE_ROWS, min(TILE_COLUMNS, COLUMN_ELEMENTS // width)
    rows = math.ceil(count / math.ceil(count / rows))
    return rows, max(columns // rows, 1) * rows


class _Sweep:
    """One pass over pairs of rows, which adds up ``sums`` (n,) and, if it is not None, ``gradient`` (n, d).

    The gradient is that of sum_i upstream_i rows_i; ``upstream`` (n,) None is all ones.
    """

    def __init__(
        self, kernel: Kernel, student: Tensor, teacher: Tensor, upstream: Tensor | None, gradient: Tensor | None
    ) -> None:
        self.kernel, self.upstream, self.gradient = kernel, upstream, gradient
        tile = tile_of(student, teacher)
        self.mine, self.theirs = (Rows(rows, kernel.normalize, tile) for rows in (student, teacher))
        self.sums = student.new_zeros(len(student))
        self._tiles = student.new_empty(4, 0)

    def within(self, weights: Weights | None) -> None:
        """All pairs of the batch, by tiles on and above the diagonal."""
        for group in self.mine.groups:
            student, teacher = self.mine.group(group), self.theirs.group(group)
            for i in self.mine.blocks:
                if i.start >= group.stop:
                    break
                height, before = i.stop - i.start, i.start - group.start
                if before < 0:  # the tile lies above the diagonal
                    rows = self.mine.block(i), self.theirs.block(i)
                    self._pairs(i, group, rows, (student, teacher), 0, weights)
                else:  # it begins with a square on the diagonal
                    columns = student[before:], teacher[before:]
                    rows = columns[0][:height], columns[1][:height]
                    self._pairs(i, slice(i.start, group.stop), rows, columns, height, weights)

    def _pairs(
        self, i: slice, j: slice, rows: Sides, columns: Sides, square_part: int, weights: Weights | None
    ) -> None:
        """The pairs (i, j) of a tile and (j, i) of what lies right of its ``square_part`` on the diagonal."""
        square, pull = self._tile(rows, columns)
        rest = slice(j.start + square_part, j.stop)
        self._add_sums(square, weights, i, j)
        self._add_sums(square[:, square_part:].T, weights, rest, i)
        if self.gradient is None:
            return
        if weights is not None or self.upstream is not None:
            pull *= 0.5 * (self._share(weights, i, j) + self._share(weights, j, i).T)
        self.gradient[i].addmm_(pull, columns[0], alpha=4)
        self.gradient[rest].addmm_(pull[:, square_part:].T, rows[0], alpha=4)

    def against(self, past: Past) -> None:
        """All pairs of a row of the batch and a row held constant."""
        tile = tile_of(past.student, past.teacher)
        student, teacher = (Rows(rows, self.kernel.normalize, tile) for rows in (past.student, past.teacher))
        for j in student.groups:
            columns = student.group(j), teacher.group(j)
            for i in self.mine.blocks:
                square, pull = self._tile((self.mine.block(i), self.theirs.block(i)), columns)
                self._add_sums(square, past.weights, i, j)
                if self.gradient is None:
                    continue
                if past.weights is not None or self.upstream is not None:
                    pull *= self._share(past.weights, i, j)
                self.gradient[i].addmm_(pull, columns[0], alpha=2)

    def finish(self) -> Tensor:
        """The row sums; the gradient becomes that of the rows as they were given."""
        if self.gradient is not None:
            self.mine.chain_(self.gradient)
        return self.sums

    def _tile(self, rows: Sides, columns: Sides) -> tuple[Tensor, Tensor]:
        """D^2 and D k' of a tile, valid until the next tile."""
        shape = len(rows[0]), len(columns[0])
        if self._tiles.shape[1] < math.prod(shape):
            self._tiles = self.sums.new_empty(4, math.prod(shape))
        one, two, difference, pull = (flat[: math.prod(shape)].view(shape) for flat in self._tiles)
        torch.mm(rows[0], columns[0].T, out=one)
        torch.mm(rows[1], columns[1].T, out=two)
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
