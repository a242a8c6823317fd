"""Margin softmax over a part of the classes at a time, for more identities than a batch's scores could hold."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_cckd.losses.checks import positive
from reid_cckd.losses.kernels import unit_rows
from reid_cckd.losses.margin import check_classes, margin_cosines, margin_of
from reid_cckd.losses.pairs import refuse_pairs
from reid_cckd.losses.precision import at_least_float32, full_precision


class PartialMargin(nn.Module):
    """ArcFace or CosFace over the classes of the batch and a random part of the others, drawn anew in every step.

    The scores, their gradient and the softmax take N x (``share`` C) instead of N x C numbers, and the product with
    the class weights its ``share`` of the time. Weights are parameters with a gradient for all classes, zero for those
    that were left out (give the optimizer ``loss.parameters()``).

    Call ``loss(embeddings, labels)``: (N, width), labels (N,) in 0..num_classes-1; needs no teacher. The draw depends
    on ``seed`` and on a count of steps that is in `state_dict`, and moves on in training mode only. Computed in float32
    or better, under autocast too.

    Source: An et al., "Killing Two Birds with One Stone: Efficient and Robust Training of Face Recognition CNNs by
    Partial FC", CVPR 2022, sec. 3.2.

    Args:
        num_classes, width: of the weights.
        share: of the classes in a step, in (0, 1]; never fewer than the batch has, 1 is the plain margin softmax.
        kind: margin on the angle ("arc") or on the cosine ("cos").
        scale: factor of the cosines, above 0.
        margin: None is 0.45 ("arc") or 0.35 ("cos").

    Raises:
        ValueError: names the argument; in the call also labels that are missing, of another shape or out of range.
    """

    step: Tensor

    def __init__(
        self,
        num_classes: int,
        width: int,
        share: float = 0.1,
        kind: Literal["arc", "cos"] = "arc",
        scale: float = 64.0,
        margin: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"share: expected a number in (0, 1], got {share}")
        self.kind, self.margin = kind, margin_of(kind, margin)
        self.scale, self.seed = positive("scale", scale), seed
        self.kept = math.ceil(share * num_classes)
        self.weight = nn.Parameter(torch.empty(num_classes, width).normal_(std=0.01))
        self.register_buffer("step", torch.tensor(0))

    def forward(
        self, embeddings: Tensor, labels: Tensor | None = None, indices_tuple: Any = None, ref_emb: None = None
    ) -> Tensor:
        refuse_pairs(indices_tuple)
        labels = check_classes(embeddings, labels, *self.weight.shape)
        rows = at_least_float32(embeddings)
        classes = self.classes_of(labels)
        if self.training:
            self.step += 1
        with full_precision(rows):
            own = torch.searchsorted(classes, labels)
            cosines = functional.linear(unit_rows(rows), unit_rows(self.weight[classes].to(rows.dtype)))
            logits = self.scale * margin_cosines(cosines, own, self.kind, self.margin)
            return functional.cross_entropy(logits, own)

    @torch.no_grad()
    def classes_of(self, labels: Tensor) -> Tensor:
        """The classes of this step, ascending: those of ``labels`` and as many others as there is room for."""
        count, device = len(self.weight), labels.device
        if self.kept >= count:
            return torch.arange(count, device=device)
        state = np.random.SeedSequence([self.seed, int(self.step)]).generate_state(1)  # torch's CPU takes 32 bits
        generator = torch.Generator(device).manual_seed(int(state[0]))
        chance = torch.rand(count, device=device, generator=generator)
        present = torch.unique(labels)
        chance[present] = 2.0
        return chance.topk(max(self.kept, len(present))).indices.sort().values

    def extra_repr(self) -> str:
        return f"weight={tuple(self.weight.shape)}, kept={self.kept}, kind={self.kind!r}, margin={self.margin}"
