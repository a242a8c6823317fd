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

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from reid_cckd.losses.comparison import CompiledStep, Factors, compare_, compare_at_once, whole_fits
from reid_cckd.losses.kernels import Profile, unit_rows
from reid_cckd.losses.precision import full_precision
from reid_cckd.losses.tiles import MODERATE, Piece, Rows, tile_of
from reid_cckd.scratch import Scratch, empty

Weights = Callable[[slice, slice], Tensor]  # the tile w[i, j] of pair weights
Phi = Callable[[Tensor, Tensor], Tensor]
_scratch = Scratch()


class Kernel(NamedTuple):
    """What is done with two tiles of dot products: ``step`` with the ``profile`` of rows at unit length or not."""

    profile: Profile
    normalize: bool = True
    step: CompiledStep | None = None

    def matrix(self, rows: Tensor, others: Tensor) -> Tensor:
        """The kernel of all pairs, (n, m), but for its constant."""
        if self.normalize:
            rows, others = unit_rows(rows), unit_rows(others)
        return self.profile.centred(rows @ others.T)


Sides = tuple[Piece, Piece]  # some rows of the student and the teacher's rows of the same instances


class Past(NamedTuple):
    """Rows held constant, (m, d) and (m, t), with which a batch is compared; weights None is 1 for all pairs."""

    student: Tensor
    teacher: Tensor
    weights: Weights | None = None


def _factors(sides: Sides) -> Factors:
    """Copies, because for views of several kinds torch compiles several variants."""
    student, teacher = sides
    return student.factors.clone(), teacher.factors.clone()


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
        self.sums[i].add_(along)  # += would copy the result onto itself
        rest = slice(j.start + square_part, j.stop)
        beside = rest.start < rest.stop
        if beside:
            self.sums[rest].add_(across[square_part:])
        if self.gradient is None:
            return
        if weights is not None or self.upstream is not None:
            pull *= 0.5 * (self._share(i, own) + self._share(j, other).T)
        begun = float(i.start > 0)  # 0 writes over what is there: the first row of tiles is the first to come
        if beside:
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
        one, two = (_scratch.take(name, shape, self.sums) for name in ("one", "two"))
        for dots, left, right in zip((one, two), rows, columns, strict=True):
            torch.mm(left.rows, right.rows.T, out=dots)
        if self.kernel.step is None:
            return compare_(self.kernel.profile, one, two, own, other)
        pull = _scratch.take("pull", shape, self.sums)
        factors = _factors(rows), _factors(columns)
        return pull, *self.kernel.step.tile(self.kernel.profile, one, two, pull, own, other, *factors)

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


def _whole(kernel: Kernel, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor] | None:
    """Row sums and gradient of a small batch in one piece; None where it is not small, or where that does not do."""
    if not whole_fits(student, generated=kernel.step is not None):
        return None
    batch = kernel.profile, student, teacher, kernel.normalize
    with full_precision(student):
        if kernel.step is None:
            return compare_at_once(*batch)
        if student.device.type != "cpu":
            return cast(tuple[Tensor, Tensor], kernel.step.at_once(*batch))
        sums, gradient, longest = kernel.step.whole(*batch)
    return (sums, gradient) if float(longest) < MODERATE else None


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
        share: float,
    ) -> Tensor:
        ctx.save_for_backward(student, teacher)
        ctx.options, ctx.even, ctx.share = (kernel, weights, past), even, share
        whole = _whole(kernel, student, teacher) if wanted and weights is None and not past else None
        if whole is not None:
            sums, ctx.gradient = whole
        else:
            ctx.gradient = unwritten(student) if wanted else None
            sums = _sweep(kernel, student, teacher, weights, past, None, ctx.gradient)
        return sums.mul_(share)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        student, teacher = ctx.saved_tensors
        kernel, weights, past = ctx.options
        upstream = upstream * ctx.share
        if torch.is_grad_enabled():  # create_graph=True: somebody is to differentiate the gradient
            with full_precision(student):
                sums = plain_row_sums(kernel.matrix, student, teacher, [Past(student, teacher, weights), *past])
            (gradient,) = torch.autograd.grad(sums, student, upstream, create_graph=True)
            return gradient, *[None] * 7
        # The gradient found on the way forward is given away, not copied: a second backward finds it anew.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is not None and (ctx.even or bool((upstream == upstream[0]).all())):
            gradient.mul_(upstream[0])
        else:
            gradient = unwritten(student)
            _sweep(kernel, student, teacher, weights, past, upstream, gradient)
        return gradient, *[None] * 7


@torch.compiler.disable  # type: ignore[untyped-decorator]
def row_sums(
    kernel: Kernel,
    student: Tensor,
    teacher: Tensor,
    weights: Weights | None = None,
    past: Sequence[Past] = (),
    even: bool = False,
    share: float = 1.0,
) -> Tensor:
    """``share`` times sum_j w_ij D_ij^2 of each row i over the rows of the batch and of ``past``, (n,).

    Student (n, d), teacher (n, t) of the same type; differentiable in the student's rows. A second derivative
    (``create_graph=True``) goes through `plain_row_sums`. ``even``: the caller knows that the sums of all rows get the
    same gradient, so that there is no need to look, for which an accelerator would have to be waited for.
    """
    wanted = student.requires_grad and torch.is_grad_enabled()
    return cast(Tensor, _RowSums.apply(student, teacher, kernel, weights, past, wanted, even, share))
