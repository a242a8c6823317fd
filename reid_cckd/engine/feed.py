"""Batches of an epoch from any number on: a data set, a batch sampler and torch's DataLoader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from reid_cckd.batch import Batch, Part
from reid_cckd.engine.distributed import rank, world_size
from reid_cckd.errors import UserError


class EpochDataset(Protocol):
    """A data set whose augmentation is a function of the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, in worker processes too."""


class EpochSampler(Protocol):
    """A batch sampler that can start anywhere."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[list[int]]: ...
    def set_epoch(self, epoch: int) -> None: ...
    def state_dict(self, batches: int | None = None) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Share:
    """A process's part of every batch: batches, steps and epochs are those of one process, whatever the number."""

    batches: EpochSampler
    rank: int
    world_size: int

    def __iter__(self) -> Iterator[Part]:
        for batch in self.batches:
            first, last = (len(batch) * part // self.world_size for part in (self.rank, self.rank + 1))
            part = Part(batch[first:last])
            part.before = batch[:first]
            yield part

    def __len__(self) -> int:
        return len(self.batches)


@contextmanager
def naming_lost_workers(when: str) -> Iterator[None]:
    """Around what a DataLoader gives.

    Raises:
        UserError: the system killed a process that loads images.
    """
    try:
        yield
    except (RuntimeError, EOFError, ConnectionError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"A process that loads images was lost {when}: {reason}. The system kills such processes when memory or "
            f"/dev/shm is full: set fewer data.workers, or 0, and --resume: what is done is kept."
        ) from error


@dataclass(frozen=True)
class DirectFeed:
    """`TrainingData` whose ``fetch(parts, epoch)`` makes a batch of each part, such as of images on the device.

    It may ask for parts ahead of the batches that it gives.
    """

    fetch: Callable[[Iterable[Sequence[int]], int], Iterator[Batch]]
    sampler: EpochSampler
    image_name: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.sampler)

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from number ``start`` on."""
        self.sampler.set_epoch(epoch)
        self.sampler.load_state_dict(self.sampler.state_dict(batches=start))
        yield from self.fetch(Share(self.sampler, rank(), world_size()), epoch)


@dataclass(frozen=True)
class Feed:
    """`TrainingData` over a map-style data set; what is in a batch never depends on the number of workers.

    In a distributed run each process gets its part of every batch, in order of rank.
    """

    dataset: EpochDataset
    sampler: EpochSampler
    collate: Callable[[Sequence[Any]], Batch]
    image_name: Callable[[int], str]
    workers: int
    pin_memory: bool
    worker_init: Callable[[int], None] | None = None

    def __len__(self) -> int:
        return len(self.sampler)

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from number ``start`` on."""
        assert isinstance(self.dataset, Dataset)
        self.dataset.set_epoch(epoch)
        self.sampler.set_epoch(epoch)
        self.sampler.load_state_dict(self.sampler.state_dict(batches=start))
        loader = DataLoader(
            self.dataset,
            batch_sampler=Share(self.sampler, rank(), world_size()),
            collate_fn=self.collate,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            worker_init_fn=self.worker_init,
            generator=torch.Generator().manual_seed(epoch),  # seeds of workers; the global generator stays untouched
        )
        with naming_lost_workers(f"in epoch {epoch + 1}"):
            yield from loader
