"""What a student keeps of its teacher: its score, its neighbours, and its place in the teacher's own gallery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reid_cckd.evaluation.neighbours import rank_gallery
from reid_cckd.evaluation.retrieval import CameraPolicy, Convention, RetrievalResult, evaluate_retrieval
from reid_cckd.evaluation.rows import Embeddings, Ids, same_length


@dataclass(frozen=True)
class DistillationResult:
    """``across`` searches the teacher's gallery with the student's queries; None where their widths differ."""

    teacher: RetrievalResult
    student: RetrievalResult
    across: RetrievalResult | None
    retention: float  # student's mAP over the teacher's
    retention_across: float | None
    agreement: float  # mean share of a query's k nearest items that both networks name
    k: int  # at most the gallery
    worse: NDArray[np.int64]  # queries whose AP fell from teacher to student, the largest fall first

    def summary(self) -> list[dict[str, Any]]:
        """One row per search, ready for a table or JSON."""
        searches = {"teacher": self.teacher, "student": self.student, "student in the teacher's gallery": self.across}
        found = {name: result for name, result in searches.items() if result is not None}
        top = self.teacher.mean_ap
        return [{"search": name, **r.summary(), "retention": r.mean_ap / top} for name, r in found.items()]


def evaluate_distillation(
    teacher_query: Embeddings,
    teacher_gallery: Embeddings,
    student_query: Embeddings,
    student_gallery: Embeddings,
    query_ids: Ids,
    gallery_ids: Ids,
    query_cameras: Ids | None = None,
    gallery_cameras: Ids | None = None,
    ranks: Sequence[int] = (1, 5, 10),
    *,
    k: int = 10,
    convention: Convention = "torchreid",
    cameras: CameraPolicy = "exclude-same",
    device: torch.device | str | None = None,
    chunk: int | None = None,
) -> DistillationResult:
    """Compare two networks on the same queries and gallery, row i of either being the same image.

    The student in the teacher's gallery is an upgrade of the searching device without indexing the gallery anew.
    Agreement takes the k nearest items whatever their camera, an average over queries of the share in common.

    Raises:
        ValueError: teacher and student have different numbers of rows; as `evaluate_retrieval`; k below 1.
    """
    same_length(teacher_query=teacher_query, student_query=student_query)
    same_length(teacher_gallery=teacher_gallery, student_gallery=student_gallery)

    def search(query: Embeddings, gallery: Embeddings) -> RetrievalResult:
        return evaluate_retrieval(
            query,
            gallery,
            query_ids,
            gallery_ids,
            query_cameras,
            gallery_cameras,
            ranks,
            convention=convention,
            cameras=cameras,
            device=device,
            chunk=chunk,
        )

    teacher, student = search(teacher_query, teacher_gallery), search(student_query, student_gallery)
    fits = student_query.shape[1] == teacher_gallery.shape[1]
    across = search(student_query, teacher_gallery) if fits else None
    theirs, _ = rank_gallery(teacher_query, teacher_gallery, k, device=device, chunk=chunk)
    ours, _ = rank_gallery(student_query, student_gallery, k, device=device, chunk=chunk)
    change = np.nan_to_num(student.ap - teacher.ap)
    order = np.argsort(change, kind="stable")
    return DistillationResult(
        teacher=teacher,
        student=student,
        across=across,
        retention=student.mean_ap / teacher.mean_ap,
        retention_across=across.mean_ap / teacher.mean_ap if across is not None else None,
        agreement=_in_common(theirs, ours),
        k=theirs.shape[1],
        worse=order[change[order] < 0],
    )


def _in_common(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Mean share of each row's entries that the same row of the other array holds; rows have no repeats."""
    both = np.sort(np.concatenate([first, second], axis=1), axis=1)
    return float((both[:, 1:] == both[:, :-1]).sum() / first.size)
