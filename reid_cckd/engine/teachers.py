"""Whom a student asks at every step: a network, or what it said before."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reid_cckd.batch import Batch, Output, repeats, send
from reid_cckd.engine.teacher_cache import TeacherCache


class TeacherSource(Protocol):
    """Knows the teacher's output for a batch."""

    def __call__(self, batch: Batch, images: Tensor, epoch: int) -> Output:
        """Rows of ``batch`` as it was loaded; ``images`` are its images on the device of the result."""


@dataclass(frozen=True)
class OnlineTeacher:
    """Looks at the very images that the student looks at."""

    network: nn.Module
    precision: Callable[[], AbstractContextManager[object]]

    @torch.no_grad()
    def answer(self, images: Tensor) -> Output:
        """What the network says of images on its device."""
        with self.precision():
            output: Output = self.network(images)
        return output

    def __call__(self, batch: Batch, images: Tensor, epoch: int) -> Output:
        return self.answer(images)


@dataclass(frozen=True)
class CachedTeacher:
    """Remembers what it said; of M views of an image, the one that this epoch shows the student.

    ``held``: all rows on the device, for batches that know theirs there; others are read from disk.
    """

    cache: TeacherCache
    held: Tensor | None = None

    def __call__(self, batch: Batch, images: Tensor, epoch: int) -> Output:
        if self.held is not None and batch.there is not None:
            return self.cache.layout.output(self.held.index_select(0, batch.there[2]))
        index: NDArray[np.int64] = batch.index.cpu().numpy()
        repeat = repeats(index) if batch.repeat is None else batch.repeat.cpu().numpy()
        view = (epoch + repeat) % self.cache.layout.views
        rows = self.cache.look_up(view, index)
        return self.cache.layout.output(send(rows, images.device))
