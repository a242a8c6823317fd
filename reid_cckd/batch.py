"""The two types that travel between rooms, what enters a network and what leaves it, and how they get to a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
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
        """The same batch on another device."""
        return Batch(*(send(column, torch.device(device)) for column in (self.images, self.labels, self.index)))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; a DataLoader with ``pin_memory=True`` calls this."""
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.index.pin_memory())


def repeats(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) how often each number came before in the batch: a view of an image is drawn, and remembered, by that."""
    order = np.argsort(index, kind="stable")
    ordered = index[order]
    first = np.searchsorted(ordered, ordered)
    counts = np.empty_like(index)
    counts[order] = np.arange(len(index)) - first
    return counts


def send(rows: Tensor, device: torch.device) -> Tensor:
    """The same numbers on a device; to a GPU by way of page-locked memory, so that nobody waits for the copy."""
    if device.type == "cuda" and rows.device.type == "cpu" and not rows.is_pinned():
        rows = rows.pin_memory()
    return rows.to(device, non_blocking=True)


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
