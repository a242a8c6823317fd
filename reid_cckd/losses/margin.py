"""Margin softmax that a teacher or the image's quality adapts: AdaDistill and AdaFace."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_cckd.losses.against_teacher import matched, same_width
from reid_cckd.losses.checks import at_least, finite, positive, whole
from reid_cckd.losses.distributed import gather_rows
from reid_cckd.losses.groups import group_means
from reid_cckd.losses.kernels import unit_rows
from reid_cckd.losses.pairs import class_labels, refuse_pairs
from reid_cckd.losses.precision import at_least_float32, full_precision

MARGINS = {"arc": 0.45, "cos": 0.35}
LIMITS = {"arc": math.pi, "cos": 2.0}  # no angle, no difference of cosines is larger
ARC_LIMIT = 1e-7  # cosines this close to 1 or -1 have no usable angle: its slope is infinite there
ADAFACE_EPS = 1e-3  # cosines, angles and deviations keep this distance from their ends, as published
SHORTEST, LONGEST = 1e-3, 100.0  # range in which AdaFace believes a length
LEAST_SHARE = 1e-6  # of the old centre in the new one, as published


def margin_cosines(cosines: Tensor, labels: Tensor, kind: Literal["arc", "cos"], margin: float) -> Tensor:
    """Cosines (N, C) with that of each row's own class lowered: cos(theta + margin) ("arc"), cos(theta) - margin."""
    own = cosines.gather(1, labels.unsqueeze(1))
    return cosines.scatter(1, labels.unsqueeze(1), lowered(own, kind, margin))


def lowered(own: Tensor, kind: Literal["arc", "cos"], margin: float) -> Tensor:
    """Cosines to the own class, of any shape, with the margin taken off."""
    if kind == "cos":
        return own - margin
    return (own.clamp(ARC_LIMIT - 1, 1 - ARC_LIMIT).acos() + margin).cos()


def adaface_cosines(cosines: Tensor, labels: Tensor, quality: Tensor, margin: float) -> Tensor:
    """Cosines (N, C) with that of each row's own class at cos(theta - m q) - (m + m q), q = quality (N,) in [-1, 1]."""
    cosines = cosines.clamp(ADAFACE_EPS - 1, 1 - ADAFACE_EPS)
    angle = cosines.gather(1, labels.unsqueeze(1)).acos() - margin * quality.unsqueeze(1)
    own = angle.clamp(ADAFACE_EPS, math.pi - ADAFACE_EPS).cos() - margin * (1 + quality.unsqueeze(1))
    return cosines.scatter(1, labels.unsqueeze(1), own)


class AdaDistill(nn.Module):
    """Cross-entropy of a margin softmax whose class centres are made of the teacher's embeddings.

    w_y <- a w_y + (1 - a) f_t with a = cos(f_s, f_t) cos(w_y, f_t), not below 1e-6, embeddings at length 1: the more
    the student agrees with its teacher, and the image with its class, the more of the centre is kept. Then softmax
    cross-entropy of ``scale`` x cosines to the centres, with a margin on the own class. Centres begin as small noise,
    are buffers (in `state_dict`) without gradient, and change in training mode only; a class that is in the batch
    several times moves to the mean of its updates.

    Call ``loss(embeddings, labels, indices_tuple=None, ref_emb=teacher)``: student and teacher (N, width), labels (N,)
    in 0..num_classes-1. Needs no other loss. Computed in float32 or better, under autocast too.

    Source: Boutros, Struc, Damer, "AdaDistill: Adaptive Knowledge Distillation for Deep Face Recognition", ECCV 2024.

    Args:
        num_classes, width: of the centres, 2 classes or more.
        kind: margin on the angle ("arc") or on the cosine ("cos").
        scale: factor of the cosines, above 0.
        margin: None is 0.45 radians ("arc"; those of pytorch-metric-learning are degrees) or 0.35 ("cos").
        weighted: False leaves the factor cos(w_y, f_t) out of a.

    Raises:
        ValueError: names the argument; in the call also labels that are missing, of another shape or out of range.
    """

    needs_teacher = True
    needs_labels = True
    centres: Tensor

    def __init__(
        self,
        num_classes: int,
        width: int,
        kind: Literal["arc", "cos"] = "arc",
        scale: float = 64.0,
        margin: float | None = None,
        weighted: bool = True,
    ) -> None:
        super().__init__()
        self.kind, self.margin = kind, margin_of(kind, margin)
        self.scale, self.weighted = positive("scale", scale), weighted
        self.register_buffer("centres", 0.01 * torch.randn(whole("num_classes", num_classes, 2), whole("width", width)))

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        indices_tuple: Any = None,
        ref_emb: Tensor | None = None,
    ) -> Tensor:
        student, teacher = matched(embeddings, ref_emb, indices_tuple)
        same_width(student, teacher, "embeddings of one space")
        labels = check_classes(student, labels, *self.centres.shape)
        with full_precision(student):
            units, targets = unit_rows(student), unit_rows(teacher)
            finite(units.detach().sum() + targets.sum(), student, teacher)  # no centre would recover from a NaN
            if self.training:
                self._move(units, targets, labels)
            cosines = functional.linear(units, unit_rows(self.centres.to(units.dtype)))
            logits = self.scale * margin_cosines(cosines, labels, self.kind, self.margin)
            return functional.cross_entropy(logits, labels)

    @torch.no_grad()
    def _move(self, student: Tensor, teacher: Tensor, labels: Tensor) -> None:
        old = self.centres[labels].to(teacher.dtype)
        keep = (student * teacher).sum(dim=1, keepdim=True)
        if self.weighted:
            keep = keep * (unit_rows(old) * teacher).sum(dim=1, keepdim=True).clamp(LEAST_SHARE, 1)
        keep = keep.clamp(LEAST_SHARE, 1)
        moved = keep * old + (1 - keep) * teacher
        labels = gather_rows(labels)
        self.centres[labels] = group_means(gather_rows(moved), labels).to(self.centres.dtype)

    def extra_repr(self) -> str:
        return f"centres={tuple(self.centres.shape)}, kind={self.kind!r}, scale={self.scale}, margin={self.margin}"


class AdaFace(nn.Module):
    """Cross-entropy of a softmax whose margin follows the image's quality, for which the embedding's length stands.

    q = h (|f| - mean) / (deviation + 0.001), kept within [-1, 1], without gradient; mean and deviation run over the
    lengths (within [0.001, 100]) of past batches. The own class's logit is scale x (cos(theta - m q) - (m + m q)): long
    rows get a margin on the cosine, short ones on the angle. A label loss with weights of its own, which train with the
    network (give the optimizer ``loss.parameters()``); no teacher.

    Call ``loss(embeddings, labels)``: (N, width) of any length, not normalised, labels (N,) in 0..num_classes-1. The
    running numbers are in `state_dict` and change in training mode only; the deviation takes two rows. Computed in
    float32 or better, under autocast too.

    Source: Kim, Jain, Liu, "AdaFace: Quality Adaptive Margin for Face Recognition", CVPR 2022, sec. 3.3.

    Args:
        num_classes, width: of the weights, 2 classes or more.
        margin: m, in radians and cosines.
        h: q of a length one deviation above the mean; with 0.333, three deviations are the end of its range.
        scale: factor of the cosines, above 0.
        momentum: share of the batch in the running mean and deviation, in (0, 1].

    Raises:
        ValueError: names the argument; in the call also labels that are missing, of another shape or out of range.
    """

    length_mean: Tensor
    length_deviation: Tensor

    def __init__(
        self,
        num_classes: int,
        width: int,
        margin: float = 0.4,
        h: float = 0.333,
        scale: float = 64.0,
        momentum: float = 0.01,
    ) -> None:
        super().__init__()
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum: expected a number in (0, 1], got {momentum}")
        self.margin, self.h = margin_of("arc", margin), at_least("h", h, 0)
        self.scale, self.momentum = positive("scale", scale), momentum
        weight = torch.empty(whole("num_classes", num_classes, 2), whole("width", width))
        self.weight = nn.Parameter(unit_rows(weight.uniform_(-1, 1)))
        self.register_buffer("length_mean", torch.tensor(20.0))
        self.register_buffer("length_deviation", torch.tensor(100.0))

    def forward(
        self, embeddings: Tensor, labels: Tensor | None = None, indices_tuple: Any = None, ref_emb: None = None
    ) -> Tensor:
        refuse_pairs(indices_tuple)
        labels = check_classes(embeddings, labels, *self.weight.shape)
        rows = at_least_float32(embeddings)
        with full_precision(rows):
            lengths = torch.linalg.vector_norm(rows.detach(), dim=1).clamp(SHORTEST, LONGEST)
            cosines = functional.linear(unit_rows(rows), unit_rows(self.weight.to(rows.dtype)))
            finite(cosines.detach().sum(), rows, rows)
            if self.training:
                self._follow(lengths)
            quality = self.h * (lengths - self.length_mean) / (self.length_deviation + ADAFACE_EPS)
            logits = self.scale * adaface_cosines(cosines, labels, quality.clamp(-1, 1), self.margin)
            return functional.cross_entropy(logits, labels)

    @torch.no_grad()
    def _follow(self, lengths: Tensor) -> None:
        lengths = gather_rows(lengths).to(self.length_mean.dtype)
        self.length_mean.lerp_(lengths.mean(), self.momentum)
        if len(lengths) > 1:
            self.length_deviation.lerp_(lengths.std(), self.momentum)

    def extra_repr(self) -> str:
        return f"weight={tuple(self.weight.shape)}, margin={self.margin}, h={self.h}, scale={self.scale}"


def margin_of(kind: Literal["arc", "cos"], margin: float | None) -> float:
    """The margin, or that which is usual for its kind.

    Raises:
        ValueError: there is no such kind, or no angle or cosine of that size.
    """
    if kind not in MARGINS:
        raise ValueError(f"kind: expected 'arc' or 'cos', got {kind!r}")
    found = MARGINS[kind] if margin is None else margin
    if not abs(found) < LIMITS[kind]:
        unit = "radians (pytorch-metric-learning has degrees)" if kind == "arc" else "a cosine"
        raise ValueError(f"margin: expected {unit}, below {LIMITS[kind]:.2f}, got {found}")
    return found


def check_classes(embeddings: Tensor, labels: Tensor | None, num_classes: int, width: int) -> Tensor:
    """The labels, one in range for each of one row or more of that width."""
    if embeddings.ndim != 2 or not len(embeddings) or embeddings.shape[1] != width:
        raise ValueError(f"embeddings: expected (N, {width}), N of 1 or more, got {tuple(embeddings.shape)}")
    return class_labels(labels, embeddings, num_classes)
