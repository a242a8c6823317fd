"""Losses of class scores that compare relations between them: DIST."""

from __future__ import annotations

import torch
from torch import Tensor

from reid_cckd.losses.against_teacher import AgainstTeacher, same_width
from reid_cckd.losses.checks import at_least, positive

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


def _centred(rows: Tensor) -> Tensor:
    """Rows less their mean; what is left of a constant row is rounding, which must not pass for a direction."""
    centred = rows - rows.mean(dim=1, keepdim=True)
    rounding = 16 * torch.finfo(rows.dtype).eps * torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return torch.where(torch.linalg.vector_norm(centred, dim=1, keepdim=True) <= rounding, 0.0, centred)
