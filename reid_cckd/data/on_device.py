"""A whole set on the device that trains: batches are gathered and augmented there, without workers or copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_cckd.batch import Batch, repeats, rows_before, send
from reid_cckd.data.batched import BatchedAugment

AHEAD = 32 * 2**20  # bytes of images that an accelerator makes in one go: to be told takes it longer than to do it


class DeviceImages:
    """N decoded images as one (N, 3, H, W) uint8 tensor on ``device``.

    ``pixels``: (N, H, W, 3) uint8, as decoding leaves them. ``labels``: (N,) int64. ``shown``: (N,) int64, the row to
    show for each; None shows itself. ``views=M`` leaves M augmentations of each image: epoch e shows view e mod M,
    and a repeated image the next one.
    """

    def __init__(
        self,
        pixels: Tensor,
        labels: NDArray[np.int64],
        device: torch.device,
        augment: BatchedAugment | None,
        shown: NDArray[np.int64] | None = None,
        views: int | None = None,
    ) -> None:
        self.images = pixels.permute(0, 3, 1, 2).contiguous().to(device)  # two copies here and not on the device
        self.labels, self.augment, self.device = torch.from_numpy(labels).to(device), augment, device
        self.views = views
        self.shown = np.arange(len(labels)) if shown is None else shown
        self.ahead = 1 if device.type == "cpu" else AHEAD // self.images[0].nbytes  # images

    def batches(self, parts: Iterable[Sequence[int]], epoch: int) -> Iterator[Batch]:
        """The images of each part as they look in this epoch; a row that a part repeats looks different each time.

        An accelerator makes as many batches in one go as stay below ``ahead`` images; what is in them is the same.
        """
        rest = iter(parts)
        for first in rest:
            more = islice(rest, max(0, self.ahead // max(1, len(first)) - 1))
            yield from self._together([first, *more], epoch)

    def batch(self, rows: Sequence[int], epoch: int) -> Batch:
        """That of one part."""
        return next(self.batches([rows], epoch))

    def _together(self, parts: Sequence[Sequence[int]], epoch: int) -> Iterator[Batch]:
        """One gathering and one augmentation for all the parts, cut apart afterwards."""
        numbers = torch.from_numpy(np.concatenate([self._numbers(rows, epoch) for rows in parts], axis=1))
        there = send(numbers, self.device)
        index, repeat, row = there
        images = self.images.index_select(0, index)
        if self.augment is not None:
            drawn = (epoch, repeat) if self.views is None else (row // len(self.labels), torch.zeros_like(repeat))
            images = self.augment(images, index, *drawn)
        columns = images, self.labels.index_select(0, index), numbers[0], numbers[1]
        sizes = [len(rows) for rows in parts]
        cut = [column.split(sizes) for column in columns]
        return map(Batch, *cut, there.split(sizes, dim=1))

    def _numbers(self, rows: Sequence[int], epoch: int) -> NDArray[np.int64]:
        """(3, N) as `Batch.there`."""
        index = self.shown[np.asarray(rows, dtype=np.int64)]
        repeat = repeats(index, self.shown[rows_before(rows)])
        view = 0 if self.views is None else (epoch + repeat) % self.views
        return np.stack([index, repeat, view * len(self.shown) + index])
