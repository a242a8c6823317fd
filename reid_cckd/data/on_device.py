"""A whole set on the device that trains: batches are gathered and augmented there, without workers or copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_cckd.batch import Batch, repeats, rows_before, send
from reid_cckd.data.batched import BatchedAugment


class DeviceImages:
    """N decoded images as one (N, 3, H, W) uint8 tensor on ``device``.

    ``pixels``: (N, H, W, 3) uint8, as decoding leaves them. ``labels``: (N,) int64. ``shown``: (N,) int64, the row to
    show for each; None shows itself.
    """

    def __init__(
        self,
        pixels: Tensor,
        labels: NDArray[np.int64],
        device: torch.device,
        augment: BatchedAugment | None,
        shown: NDArray[np.int64] | None = None,
    ) -> None:
        self.images = pixels.permute(0, 3, 1, 2).contiguous().to(device)  # two copies here and not on the device
        self.labels, self.augment, self.device = torch.from_numpy(labels).to(device), augment, device
        self.shown = np.arange(len(labels)) if shown is None else shown

    def batch(self, rows: Sequence[int], epoch: int) -> Batch:
        """The images of these rows as they look in this epoch; a row that is repeated looks different each time."""
        index = self.shown[np.asarray(rows, dtype=np.int64)]
        repeat = torch.from_numpy(repeats(index, self.shown[rows_before(rows)]))
        places = send(torch.from_numpy(index), self.device)
        images = self.images.index_select(0, places)
        if self.augment is not None:
            images = self.augment(images, places, epoch, send(repeat, self.device))
        return Batch(images, self.labels.index_select(0, places), torch.from_numpy(index), repeat)
