"""Losses of class scores that look further into them than KD: DIST, DKD."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reid_cckd.losses.against_teacher import AgainstTeacher, same_width
from reid_cckd.losses.checks import at_least, positive
from reid_cckd.losses.instance import soft_cross_entropy
from reid_cckd.losses.pairs import class_labels

EPS = 1e-8  # added to the product of two lengths, as the authors do: two rows this short are hardly correlated


def dist(student: Tensor, teacher: Tensor, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0) -> Tensor:
    """tau^2 (beta mean_i (1 - r(Y_i.(s), Y_i.(t))) + gamma mean_c (1 - r(Y_.c(s), Y_.c(t)))).

    Y = softmax(z / tau) of logits (N, C), tau the temperature, r Pearson's correlation: over the classes of an image
    ("inter"), over the images of a class ("intra").
    """
    likely, target = (torch.softmax(logits / temperature, dim=1) for logits in (student, teacher))
    inter, intra = (1 - pearson(likely, target)).mean(), (1 - pearson(likely.T, target.T)).mean()
    return temperature**2 * (beta * inter + gamma * intra)


def pearson(x: Tensor, y: Tensor) -> Tensor:
    """Correlation of each row of x with that of y, (N, M) -> (N,); 0 without gradient where one of them is constant."""
    x, y = _centred(x), _centred(y)
    lengths = torch.linalg.vector_norm(x, dim=1) * torch.linalg.vector_norm(y, dim=1)
    correlation: Tensor = (x * y).sum(dim=1) / (lengths + EPS)
    return correlation


def dkd(
    student: Tensor, teacher: Tensor, labels: Tensor, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0
) -> Tensor:
    """tau^2 (alpha KL(b_t || b_s) + beta KL(q_t || q_s)), logits (N, C) and labels (N,) -> (N,).

    b = how likely the own class is, and that it is another one; q = which one, if it is another: a softmax over the
    C - 1 others.
    """
    others = torch.arange(student.shape[1] - 1, device=student.device)
    others = others + (others >= labels.unsqueeze(1))
    (own_s, among_s), (own_t, among_t) = (_apart(z / temperature, labels, others) for z in (student, teacher))
    own, among = soft_cross_entropy(own_s, own_t, 1.0), soft_cross_entropy(among_s, among_t, 1.0)
    return temperature**2 * (alpha * own + beta * among)


class DIST(AgainstTeacher):
    """`dist`, correlation of class probabilities, of logits (N, C) of the same classes.

    An image whose scores are all equal, and a class that is equally likely in all images (any class of a batch of
    one), is uncorrelated: it counts 1 and gets no gradient. Usual weight 1 beside cross-entropy.

    Source: Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, sec. 3.

    Args:
        beta: weight of the relation between classes, 0 or more.
        gamma: weight of the relation within a class, 0 or more.
        temperature: tau of both softmaxes, above 0.
    """

    stage = "logits"

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__()
        self.beta, self.gamma = at_least("beta", beta, 0), at_least("gamma", gamma, 0)
        self.temperature = positive("temperature", temperature)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        same_width(student, teacher, "logits of the same classes")
        return dist(student, teacher, self.beta, self.gamma, self.temperature)


class DKD(AgainstTeacher):
    """Mean over the batch of `dkd`, decoupled KD of logits (N, C) of the same classes.

    KD is the sum of the same two parts, the second one weighted by how likely the teacher finds all other classes:
    where it is sure, KD says next to nothing of them. Here they have one weight everywhere.

    Call ``loss(embeddings, labels, indices_tuple=None, ref_emb=teacher)``, labels (N,) in 0..C-1. Usual weight 1 beside
    cross-entropy, brought up over the first tenth of the training (``Ramp(0, 1, end=0.1)``). Computed in float32 or
    better, under autocast too. No gradient reaches the teacher.

    Source: Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, eq. 7.

    Args:
        alpha: weight of the own class, 0 or more.
        beta: weight of the others, 0 or more.
        temperature: tau, above 0.

    Raises:
        ValueError: names the argument: out of range; in the call, no ref_emb, other lengths or widths, fewer than two
            classes, no rows, mined pairs, labels that are missing, no integers or out of range; and where `may_look`
            says so, NaN or Inf.
        TypeError: names what is no tensor.
    """

    needs_labels = True
    stage = "logits"

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0) -> None:
        super().__init__()
        self.alpha, self.beta = at_least("alpha", alpha, 0), at_least("beta", beta, 0)
        self.temperature = positive("temperature", temperature)

    def compare_labelled(self, student: Tensor, teacher: Tensor, labels: Any) -> Tensor:
        same_width(student, teacher, "logits of the same classes")
        if student.shape[1] < 2:
            raise ValueError(f"embeddings: expected logits of two classes or more, got {tuple(student.shape)}")
        labels = class_labels(labels, student, student.shape[1])
        return dkd(student, teacher, labels, self.alpha, self.beta, self.temperature).mean()


def _apart(logits: Tensor, labels: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 2) scores of the own class and of all others together, and those of the others, columns (N, C - 1)."""
    own, among = logits.gather(1, labels.unsqueeze(1)), logits.gather(1, others)
    return torch.cat([own, among.logsumexp(dim=1, keepdim=True)], dim=1), among


def _centred(rows: Tensor) -> Tensor:
    """Rows less their mean; what is left of a constant row is rounding, which must not pass for a direction."""
    centred = rows - rows.mean(dim=1, keepdim=True)
    rounding = 16 * torch.finfo(rows.dtype).eps * torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return torch.where(torch.linalg.vector_norm(centred, dim=1, keepdim=True) <= rounding, 0.0, centred)
