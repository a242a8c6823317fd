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
from types import FunctionType
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from reid_cckd.losses.kernels import Profile, inverse, unit_rows
from reid_cckd.losses.precision import full_precision
from reid_cckd.scratch import Scratch, empty

Weights = Callable[[slice, slice], Tensor]  # the tile w[i, j] of pair weights
Phi = Callable[[Tensor, Tensor], Tensor]
Sums = tuple[Tensor, Tensor]  # of a tile along each row and along each column
Factors = tuple[Tensor, Tensor]  # of some rows of the student and of the teacher
Step = Callable[..., Sums]  # `compare` compiled
TILE_ROWS, TILE_COLUMNS = 512, 1024  # on CPU: low tiles waste little beside the diagonal, large ones mean few calls
EVEN = 32  # a matrix product of so many rows or a multiple of them is the fastest
COLUMN_ELEMENTS = 2**21  # embeddings that stand for the columns of a tile take at most 8 MB, for its rows a quarter
ACCELERATOR_TILE_ROWS = 2048  # a tile that keeps an accelerator busy, 16 MB
MODERATE = 1e15  # rows that are no longer have dot products that fit float32
_scratch = Scratch()


class Kernel(NamedTuple):
    """What is done with two tiles of dot products: ``step`` with the ``profile`` of rows at unit length or not."""

    profile: Profile
    normalize: bool = True
    step: Step | None = None

    def matrix(self, rows: Tensor, others: Tensor) -> Tensor:
        """The kernel of all pairs, (n, m), but for its constant."""
        if self.normalize:
            rows, others = unit_rows(rows), unit_rows(others)
        return self.profile.centred(rows @ others.T)


class Piece(NamedTuple):
    """Some rows, and what their dot products are still to be multiplied by, (rows, 1)."""

    rows: Tensor
    factors: Tensor

    def part(self, first: int, last: int | None = None) -> Piece:
        """Rows ``first`` ... ``last``."""
        return Piece(self.rows[first:last], self.factors[first:last])


Sides = tuple[Piece, Piece]  # some rows of the student and the teacher's rows of the same instances


class Past(NamedTuple):
    """Rows held constant, (m, d) and (m, t), with which a batch is compared; weights None is 1 for all pairs."""

    student: Tensor
    teacher: Tensor
    weights: Weights | None = None


def compare_(
    profile: Profile, student: Tensor, teacher: Tensor, pull: Tensor, own: Tensor | None, other: Tensor | None
) -> Sums:
    """Turn tiles of dot products, which are written over, into D k' and the sums of D^2 in each row and each column.

    ``own`` (rows, columns) and ``other`` (columns, rows) are weights of the pairs as rows and as columns see them.
    """
    difference = _scratch.take("difference", student.shape, student)
    profile.compare_(student, teacher, difference, pull)
    return _sums(difference.square_(), own, other)


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
    """`compare_` as a compiler likes it, nothing but ``pull`` is written; and with the factors of rows and columns."""
    scale, other_scale = (one * two.T for one, two in zip(rows, columns, strict=True))
    student, teacher = student * scale, teacher * other_scale
    difference = profile.centred(student) - profile.centred(teacher)
    pull.copy_(difference * profile.slope(student) * scale)
    return _sums(difference.square(), own, other)


def _sums(square: Tensor, own: Tensor | None, other: Tensor | None) -> Sums:
    along = square if own is None else square * own
    across = square if other is None else square * other.T
    return along.sum(dim=1), across.sum(dim=0)


def compiled_step() -> Step:
    """`compare` as generated loops over the tile; compiled on first use.

    Of a copy, because torch counts the variants of a piece of code, and after eight of them, which several losses in
    one process together reach, would compile no more.
    """
    return cast(Step, torch.compile(FunctionType(compare.__code__.replace(), globals()), dynamic=True))


def _factors(sides: Sides) -> Factors:
    """Copies, because for views of several kinds torch compiles several variants."""
    student, teacher = sides
    return student.factors.clone(), teacher.factors.clone()


class Rows:
    """Rows of which some can be had at unit length, without a copy of all of them.

    ``blocks`` are slices that cover all rows, as high as a tile; ``groups`` are runs of blocks, as many as it is wide.
    ``name`` tells the memory of two `Rows` apart. With ``late`` rows of moderate length come as they are, with factors:
    on CPU it takes long to pass rows that one core has just scaled to another.
    """

    def __init__(self, rows: Tensor, normalize: bool, late: bool, tile: tuple[int, int], name: str) -> None:
        self.rows, self.name = rows, name
        self.blocks, self.groups = (slices(len(rows), size) for size in tile)
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True) if normalize else None
        self.scale = None if norms is None else inverse(norms)
        self.late = late and norms is not None and bool(norms.max() < MODERATE)
        self.factors = self.scale if self.scale is not None and self.late else rows.new_ones(len(rows), 1)

    def block(self, index: slice) -> Piece:
        """One of ``blocks``; valid until the next one is asked for."""
        return Piece(self._scaled(index, "block"), self.factors[index])

    def group(self, index: slice) -> Piece:
        """One of ``groups``; valid until the next one is asked for."""
        return Piece(self._scaled(index, "group"), self.factors[index])

    def _scaled(self, index: slice, part: str) -> Tensor:
        rows = self.rows[index]
        if self.scale is None or self.late:
            return rows
        return torch.mul(rows, self.scale[index], out=_scratch.take(f"{self.name} {part}", rows.shape, rows))

    def chain_(self, gradient: Tensor) -> None:
        """Turn the gradient of the scaled rows, times their factors, into that of the rows as they are, in place."""
        if self.scale is None:
            return
        for index in self.blocks:
            rows, scale, part = self.rows[index], self.scale[index], gradient[index]
            products = torch.mul(rows, part, out=_scratch.take(f"{self.name} block", rows.shape, rows))
            part.addcmul_(rows, products.sum(dim=1, keepdim=True).mul_(scale).mul_(scale), value=-1)
            if not self.late:
                part.mul_(scale)


def slices(count: int, size: int) -> list[slice]:
    """Slices of ``size`` that cover 0 ... count; the last may be shorter."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def tile_of(student: Tensor, teacher: Tensor) -> tuple[int, int]:
    """Rows and columns of a tile: parts of all rows of about one height, several of many, and a multiple of it."""
    count, width = len(student), max(student.shape[1], teacher.shape[1], 1)
    rows, columns, parts = ACCELERATOR_TILE_ROWS, ACCELERATOR_TILE_ROWS, 2
    if student.device.type == "cpu":
        rows = min(TILE_ROWS, max(COLUMN_ELEMENTS // (4 * width), 1))
        columns, parts = min(TILE_COLUMNS, COLUMN_ELEMENTS // width), 4
    rows = max(min(rows, count // parts), rows // 2, 1)
    rows = math.ceil(count / math.ceil(count / rows) / EVEN) * EVEN
    return rows, math.ceil(columns / rows) * rows


class _Sweep:
    """One pass over pairs of rows, which adds up ``sums`` (n,) and, if it is not None, ``gradient`` (n, d).

    The gradient is that of sum_i upstream_i rows_i; ``upstream`` (n,) None is all ones.
    """

    def __init__(
        self, kernel: Kernel, student: Tensor, teacher: Tensor, upstream: Tensor | None, gradient: Tensor | None
    ) -> None:
        self.kernel, self.upstream, self.gradient = kernel, upstream, gradient
        tile = tile_of(student, teacher)
        self.mine, self.theirs = self._rows(student, tile, "student"), self._rows(teacher, tile, "teacher")
        self.sums = student.new_zeros(len(student))

    def _rows(self, rows: Tensor, tile: tuple[int, int], name: str) -> Rows:
        late = self.kernel.step is not None and rows.device.type == "cpu"
        return Rows(rows, self.kernel.normalize, late, tile, name)

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
                    columns = student.part(before), teacher.part(before)
                    rows = columns[0].part(0, height), columns[1].part(0, height)
                    self._pairs(i, slice(i.start, group.stop), rows, columns, height, weights)

    def _pairs(
        self, i: slice, j: slice, rows: Sides, columns: Sides, square_part: int, weights: Weights | None
    ) -> None:
        """The pairs (i, j) of a tile and (j, i) of what lies right of its ``square_part`` on the diagonal."""
        own, other = (None, None) if weights is None else (weights(i, j), weights(j, i))
        pull, along, across = self._tile(rows, columns, own, other)
        rest = slice(j.start + square_part, j.stop)
        self.sums[i].add_(along)  # += would copy the result onto itself
        self.sums[rest].add_(across[square_part:])
        if self.gradient is None:
            return
        if weights is not None or self.upstream is not None:
            pull *= 0.5 * (self._share(i, own) + self._share(j, other).T)
        begun = float(i.start > 0)  # 0 writes over what is there: the first row of tiles is the first to come
        self.gradient[rest].addmm_(pull[:, square_part:].T, rows[0].rows, beta=begun, alpha=4)
        self.gradient[i].addmm_(pull, columns[0].rows, beta=float(begun or j.start > 0), alpha=4)

    def against(self, past: Past) -> None:
        """All pairs of a row of the batch and a row held constant."""
        shape = tile_of(past.student, past.teacher)
        student = self._rows(past.student, shape, "past student")
        teacher = self._rows(past.teacher, shape, "past teacher")
        for j in student.groups:
            columns = student.group(j), teacher.group(j)
            for i in self.mine.blocks:
                own = None if past.weights is None else past.weights(i, j)
                pull, along, _ = self._tile((self.mine.block(i), self.theirs.block(i)), columns, own)
                self.sums[i] += along
                if self.gradient is None:
                    continue
                if own is not None or self.upstream is not None:
                    pull *= self._share(i, own)
                self.gradient[i].addmm_(pull, columns[0].rows, alpha=2)

    def finish(self) -> Tensor:
        """The row sums; the gradient becomes that of the rows as they were given."""
        if self.gradient is not None:
            self.mine.chain_(self.gradient)
        return self.sums

    def _tile(
        self, rows: Sides, columns: Sides, own: Tensor | None, other: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """D k' of a tile, valid until the next one, and the sums of w D^2 in each of its rows and of its columns."""
        shape = len(rows[0].rows), len(columns[0].rows)
        one, two, pull = (_scratch.take(name, shape, self.sums) for name in ("one", "two", "pull"))
        for dots, left, right in zip((one, two), rows, columns, strict=True):
            torch.mm(left.rows, right.rows.T, out=dots)
        tile = self.kernel.profile, one, two, pull, own, other
        if self.kernel.step is None:
            return pull, *compare_(*tile)
        return pull, *self.kernel.step(*tile, _factors(rows), _factors(columns))

    def _share(self, i: slice, weights: Tensor | None) -> Tensor:
        """g_i w_ij, to be broadcast over the tile."""
        ones = self.sums.new_ones(1, 1)
        share = ones if self.upstream is None else self.upstream[i].unsqueeze(1)
        return share if weights is None else share * weights


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


def unwritten(like: Tensor) -> Tensor:
    """Memory of this shape and type; much of it comes in huge pages, of which fewer have to be fetched."""
    return empty(like.numel(), like.device, like.dtype).view(like.shape)


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
        even: bool,
    ) -> Tensor:
        ctx.save_for_backward(student, teacher)
        ctx.options, ctx.even = (kernel, weights, past), even
        ctx.gradient = unwritten(student) if wanted else None
        return _sweep(kernel, student, teacher, weights, past, None, ctx.gradient)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        student, teacher = ctx.saved_tensors
        kernel, weights, past = ctx.options
        if torch.is_grad_enabled():  # create_graph=True: somebody is to differentiate the gradient
            with full_precision(student):
                sums = plain_row_sums(kernel.matrix, student, teacher, [Past(student, teacher, weights), *past])
            (gradient,) = torch.autograd.grad(sums, student, upstream, create_graph=True)
            return gradient, None, None, None, None, None, None
        # The gradient found on the way forward is given away, not copied: a second backward finds it anew.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is not None and (ctx.even or bool((upstream == upstream[0]).all())):
            gradient.mul_(upstream[0])
        else:
            gradient = unwritten(student)
            _sweep(kernel, student, teacher, weights, past, upstream, gradient)
        return gradient, None, None, None, None, None, None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def row_sums(
    kernel: Kernel,
    student: Tensor,
    teacher: Tensor,
    weights: Weights | None = None,
    past: Sequence[Past] = (),
    even: bool = False,
) -> Tensor:
    """sum_j w_ij D_ij^2 of each row i over the rows of the batch and of ``past``, (n,).

    Student (n, d), teacher (n, t) of the same type; differentiable in the student's rows. A second derivative
    (``create_graph=True``) goes through `plain_row_sums`. ``even``: the caller knows that the sums of all rows get the
    same gradient, so that there is no need to look, for which an accelerator would have to be waited for.
    """
    wanted = student.requires_grad and torch.is_grad_enabled()
    return cast(Tensor, _RowSums.apply(student, teacher, kernel, weights, past, wanted, even))
