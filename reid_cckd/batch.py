"""The two types that travel between rooms: what enters a network and what leaves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Images as they were decoded; every network normalises them by its own statistics.

    ``images``: (N, 3, H, W) uint8, RGB. ``labels``: (N,) int64 class indices. ``index``: (N,) int64 rows of
    the manifest.
    """

    images: Tensor
    labels: Tensor
    index: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device (asynchronous from pinned memory)."""
        columns = (self.images, self.labels, self.index)
        return Batch(*(column.to(device, non_blocking=True) for column in columns))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; a DataLoader with ``pin_memory=True`` calls this."""
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.index.pin_memory())


class Output(NamedTuple):
    """What a network says about a batch of N images.

    ``embedding``: (N, D) before the neck, for metric losses. ``neck``: (N, D) after BNNeck, what retrieval
    compares (equal to ``embedding`` without a neck). ``logits``: (N, C), or None without a class head.
    ``feature_map``: (N, F, h, w), the backbone's last map, or None where only vectors were kept.
    """

    embedding: Tensor
    neck: Tensor
    logits: Tensor | None
    feature_map: Tensor | None = None
