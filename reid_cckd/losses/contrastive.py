"""Contrastive representation distillation: the student's row of an image is to find the teacher's among many."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_cckd.losses.against_teacher import matched
from reid_cckd.losses.checks import check_tensor, finite, out_of_range, positive, whole
from reid_cckd.losses.distributed import gather_rows
from reid_cckd.losses.groups import group_means
from reid_cckd.losses.kernels import unit_rows
from reid_cckd.losses.precision import full_precision
from reid_cckd.losses.projection import Projection

DENSE = 16  # up to this many times as many images as negatives, all dot products cost less than fetching rows


def noise_contrast(scores: Tensor, log_mean: Tensor) -> Tensor:
    """-mean_i (log h(i, 0) + sum_k log(1 - h(i, k))), h = e^score / (e^score + K e^log_mean); scores (N, 1 + K).

    Column 0 is the image itself, the others are K draws from the noise. This is the published P / (P + K / n) with
    P = e^score / Z and Z = n e^log_mean over n images; n cancels.
    """
    odds = scores - log_mean - math.log(scores.shape[1] - 1)
    return -(functional.logsigmoid(odds[:, 0]) + functional.logsigmoid(-odds[:, 1:]).sum(dim=1)).mean()


@torch.compiler.disable  # type: ignore[untyped-decorator]
def similarities(rows: Tensor, bank: Tensor, columns: Tensor) -> Tensor:
    """Dot product of row i with row columns[i, k] of the bank, (N, D), (n, D), (N, K) -> (N, K).

    Not compiled: a compiler would keep the bank for the backward, and not the copy of it.
    """
    if len(bank) <= DENSE * columns.shape[1]:
        return (rows @ bank.to(rows.dtype, copy=True).T).gather(1, columns)  # a copy: updated before the backward
    return torch.einsum("nd,nkd->nk", rows, bank[columns].to(rows.dtype))


class CRD(nn.Module):
    """`noise_contrast` of the student against a bank of teacher's rows, plus that of the teacher against student's.

    Call ``loss(embeddings, labels=None, indices_tuple=None, ref_emb=teacher, index=index)``: student and teacher
    (N, width), each of its own width, and ``index`` (N,), the images' rows in the data set. Both are mapped linearly to
    unit rows of ``dim``; both maps train with the student (give the optimizer ``loss.parameters()``), the teacher gets
    no gradient. Computed in float32 or better, under autocast too. Usual weight 0.8 beside cross-entropy.

    In training mode the banks take up each batch after its loss was taken, an image that is in it several times as the
    mean; the first batch of all fixes the scale of the noise. Banks and scale are in `state_dict` and take
    8 x num_images x dim bytes. Negatives are drawn uniformly from all images, with replacement and the image itself not
    excluded (as published), by torch's default generator of the device.

    Source: Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, eq. 18 and the authors' code.

    Args:
        student_width, teacher_width: widths of the rows.
        num_images: length of the data set, 1 or more.
        dim: width of the common space.
        negatives: K, draws for each image, 1 or more.
        temperature: similarities are divided by it, above 0.
        momentum: share of the old row in the new one, in [0, 1).

    Raises:
        ValueError: names the argument; in the call also an index that is missing or out of range.
    """

    needs_teacher = True
    needs_index = True  # Objective hands over index=
    student_bank: Tensor
    teacher_bank: Tensor
    log_means: Tensor

    def __init__(
        self,
        student_width: int,
        teacher_width: int,
        num_images: int,
        dim: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum: expected a number in [0, 1), got {momentum}")
        self.num_images, self.negatives = whole("num_images", num_images), whole("negatives", negatives)
        self.temperature, self.momentum = positive("temperature", temperature), momentum
        self.student_projection = Projection(student_width, whole("dim", dim))
        self.teacher_projection = Projection(teacher_width, dim, of="ref_emb")
        self.register_buffer("student_bank", unit_rows(torch.randn(num_images, dim)))
        self.register_buffer("teacher_bank", unit_rows(torch.randn(num_images, dim)))
        self.register_buffer("log_means", torch.full((2,), -math.inf))  # not known before the first batch

    def forward(
        self,
        embeddings: Tensor,
        labels: Any = None,
        indices_tuple: Any = None,
        ref_emb: Tensor | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        student, teacher = matched(embeddings, ref_emb, indices_tuple)
        index = self._checked(index, len(student)).to(student.device)
        with full_precision(student):
            units = unit_rows(self.student_projection(student)), unit_rows(self.teacher_projection(teacher))
            columns = torch.cat([index.unsqueeze(1), self._draw(index)], dim=1)
            scores = [
                similarities(rows, bank, columns) / self.temperature
                for rows, bank in zip(units, (self.teacher_bank, self.student_bank), strict=True)
            ]
            means = self._log_means(scores)
            value = noise_contrast(scores[0], means[0]) + noise_contrast(scores[1], means[1])
        finite(value, student, teacher)
        if self.training:
            self._remember(*units, index, means)
        return value

    def _draw(self, index: Tensor) -> Tensor:
        return torch.randint(self.num_images, (len(index), self.negatives), device=index.device)

    @torch.no_grad()
    def _log_means(self, scores: list[Tensor]) -> Tensor:
        """Log of the mean e^score: the one that was fixed, or this batch's."""
        found = torch.stack([part.flatten().logsumexp(dim=0) - math.log(part.numel()) for part in scores])
        return torch.where(self.log_means.isinf(), found, self.log_means.to(found.dtype))

    @torch.no_grad()
    def _remember(self, student: Tensor, teacher: Tensor, index: Tensor, means: Tensor) -> None:
        index = gather_rows(index)
        for bank, rows in ((self.student_bank, student), (self.teacher_bank, teacher)):
            mean = group_means(gather_rows(rows).to(bank.dtype), index)
            bank[index] = unit_rows(self.momentum * bank[index] + (1 - self.momentum) * mean)
        self.log_means.copy_(gather_rows(means.unsqueeze(0)).mean(dim=0))

    def _checked(self, index: Tensor | None, count: int) -> Tensor:
        if index is None:
            raise ValueError("index: pass the images' rows in the data set, loss(embeddings, ref_emb=..., index=index)")
        check_tensor("index", index)
        if index.shape != (count,) or index.is_floating_point():
            raise ValueError(f"index: expected ({count},) integers, got {index.dtype} of {tuple(index.shape)}")
        if out_of_range(index, self.num_images):
            raise ValueError(f"index: out of range for {self.num_images} images")
        return index

    def extra_repr(self) -> str:
        return f"num_images={self.num_images}, negatives={self.negatives}, temperature={self.temperature}"
