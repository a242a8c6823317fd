"""Losses that compare rankings: whom the teacher finds nearest to each row, and in which order."""

from __future__ import annotations

import functools
import math
from itertools import permutations

import torch
from torch import Tensor

from reid_cckd.losses.against_teacher import AgainstTeacher, distances, same_width
from reid_cckd.losses.checks import at_least, finite, positive, whole
from reid_cckd.losses.kernels import unit_rows

LONGEST_SOFT_LIST = 6  # 720 orders


def darkrank_hard(student: Tensor, teacher: Tensor, alpha: float, beta: float, list_length: int) -> Tensor:
    """Mean over rows of -log P_s(the teacher's order of its L nearest rows), P of Plackett and Luce.

    P_s(order) = prod_m exp(S_m) / sum_{l >= m} exp(S_l), with the student's scores S = -alpha |x - y|^beta.
    """
    nearest = _nearest(-distances(teacher), list_length)
    return -_order_log_likelihood(_scores(student, alpha, beta).gather(1, nearest)).mean()


def darkrank_soft(student: Tensor, teacher: Tensor, alpha: float, beta: float, list_length: int) -> Tensor:
    """Mean over rows of KL(P_t || P_s) over the L! orders of the teacher's L nearest rows, P as in `darkrank_hard`."""
    nearest = _nearest(-distances(teacher), list_length)
    orders = _orders(nearest.shape[1], student.device)
    log_student, log_teacher = (
        _order_log_likelihood(_scores(rows, alpha, beta).gather(1, nearest)[:, orders]) for rows in (student, teacher)
    )
    return (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1).mean()


@functools.lru_cache(maxsize=32)
def _orders(length: int, device: torch.device) -> Tensor:
    """All orders of so many things, (length!, length), brought to a device once."""
    with torch.inference_mode(False):  # a later caller may record gradients
        return torch.tensor(list(permutations(range(length))), dtype=torch.long).to(device)


def csd(student: Tensor, teacher: Tensor, top_k: int, student_temperature: float, teacher_temperature: float) -> Tensor:
    """Mean over rows of KL(softmax(t_i . t_j / T_t) || softmax(s_i . t_j / T_s)), unit rows.

    j runs over the k rows that the teacher finds most similar to t_i, itself among them.
    """
    units, gallery = unit_rows(student), unit_rows(teacher)
    similarities, nearest = (gallery @ gallery.T).sort(dim=1, descending=True, stable=True)
    log_teacher = torch.log_softmax(similarities[:, :top_k] / teacher_temperature, dim=1)
    found = (units @ gallery.T).gather(1, nearest[:, :top_k])
    log_student = torch.log_softmax(found / student_temperature, dim=1)
    return (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1).mean()


def d3still(student: Tensor, teacher: Tensor, top_k: int, alpha: float, beta: float, gamma: float) -> Tensor:
    """alpha |diag(t t^T) - diag(s t^T)|_2 / N + mean over rows of (beta |H_i|_F + gamma |E_i|_F) / neighbours.

    Unit rows. a_j = t_i . t_j and b_j = s_i . t_j are the similarities to the k - 1 rows that the teacher finds most
    similar to t_i, itself left out. R_jl = ((b_j - b_l) - (a_j - a_l)) / (0.1 + |a_j - a_l|); H holds R where the two
    differences have opposite signs (the student orders j and l the other way), E where they have the same, 0 elsewhere.
    """
    units, gallery = unit_rows(student), unit_rows(teacher)
    cross, own = units @ gallery.T, gallery @ gallery.T
    features = torch.linalg.vector_norm(own.diagonal() - cross.diagonal()) / len(student)
    nearest = _nearest(own, top_k - 1)
    found, target = (_differences(similarities.gather(1, nearest)) for similarities in (cross, own))
    relative, signs = (found - target) / (0.1 + target.abs()), found.sign() * target.sign()
    hard, easy = (torch.linalg.vector_norm(relative * (signs == sign), dim=(1, 2)).mean() for sign in (-1, 1))
    value: Tensor = alpha * features + (beta * hard + gamma * easy) / max(nearest.shape[1], 1)
    return value


class _DarkRank(AgainstTeacher):
    """What the two forms share: the parameters of the scores, and rows at unit length unless told otherwise."""

    def __init__(
        self, alpha: float = 3.0, beta: float = 3.0, list_length: int = 4, normalize_embeddings: bool = True
    ) -> None:
        super().__init__()
        self.alpha, self.list_length = positive("alpha", alpha), whole("list_length", list_length)
        self.beta = at_least("beta", beta, 1)  # below 1 the slope at distance 0 is infinite
        self.normalize_embeddings = normalize_embeddings

    def prepare(self, rows: Tensor) -> Tensor:
        """Rows as distances are measured between them."""
        return unit_rows(rows) if self.normalize_embeddings else rows


class DarkRankHard(_DarkRank):
    """`darkrank_hard`: how likely, in the student's space, the teacher's order of the L rows nearest to each row is.

    Of rows equally far the lower index goes first. L is N - 1 at most; lists of one row or none give 0.
    ``normalize_embeddings=False`` is the form of the RKD authors' code, for rows that are short already.

    Source: Chen, Wang, Zhang, "DarkRank: Accelerating Deep Metric Learning via Cross Sample Similarities Transfer",
    AAAI 2018, hard transfer.
    """

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        largest = finite(teacher.abs().amax(), student, teacher)  # its order alone enters, and the value looks healthy
        value = darkrank_hard(self.prepare(student), self.prepare(teacher), self.alpha, self.beta, self.list_length)
        return value + 0 * largest  # NaN where nobody looked


class DarkRankSoft(_DarkRank):
    """`darkrank_soft`: how likely each of the L! orders of the L rows nearest to each row is, in both spaces.

    Rows, ties and short lists as in `DarkRankHard`; L is at most 6, which takes 720 N numbers or so.

    Source: Chen, Wang, Zhang, "DarkRank: Accelerating Deep Metric Learning via Cross Sample Similarities Transfer",
    AAAI 2018, soft transfer.
    """

    def __init__(
        self, alpha: float = 3.0, beta: float = 3.0, list_length: int = 4, normalize_embeddings: bool = True
    ) -> None:
        super().__init__(alpha, beta, list_length, normalize_embeddings)
        if list_length > LONGEST_SOFT_LIST:
            raise ValueError(f"list_length: {list_length}! orders are too many, take {LONGEST_SOFT_LIST} or fewer")

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        return darkrank_soft(self.prepare(student), self.prepare(teacher), self.alpha, self.beta, self.list_length)


class CSD(AgainstTeacher):
    """`csd`, contextual similarity: the student's row, as a query, is to find the teacher's rows as its own row does.

    For retrieval in a gallery of the teacher's embeddings: both widths must be equal. The gallery is the batch (the
    paper's is the training set). Of equally similar rows the lower index goes first; k is N at most. Student equal to
    teacher gives 0 only where the two temperatures are equal. Usual weight 1 to 10.

    Source: Wu, Wang, Zhou, Lu, Li, "Contextual Similarity Distillation for Asymmetric Image Retrieval", CVPR 2022;
    defaults of the D3still authors' AIR-Distiller.
    """

    def __init__(self, top_k: int = 256, student_temperature: float = 1.0, teacher_temperature: float = 0.01) -> None:
        super().__init__()
        self.top_k = whole("top_k", top_k)
        self.student_temperature = positive("student_temperature", student_temperature)
        self.teacher_temperature = positive("teacher_temperature", teacher_temperature)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        same_width(student, teacher, "embeddings of one space")
        return csd(student, teacher, self.top_k, self.student_temperature, self.teacher_temperature)


class D3still(AgainstTeacher):
    """`d3still`: features, and relative differences of similarity, apart where the student orders them wrongly.

    For retrieval in a gallery of the teacher's embeddings: both widths must be equal. Of equally similar rows the lower
    index goes first; a difference that is 0 for either network is left out. k - 1 is N - 1 at most, and one
    row has the first term alone.

    Source: Xie et al., "D3still: Decoupled Differential Distillation for Asymmetric Image Retrieval", CVPR 2024, as in
    the authors' AIR-Distiller.
    """

    def __init__(self, top_k: int = 10, alpha: float = 50.0, beta: float = 2.0, gamma: float = 1.0) -> None:
        super().__init__()
        self.top_k = whole("top_k", top_k, 2)  # the row itself and a neighbour
        self.alpha, self.beta = at_least("alpha", alpha, 0), at_least("beta", beta, 0)
        self.gamma = at_least("gamma", gamma, 0)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        same_width(student, teacher, "embeddings of one space")
        return d3still(student, teacher, self.top_k, self.alpha, self.beta, self.gamma)


def _scores(rows: Tensor, alpha: float, beta: float) -> Tensor:
    return -alpha * distances(rows).pow(beta)


def _nearest(closeness: Tensor, count: int) -> Tensor:
    """Indices (N, min(count, N - 1)) of each row's closest others, closest first, of equals the lower index first."""
    others = closeness.detach().clone().fill_diagonal_(-math.inf)
    return others.argsort(dim=1, descending=True, stable=True)[:, : min(count, len(others) - 1)]


def _order_log_likelihood(scores: Tensor) -> Tensor:
    """Log-probability, (...), under Plackett and Luce's model that items of scores (..., L) come in this very order."""
    remaining = [scores[..., start:].logsumexp(dim=-1) for start in range(scores.shape[-1])]
    total: Tensor = sum(remaining, start=scores.new_zeros(()))
    return scores.sum(dim=-1) - total


def _differences(values: Tensor) -> Tensor:
    """(N, K) -> (N, K, K): value j less value l."""
    return values.unsqueeze(2) - values.unsqueeze(1)
