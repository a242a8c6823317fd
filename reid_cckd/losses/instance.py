"""Instance congruence: what the teacher, or the label, says about each image by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_cckd.losses.against_teacher import AgainstTeacher, same_width
from reid_cckd.losses.checks import finite, positive
from reid_cckd.losses.kernels import unit_rows
from reid_cckd.losses.pairs import class_labels, refuse_pairs
from reid_cckd.losses.precision import at_least_float32
from reid_cckd.losses.projection import Projection


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """tau^2 KL(softmax(z_t / tau) || softmax(z_s / tau)), (N, C) -> (N,)."""
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1)


def cosine_mimic(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cos(f_s, f_t), (N, D) -> (N,), in [0, 2]; a zero row has cosine 0 to all and gets no gradient."""
    return 1 - (unit_rows(student) * unit_rows(teacher)).sum(dim=1)


def squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """|f_s - f_t|^2, (N, D) -> (N,)."""
    return (student - teacher).square().sum(dim=1)


class CrossEntropy(nn.Module):
    """Softmax cross-entropy of logits (N, C) and labels (N,) in 0..C-1, torch's own; ``label_smoothing`` in [0, 1].

    Raises:
        ValueError: label_smoothing out of range; in the call, no rows, labels that are not N integers, mined pairs, of
            which it knows none; and where `may_look` says so, NaN or Inf and labels out of range.
    """

    stage = "logits"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing: expected a number in [0, 1], got {label_smoothing}")
        self.label_smoothing = label_smoothing

    def forward(
        self, embeddings: Tensor, labels: Tensor | None = None, indices_tuple: Any = None, ref_emb: None = None
    ) -> Tensor:
        if embeddings.ndim != 2 or not len(embeddings):  # torch's mean over no rows is NaN
            raise ValueError(f"embeddings: expected logits (N, C) of one row or more, got {tuple(embeddings.shape)}")
        refuse_pairs(indices_tuple)
        labels = class_labels(labels, embeddings, embeddings.shape[1])
        logits = at_least_float32(embeddings)
        value = functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return finite(value, logits, logits)


class HintonKD(AgainstTeacher):
    """Mean over the batch of tau^2 KL(softmax(z_t / tau) || softmax(z_s / tau)), logits (N, C) of the same classes.

    Where the label spaces overlap in part, say which class each column is of: then both softmaxes run over the shared
    classes alone, for every image, also one whose own class is not among them.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, sec. 2; CCKD eq. 2.

    Args:
        temperature: tau, above 0.
        student_classes: the class of each column of the student's logits, in any order; None with the next.
        teacher_classes: the same of the teacher's.

    Raises:
        ValueError: temperature out of range; of the classes one list only, a class twice, or fewer than two shared; in
            the call, another number of columns.
    """

    stage = "logits"
    columns: Tensor | None

    def __init__(
        self,
        temperature: float = 4.0,
        student_classes: Sequence[int] | None = None,
        teacher_classes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.temperature = positive("temperature", temperature)
        ours, theirs = (
            None if classes is None else [int(one) for one in classes]  # of a tensor too
            for classes in (student_classes, teacher_classes)
        )
        self.widths = len(ours or ()), len(theirs or ())
        columns = shared_columns(ours, theirs)
        self.register_buffer("columns", columns, persistent=False)  # it says nothing that training found out

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.columns is None:
            same_width(student, teacher, "logits of the same classes")
        else:
            for name, rows, width in zip(("embeddings", "ref_emb"), (student, teacher), self.widths, strict=True):
                if rows.shape[1] != width:
                    raise ValueError(f"{name}: {rows.shape[1]} columns for {width} classes")
            student, teacher = student[:, self.columns[0]], teacher[:, self.columns[1]]
        return soft_cross_entropy(student, teacher, self.temperature).mean()


def shared_columns(student_classes: Sequence[int] | None, teacher_classes: Sequence[int] | None) -> Tensor | None:
    """Columns of the classes that both have, (2, shared), in the student's order; None if neither has a list.

    Raises:
        ValueError: one list only, a class twice in one, or fewer than two shared: a softmax over one class is always 1.
    """
    if student_classes is None and teacher_classes is None:
        return None
    if student_classes is None or teacher_classes is None:
        raise ValueError("student_classes, teacher_classes: give both or neither")
    for name, classes in (("student_classes", student_classes), ("teacher_classes", teacher_classes)):
        if len(set(classes)) < len(classes):
            raise ValueError(f"{name}: a class is in it twice")
    place = {name: column for column, name in enumerate(teacher_classes)}
    pairs = [(column, place[name]) for column, name in enumerate(student_classes) if name in place]
    if len(pairs) < 2:
        raise ValueError(f"student_classes, teacher_classes: expected two or more in common, found {len(pairs)}")
    return torch.tensor(pairs).T


class CosineMimic(AgainstTeacher):
    """Mean over the batch of 1 - cos(f_s, f_t): 0 where every row points where its teacher's does, 2 at most."""

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        same_width(student, teacher, "embeddings of one space")
        return cosine_mimic(student, teacher).mean()


class ProjectedMimic(AgainstTeacher):
    """Mean over the batch of 1 - cos(r(f_s), f_t), r a learned linear map of the student's side: a mimic of any width.

    Copies the teacher's space as far as the student's width holds it, and leaves the student's own to be another one:
    the two are not to be compared with each other. r trains with the student and is left behind afterwards: give the
    optimizer ``loss.parameters()`` (an `Objective` has them).

    Args:
        student_width: D of the student's rows.
        teacher_width: D of the teacher's.

    Raises:
        ValueError: in the call, other widths.
    """

    def __init__(self, student_width: int, teacher_width: int) -> None:
        super().__init__()
        self.projection = Projection(student_width, teacher_width)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        self.projection.check_target(teacher)
        return cosine_mimic(self.projection(student), teacher).mean()


class EmbeddingMimic(AgainstTeacher):
    """Mean over the batch of |f_s - f_t|^2: CCKD's instance term where there are no shared logits.

    Rows are brought to length 1 first (``normalize_embeddings=True``), which makes it twice `CosineMimic`, or taken as
    they are.

    Source: Peng et al., ICCV 2019, sec. 4, the "mimic" baseline of metric learning.
    """

    def __init__(self, normalize_embeddings: bool = True) -> None:
        super().__init__()
        self.normalize_embeddings = normalize_embeddings

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        same_width(student, teacher, "embeddings of one space")
        if self.normalize_embeddings:
            student, teacher = unit_rows(student), unit_rows(teacher)
        return squared_distance(student, teacher).mean()
