"""Margin softmax over a part of the classes at a time, for more identities than a batch's scores could hold."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_cckd.losses.checks import finite, positive, whole
from reid_cckd.losses.distributed import (
    for_parts,
    gather_rows,
    is_alone,
    largest_of_parts,
    part_of,
    total_of_parts,
)
from reid_cckd.losses.kernels import unit_rows
from reid_cckd.losses.margin import check_classes, lowered, margin_cosines, margin_of
from reid_cckd.losses.pairs import refuse_pairs
from reid_cckd.losses.precision import at_least_float32, full_precision
from reid_cckd.splitmix import GOLDEN, mixed, signed

ODD = signed(0xD1B54A32D192ED03), signed(0xDB4F0B9175AE2165)  # keep steps and seeds apart


def noise(numbers: Tensor, step: Tensor, seed: int) -> Tensor:
    """64 random bits for each number (N,) int64 in a step, a scalar: `mixed` of all three.

    Of ``step`` nobody has to know the number: to read it, an accelerator would be waited for.
    """
    return mixed(numbers * GOLDEN + (step * ODD[0] + signed(seed * ODD[1])))


class PartialMargin(nn.Module):
    """ArcFace or CosFace over the classes of the batch and a random part of the others, drawn anew in every step.

    The scores, their gradient and the softmax take N x (``share`` C) instead of N x C numbers, and the product with
    the class weights its ``share`` of the time. Weights are parameters with a gradient for all classes, zero for those
    that were left out (give the optimizer ``loss.parameters()``).

    Call ``loss(embeddings, labels)``: (N, width), labels (N,) in 0..num_classes-1; needs no teacher. The draw depends
    on ``seed`` and on a count of steps that is in `state_dict`, and moves on in training mode only. Computed in float32
    or better, under autocast too.

    With ``shard`` the processes of torch.distributed share the classes out: each holds the weights of its own part,
    with their gradient, and scores the rows of all processes (which it gathers) by those of them that were drawn. Value
    and gradients are those of one process. ``shards`` names the rows that this process holds of a parameter: nobody may
    average its gradient with another's, and a `state_dict` holds this process's part alone.

    Source: An et al., "Killing Two Birds with One Stone: Efficient and Robust Training of Face Recognition CNNs by
    Partial FC", CVPR 2022, sec. 3.2.

    Args:
        num_classes, width: of the weights, 2 classes or more.
        share: of the classes in a step, in (0, 1]; never fewer than two or than the batch has; 1 is the plain one.
        kind: margin on the angle ("arc") or on the cosine ("cos").
        scale: factor of the cosines, above 0.
        margin: None is 0.45 radians ("arc"; those of pytorch-metric-learning are degrees) or 0.35 ("cos").
        shard: let each process hold a part of the classes.

    Raises:
        ValueError: names the argument; in the call also labels that are missing, of another shape or out of range; and
            where `may_look` says so, NaN or Inf.
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
        shard: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"share: expected a number in (0, 1], got {share}")
        self.kind, self.margin = kind, margin_of(kind, margin)
        self.scale, self.seed = positive("scale", scale), whole("seed", seed, 0)
        self.num_classes = whole("num_classes", num_classes, 2)
        self.kept = max(math.ceil(share * num_classes), 2)  # the softmax over one class is always 1
        self.shards = {"weight": part_of(num_classes)} if shard and not is_alone() else {}
        self.own = self.shards.get("weight", range(num_classes))
        weight = torch.empty(num_classes, whole("width", width))
        weight.normal_(std=0.01)  # of all classes: alike in all processes
        self.weight = nn.Parameter(weight[self.own.start : self.own.stop].clone() if self.shards else weight)
        self.register_buffer("step", torch.tensor(0))

    def forward(
        self, embeddings: Tensor, labels: Tensor | None = None, indices_tuple: Any = None, ref_emb: None = None
    ) -> Tensor:
        refuse_pairs(indices_tuple)
        if self.shards and labels is not None:
            embeddings, labels = gather_rows(embeddings), gather_rows(labels)
        labels = check_classes(embeddings, labels, self.num_classes, self.weight.shape[1])
        rows = at_least_float32(embeddings)
        classes = self.classes_of(labels)
        if self.training:
            self.step += 1
        with full_precision(rows):
            value = self._of_a_part(rows, labels, classes) if self.shards else self._of_all(rows, labels, classes)
        return finite(value, rows, rows)

    def _of_all(self, rows: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
        own = torch.searchsorted(classes, labels)
        cosines = functional.linear(unit_rows(rows), unit_rows(self.weight[classes].to(rows.dtype)))
        return functional.cross_entropy(self.scale * margin_cosines(cosines, own, self.kind, self.margin), own)

    def _of_a_part(self, rows: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
        """The same where this process scores its own classes alone: the softmax is put together of the parts'."""
        mine = classes[(classes >= self.own.start) & (classes < self.own.stop)]
        held = torch.isin(labels, mine).nonzero().flatten()  # the rows whose class is one of them
        place = held, torch.searchsorted(mine, labels[held])
        weights = unit_rows(self.weight[mine - self.own.start].to(rows.dtype))
        cosines = functional.linear(unit_rows(for_parts(rows)), weights)
        own = lowered(cosines[place], self.kind, self.margin)
        part = (self.scale * cosines.index_put(place, own)).logsumexp(dim=1)
        largest = largest_of_parts(part)
        normaliser = total_of_parts((part - largest).exp()).log() + largest
        return (normaliser - total_of_parts(own.new_zeros(len(rows)).index_put((held,), self.scale * own))).mean()

    @torch.no_grad()
    def classes_of(self, labels: Tensor) -> Tensor:
        """The classes of this step, ascending: those of ``labels`` and as many others as there is room for."""
        count, device = self.num_classes, labels.device
        if self.kept >= count:
            return torch.arange(count, device=device)
        room = self.kept
        if room < len(labels):  # an accelerator has to be asked only where the batch may have more classes than that
            room = max(room, len(torch.unique(labels)))
        chance = noise(torch.arange(count, device=device), self.step.to(device), self.seed)
        chance.scatter_(0, labels, torch.iinfo(torch.int64).max)  # by an index a GPU would wait for the number
        return chance.topk(room).indices.sort().values

    def extra_repr(self) -> str:
        of = f" of {self.num_classes}" if self.shards else ""
        return f"weight={tuple(self.weight.shape)}{of}, kept={self.kept}, kind={self.kind!r}, margin={self.margin}"
