"""Losses that compare relations within the batch: distances, angles, similarities, neighbourhood probabilities."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from reid_cckd.losses.against_teacher import AgainstTeacher, distances, off_scale
from reid_cckd.losses.checks import positive
from reid_cckd.losses.kernels import unit_rows

CHUNK_NUMBERS = 2**22  # numbers that the edges and angles of one chunk of vertices may take


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over N^2 pairs of huber(d_ij(s), d_ij(t)), d_ij = |f_i - f_j| / mean of the positive distances."""
    return functional.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over N^3 triplets of huber(a_ijk(s), a_ijk(t)), a_ijk = cos of the angle at j between f_i and f_k.

    Vertices j are visited in chunks; of several, each is computed again for its gradient: N^3 numbers are never held at
    once.
    """
    student, teacher = off_scale(student), off_scale(teacher)
    count, width = len(student), max(student.shape[1], teacher.shape[1])
    chunks = torch.arange(count, device=student.device).split(max(CHUNK_NUMBERS // (count * (count + width)), 1))
    if len(chunks) == 1:
        return _angle_sum(student, teacher, chunks[0]) / count**3
    total = student.new_zeros(())
    for vertices in chunks:
        total = total + checkpoint(
            _angle_sum, student, teacher, vertices, use_reentrant=False, preserve_rng_state=False
        )
    return total / count**3


def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """|G(s) - G(t)|_F^2 / N^2, where G is the Gram matrix f f^T with each of its rows at length 1."""
    return functional.mse_loss(_unit_gram(student), _unit_gram(teacher))


def pkt(student: Tensor, teacher: Tensor, eps: float = 1e-7) -> Tensor:
    """Mean over N^2 pairs of p_ij(t) log((p_ij(t) + eps) / (p_ij(s) + eps)).

    p_ij = (cos(f_i, f_j) + 1) / 2 over the sum of its row.
    """
    likely, target = _neighbour_probabilities(student), _neighbour_probabilities(teacher)
    return (target * torch.log((target + eps) / (likely + eps))).mean()


class RKDDistance(AgainstTeacher):
    """`rkd_distance`, relational distillation of distances; huber with delta 1, on rows as they are (not unit rows).

    Equal rows are at distance 0 and do not count in the mean distance; without two different rows all is 0, and for
    two rows too, whose one distance is its own mean.
    Usual weight 25 beside cross-entropy, 1 alone. An N x N matrix of each network is held.

    Source: Park, Kim, Lu, Cho, "Relational Knowledge Distillation", CVPR 2019, section 3.2.
    """

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        return rkd_distance(student, teacher)


class RKDAngle(AgainstTeacher):
    """`rkd_angle`, relational distillation of angles; huber with delta 1, on rows as they are (not unit rows).

    The angle to a row equal to the vertex has cosine 0 and no gradient. Usual weight 50 beside cross-entropy, 2 alone.
    Time grows with N^3 x width.

    Source: Park, Kim, Lu, Cho, "Relational Knowledge Distillation", CVPR 2019, section 3.2.
    """

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        return rkd_angle(student, teacher)


class SimilarityPreserving(AgainstTeacher):
    """`similarity_preserving`; on rows as they are, so that long ones count more. A zero row has similarity 0 to all.

    Usual weight 3000.

    Source: Tung, Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, section 2.
    """

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        return similarity_preserving(student, teacher)


class PKT(AgainstTeacher):
    """`pkt`, probabilistic knowledge transfer: whom each row would pick as its neighbour, itself included.

    A zero row has cosine 0 to all. Usual weight 30000.

    Source: Passalis, Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV 2018, with the
    cosine kernel; ``eps`` keeps the logarithm finite.
    """

    def __init__(self, eps: float = 1e-7) -> None:
        super().__init__()
        self.eps = positive("eps", eps)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        return pkt(student, teacher, self.eps)


def _relative_distances(rows: Tensor) -> Tensor:
    found = distances(off_scale(rows))
    mean = found.sum() / (found > 0).sum().clamp_min(1)
    return found / torch.where(mean > 0, mean, 1.0)


def _angle_sum(student: Tensor, teacher: Tensor, vertices: Tensor) -> Tensor:
    return functional.smooth_l1_loss(_cosines_at(student, vertices), _cosines_at(teacher, vertices), reduction="sum")


def _cosines_at(rows: Tensor, vertices: Tensor) -> Tensor:
    """(V, N, N): at each vertex, cosines between its edges to all rows."""
    edges = (rows - rows[vertices].unsqueeze(1)).flatten(0, 1)
    units = unit_rows(edges).unflatten(0, (len(vertices), len(rows)))
    return torch.bmm(units, units.mT)


def _unit_gram(rows: Tensor) -> Tensor:
    rows = off_scale(rows)
    gram = rows @ rows.T
    return unit_rows(gram)


def _neighbour_probabilities(rows: Tensor) -> Tensor:
    units = unit_rows(rows)
    similarities = ((units @ units.T + 1) / 2).clamp_min(0)  # cosines may round to less than -1
    return similarities / similarities.sum(dim=1, keepdim=True)
