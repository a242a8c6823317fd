"""Correlation congruence: the student is to relate any two instances as its teacher does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from pytorch_metric_learning.distances import BaseDistance
from pytorch_metric_learning.losses import BaseMetricLossFunction
from pytorch_metric_learning.reducers import MeanReducer, SumReducer
from torch import Tensor

from reid_cckd.losses.checks import at_least, check_tensor, finite
from reid_cckd.losses.comparison import CompiledStep
from reid_cckd.losses.fused import Kernel, Past, Weights, plain_row_sums, row_sums
from reid_cckd.losses.kernels import DotKernel, GaussianRBF
from reid_cckd.losses.memory import PairMemory
from reid_cckd.losses.pairs import check_labels, label_weights, listed_weights
from reid_cckd.losses.precision import at_least_float32, constant, full_precision
from reid_cckd.losses.projection import Projection

EVEN_REDUCERS = (MeanReducer, SumReducer)  # which give every anchor the same gradient


class CorrelationCongruenceLoss(BaseMetricLossFunction):  # type: ignore[misc]
    """Mean over all pairs of (phi(s_i, s_j) - phi(t_i, t_j))^2 (Peng et al., ICCV 2019, arXiv 1904.01802, eq. 5).

    Call ``loss(embeddings, labels=None, indices_tuple=None, ref_emb=teacher)``: student (N, Ds), labels (N,), teacher
    (N, Dt), row i of both being image i. Each network's correlations are taken in its own space, so the widths may
    differ. An element loss: one value per anchor, the mean over its row of pairs, which PML's reducers put together;
    the mean over anchors, with which they begin, is the paper's 1/N^2. Computed in float32 or better, under autocast
    too. No gradient reaches the teacher.

    With `Bilinear` or `GaussianRBF` the pairs are visited tile by tile: memory does not grow with N^2 and the gradient
    is ready when the value is. Only a second derivative (``create_graph=True``) and any other PML distance go through
    autograd on whole (N, N) matrices. Under ``torch.compile`` the loss is a graph break.

    One row gives the value 0, a zero row is orthogonal to all and gets no gradient.

    Args:
        distance: phi, a kernel of this package or any PML distance; None is ``GaussianRBF()``.
        within_weight: weight of pairs of one class, 0 or more.
        between_weight: weight of pairs of two classes. If the two differ, labels (or mined pairs) are needed.
        project: (student width, teacher width) of a linear layer, trained with the student, on its side.
        memory: past rows against which each batch is correlated too: N x (N + M) pairs. Filled in training mode.
        compile: generate code with ``torch.compile``, of small batches as a whole; needs a C++ compiler on CPU, Triton
            on a GPU.
        **kwargs: PML's reducer, embedding_regularizer, embedding_reg_weight, collect_stats.

    ``indices_tuple`` (pairs or triplets of any miner) restricts the pairs to those listed, counted once each; an
    anchor's value is the mean over its listed partners, and anchors without any are left out. Takes N^2 numbers.

    Raises:
        TypeError: a distance or a memory that is none; in the call, what is no tensor.
        ValueError: names the argument: no ref_emb, other lengths, no rows, labels missing or of another shape,
            indices_tuple together with a memory; and where `may_look` says so, NaN or Inf, indices out of range.
    """

    needs_teacher = True

    def __init__(
        self,
        distance: BaseDistance | None = None,
        within_weight: float = 1.0,
        between_weight: float = 1.0,
        project: tuple[int, int] | None = None,
        memory: PairMemory | None = None,
        compile: bool = False,
        **kwargs: Any,
    ) -> None:
        for name, given, kind in (("distance", distance, BaseDistance), ("memory", memory, PairMemory)):
            if not isinstance(given, kind | None):
                raise TypeError(f"{name}: expected a {kind.__name__} or None, got {given!r}")
        super().__init__(distance=distance, **kwargs)
        self.within_weight = float(at_least("within_weight", within_weight, 0))
        self.between_weight = float(at_least("between_weight", between_weight, 0))
        self.projection = None if project is None else Projection(*project)
        self.memory = memory
        self.step = CompiledStep() if compile else None
        self._even = False  # whether `forward` is to reduce what `compute_loss` gives it, and all anchors alike

    def get_default_distance(self) -> BaseDistance:
        """The paper's best kernel."""
        return GaussianRBF()

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: tuple[Tensor, ...] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        """The reduced loss, a scalar with the default reducer."""
        if ref_emb is None:  # PML would put the student in its place: a loss of 0 without a word
            raise ValueError("ref_emb: pass the teacher's embeddings, loss(embeddings, labels, ref_emb=teacher)")
        check_rows(embeddings, ref_emb)
        check_labels(labels, len(embeddings))
        self._even = type(self.reducer) in EVEN_REDUCERS
        try:
            with full_precision(embeddings):
                return super().forward(embeddings, labels, indices_tuple, ref_emb, ref_labels)  # type: ignore[no-any-return]
        finally:
            self._even = False

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: tuple[Tensor, ...] | None,
        ref_emb: Tensor,
        ref_labels: Tensor | None,
    ) -> dict[str, dict[str, Any]]:
        """PML's loss dictionary: one value per anchor."""
        student = at_least_float32(embeddings)
        if self.projection is not None:
            student = self.projection(student)
        teacher = constant(ref_emb, student)
        if indices_tuple is not None:
            values, anchors = self._listed(student, teacher, indices_tuple)
        else:
            values, anchors = self._all(student, teacher, labels), torch.arange(len(student), device=student.device)
        if not len(anchors):
            return self.zero_losses()  # type: ignore[no-any-return]
        finite(values, embeddings, ref_emb)  # on N values, for NaN and Inf in rows end up here
        if self.memory is not None and self.training:
            self.memory.add(student, teacher, labels)
        return {"loss": {"losses": values, "indices": anchors, "reduction_type": "element"}}

    def _listed(self, student: Tensor, teacher: Tensor, indices_tuple: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        if self.memory is not None:
            raise ValueError("indices_tuple: cannot be combined with a memory, whose pairs it does not list")
        weights = listed_weights(indices_tuple, student, self.within_weight, self.between_weight)
        anchors = weights.counts.nonzero().squeeze(1)
        sums = self._row_sums(student, teacher, weights.tile)
        return sums[anchors] / weights.counts[anchors], anchors

    def _all(self, student: Tensor, teacher: Tensor, labels: Tensor | None) -> Tensor:
        past = [
            Past(rows.student, rows.teacher, self._weights(student, labels, rows.labels))
            for rows in ([] if self.memory is None else self.memory.blocks(student))
        ]
        common = self.within_weight if self.within_weight == self.between_weight else 1.0
        share = common / (len(student) + sum(len(rows.student) for rows in past))
        return self._row_sums(student, teacher, self._weights(student, labels, labels), past, share, self._even)

    def _weights(self, student: Tensor, labels: Tensor | None, column_labels: Tensor | None) -> Weights | None:
        if self.within_weight == self.between_weight:
            return None
        if labels is None or column_labels is None:
            raise ValueError("labels: needed to tell pairs within a class (within_weight) from others (between_weight)")
        return label_weights(labels, column_labels, student, self.within_weight, self.between_weight)

    def _row_sums(
        self,
        student: Tensor,
        teacher: Tensor,
        weights: Weights | None,
        past: Sequence[Past] = (),
        share: float = 1.0,
        even: bool = False,
    ) -> Tensor:
        if isinstance(self.distance, DotKernel):
            kernel = Kernel(self.distance.profile(teacher), self.distance.normalize_embeddings, self.step)
            return cast(Tensor, row_sums(kernel, student, teacher, weights, past, even, share))
        return plain_row_sums(self.distance, student, teacher, [Past(student, teacher, weights), *past]) * share


def check_rows(embeddings: Tensor, ref_emb: Tensor, ndims: tuple[int, ...] = (2,)) -> None:
    """Student and teacher hold as many rows, one at least, and are of one of these numbers of dimensions, both alike.

    Raises:
        ValueError: they do not.
        TypeError: one is no tensor.
    """
    for name, rows in (("embeddings", embeddings), ("ref_emb", ref_emb)):
        check_tensor(name, rows)
        if rows.ndim not in ndims or not len(rows):
            expected = " or ".join({2: "a matrix", 4: "maps (N, C, H, W)"}[ndim] for ndim in ndims)
            raise ValueError(f"{name}: expected {expected} of one row or more, got shape {tuple(rows.shape)}")
    if embeddings.ndim != ref_emb.ndim:
        raise ValueError(f"ref_emb: shape {tuple(ref_emb.shape)} beside embeddings of shape {tuple(embeddings.shape)}")
    if len(embeddings) != len(ref_emb):
        raise ValueError(f"ref_emb: {len(ref_emb)} rows for {len(embeddings)} embeddings; row i of both is one image")
