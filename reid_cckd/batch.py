"""The two types that travel between rooms, what enters a network and what leaves it, and how they get to a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Answer = Literal["embedding", "neck", "logits"]  # what of an `Output` a network is asked for: one row an image


@dataclass(frozen=True)
class Batch:
    """Images as they were decoded; every network normalises them by its own statistics.

    ``images``: (N, 3, H, W) uint8, RGB. ``labels``: (N,) int64 class indices. ``index``: (N,) int64 rows of
    the manifest. ``repeat``: (N,) int64, how often each row came before in the batch of which this may be a part; None
    where nobody asks. ``there``: where the images were made on a device, (3, N) int64 on it: index, repeat, and the row
    of a teacher's kept answers, ``view * images + index``; index and repeat themselves are then on the CPU.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    repeat: Tensor | None = None
    there: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device; what is there already is not sent."""
        device = torch.device(device)
        if self.there is not None and send(self.images, device) is self.images:
            return Batch(self.images, self.labels, self.there[0], self.there[1], self.there)
        return self._each(lambda column: send(column, device))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; a DataLoader with ``pin_memory=True`` calls this."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        repeat = None if self.repeat is None else change(self.repeat)
        return Batch(change(self.images), change(self.labels), change(self.index), repeat)


class Part(list[int]):
    """Rows of a part of a batch; ``before``: those of the parts in front of it, which count when a row is repeated."""

    before: Sequence[int] = ()


def rows_before(rows: Sequence[int]) -> list[int]:
    """Those in front of a `Part`; none of a whole batch."""
    return [*getattr(rows, "before", ())]


def repeats(index: NDArray[np.int64], before: Sequence[int] | NDArray[np.int64] = ()) -> NDArray[np.int64]:
    """(N,) how often each number came earlier, ``before`` too: a view of an image is drawn, and remembered, by that."""
    if len(before):
        return repeats(np.concatenate([np.asarray(before, dtype=np.int64), index]))[len(before) :]
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


def has_room(device: torch.device, size: int) -> bool:
    """Whether so many bytes take no more than a quarter of the free memory of a GPU; of others nobody asks."""
    return device.type != "cuda" or 4 * size <= torch.cuda.mem_get_info(device)[0]


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

    def each(self, change: Callable[[Tensor], Tensor]) -> Output:
        """What ``change`` makes of every one of them that there is."""
        return Output(*(None if rows is None else change(rows) for rows in self))  # type: ignore[arg-type]
