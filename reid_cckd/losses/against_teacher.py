"""What every loss of the student's rows and the teacher's has in common: its call and its manners."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reid_cckd.losses.checks import finite
from reid_cckd.losses.correlation import check_rows
from reid_cckd.losses.pairs import refuse_pairs
from reid_cckd.losses.precision import at_least_float32, constant, full_precision


class AgainstTeacher(nn.Module):
    """A loss of two matrices, row i of both being image i.

    Call ``loss(embeddings, labels=None, indices_tuple=None, ref_emb=teacher)``: student (N, Ds), teacher (N, Dt); no
    look is taken at labels unless a loss says so (``needs_labels``). Computed in float32 or better, under autocast too.
    No gradient reaches the teacher.

    Raises:
        ValueError: names the argument: no ref_emb, other lengths, not a matrix, no rows, mined pairs; and where
            `may_look` says so, NaN or Inf.
        TypeError: names what is no tensor.
    """

    needs_teacher = True
    stage = "embedding"  # where in a network its rows come from
    ndims: tuple[int, ...] = (2,)  # what it takes: matrices (2), maps (4)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of rows of one precision, a scalar."""
        raise NotImplementedError

    def compare_labelled(self, student: Tensor, teacher: Tensor, labels: Any) -> Tensor:
        """The same of a loss that looks at labels too, which are here as they came."""
        return self.compare(student, teacher)

    def forward(
        self, embeddings: Tensor, labels: Any = None, indices_tuple: Any = None, ref_emb: Tensor | None = None
    ) -> Tensor:
        student, teacher = matched(embeddings, ref_emb, indices_tuple, self.ndims)
        with full_precision(student):
            return finite(self.compare_labelled(student, teacher, labels), student, teacher)


def matched(
    embeddings: Tensor, ref_emb: Tensor | None, indices_tuple: Any = None, ndims: tuple[int, ...] = (2,)
) -> tuple[Tensor, Tensor]:
    """Student and teacher in one precision, float32 or better, the teacher without gradient.

    Raises:
        ValueError: names the argument: no ref_emb, other lengths or dimensions, no rows, mined pairs.
    """
    if ref_emb is None:
        raise ValueError("ref_emb: pass the teacher's embeddings, loss(embeddings, labels, ref_emb=teacher)")
    refuse_pairs(indices_tuple)
    check_rows(embeddings, ref_emb, ndims)
    student = at_least_float32(embeddings)
    return student, constant(ref_emb, student)


def same_width(student: Tensor, teacher: Tensor, what: str) -> None:
    """Numbers of student and teacher that are compared one by one are as many.

    Raises:
        ValueError: they are not.
    """
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(f"ref_emb: width {teacher.shape[1]}, embeddings: {student.shape[1]}; expected {what}")


def off_scale(rows: Tensor) -> Tensor:
    """Rows over their largest number, for losses blind to a common scale: so squares neither over- nor underflow."""
    largest = rows.detach().abs().amax()
    return rows / torch.where(largest > 0, largest, 1.0)


def distances(rows: Tensor) -> Tensor:
    """Euclidean distances of all pairs, (N, N), exactly 0 between equal rows, which get no gradient there."""
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
