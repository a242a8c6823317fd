"""Losses of feature maps: attention transfer and hints."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from reid_cckd.losses.against_teacher import AgainstTeacher, off_scale
from reid_cckd.losses.checks import at_least
from reid_cckd.losses.kernels import unit_rows
from reid_cckd.losses.projection import Projection


def attention(maps: Tensor, p: float = 2.0) -> Tensor:
    """mean_c |F_c|^p at each place, as a row of length 1, (N, C, H, W) -> (N, H W); zero maps stay zero."""
    return unit_rows(off_scale(maps).abs().pow(p).mean(dim=1).flatten(1))


def attention_transfer(student: Tensor, teacher: Tensor, p: float = 2.0) -> Tensor:
    """Mean over images and places of (Q(F_s) - Q(F_t))^2, Q = `attention`, maps (N, Cs, H, W) and (N, Ct, H, W)."""
    return functional.mse_loss(attention(student, p), attention(teacher, p))


class AttentionTransfer(AgainstTeacher):
    """`attention_transfer` of feature maps (N, Cs, Hs, Ws) and (N, Ct, Ht, Wt): where the teacher looks.

    The larger map is average-pooled to the size of the smaller. Usual weight 1000 beside cross-entropy, which makes up
    for the mean over places.

    Source: Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, eq. 2.

    Args:
        p: power of the activations, 1 or more; the higher, the more weight on the strongest place.
    """

    stage = "feature_map"
    ndims = (4,)

    def __init__(self, p: float = 2.0) -> None:
        super().__init__()
        self.p = at_least("p", p, 1)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        return attention_transfer(*_same_size(student, teacher), self.p)


class FitNetHint(AgainstTeacher):
    """Mean of (r(F_s) - F_t)^2 over all numbers, r a learned linear map of the student's side alone.

    Takes feature maps (N, C, H, W), the larger one average-pooled to the size of the smaller, or rows (N, D); r is the
    same for both, on maps a 1x1 convolution. Its weights train with the student: give the optimizer
    ``loss.parameters()`` (an `Objective` has them). Usual weight 100 beside cross-entropy.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, eq. 3.

    Args:
        student_width: channels of the student, C or D.
        teacher_width: channels of the teacher.
    """

    stage = "feature_map"
    ndims = (2, 4)

    def __init__(self, student_width: int, teacher_width: int) -> None:
        super().__init__()
        self.projection = Projection(student_width, teacher_width)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        self.projection.check_target(teacher)
        if student.ndim == 4:
            student, teacher = _same_size(student, teacher)
        return functional.mse_loss(self.projection(student), teacher)


def _same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps at the smaller height and the smaller width."""
    height, width = (min(s, t) for s, t in zip(student.shape[2:], teacher.shape[2:], strict=True))
    return _pooled(student, (height, width)), _pooled(teacher, (height, width))


def _pooled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if maps.shape[2:] == size else functional.adaptive_avg_pool2d(maps, size)
