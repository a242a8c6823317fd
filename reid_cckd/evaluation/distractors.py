"""One pass over the distractors: how many score above each mate, and the highest impostor scores."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_cckd.evaluation.counting import blocks, count_above, count_above_on_device
from reid_cckd.evaluation.products import empty, multiply
from reid_cckd.evaluation.rows import Rows

TILE = 24_000  # distractors scored together; rows of scores a power of two apart would share cache lines
_SCORES = 24 * 2**20  # scores held by up to four threads: 96 MiB; more threads hold as much each


@dataclass(frozen=True)
class MatePairs:
    """Similarities of ordered pairs (probe, mate): those of probe p are ``bounds[p]:bounds[p + 1]``."""

    scores: NDArray[np.float32]
    bounds: NDArray[np.int64]


def scores_held(threads: int | None = None) -> int:
    """Scores that all threads together hold at a time."""
    threads = threads or torch.get_num_threads()
    return threads * max(_SCORES // threads, _SCORES // 4)


@dataclass(frozen=True)
class _Tile:
    """Distractors as they are, their lengths, and which of them are ignored."""

    rows: Tensor
    lengths: Tensor
    wrong: Tensor | None


class Pass:
    """One pass over the distractors: for each pair how many score above it, and the highest impostor scores.

    A pair beaten ``deepest`` times is settled, its count no longer exact: as the pass goes on only good pairs are left,
    above which few distractors lie.
    """

    def __init__(
        self,
        photos: Rows,
        others: Rows,
        ignored: NDArray[np.bool_] | None,
        order: NDArray[np.int64] | None,
        pairs: MatePairs,
        deepest: int,
        highest: Highest,
    ) -> None:
        self.photos, self.others, self.pairs = photos, others, pairs
        self.ignored, self.order = ignored, order
        self.deepest, self.highest = deepest, highest
        self.above = np.zeros(len(pairs.scores), dtype=np.int64)
        threads = torch.get_num_threads() if photos.device.type == "cpu" else 1
        self.buffers: SimpleQueue[Tensor] = SimpleQueue()
        for _ in range(threads):
            self.buffers.put(empty(scores_held(threads) // threads, photos.device))
        most = max(1, scores_held(threads) // threads // TILE)
        self.step = math.ceil(len(photos) / (threads * math.ceil(len(photos) / most / threads)))

    def over(self, tiles: Iterable[tuple[int, int]], pool: Executor) -> Iterator[int]:
        """Score tile after tile, and give the end of each once it is counted; meanwhile the next one is read."""
        begun: list[Future[None]] = []
        last = 0
        for start, stop in tiles:
            tile = self._read(start, stop)
            if last:
                self._finish(begun)
                yield last
            begun, last = self._begin(tile, pool), stop
        self._finish(begun)
        yield last

    def _read(self, start: int, stop: int) -> _Tile:
        numbers = None if self.order is None else self.order[start:stop]
        rows, wrong = self._rows(start, stop, numbers), None
        ignored = None if self.ignored is None else self.ignored[slice(start, stop) if numbers is None else numbers]
        if ignored is not None and ignored.any():
            wrong = torch.from_numpy(ignored).to(rows.device)
            rows = rows.masked_fill(wrong[:, None], 1.0)  # they may be zero vectors, which `measure` refuses
        return _Tile(rows, self.others.measure(rows, start, numbers), wrong)

    def _rows(self, start: int, stop: int, numbers: NDArray[np.int64] | None) -> Tensor:
        if numbers is None:
            return self.others.raw(start, stop)
        values = self.others.values
        return values[torch.from_numpy(numbers).to(values.device)].to(self.others.device, torch.float32)

    def _begin(self, tile: _Tile, pool: Executor) -> list[Future[None]]:
        starts = range(0, len(self.photos), self.step)
        if self.photos.device.type == "cpu":
            return [pool.submit(self._score, tile, first) for first in starts]
        for first in starts:
            self._score(tile, first)
        return []

    def _finish(self, begun: list[Future[None]]) -> None:
        for work in begun:
            work.result()

    def _score(self, tile: _Tile, first: int) -> None:
        """Score a tile against some of the probes, in a buffer that no other thread uses."""
        queries, buffer = self.photos.unit(first, first + self.step), self.buffers.get()
        try:
            scores = buffer[: len(queries) * len(tile.rows)].view(len(queries), len(tile.rows))
            multiply(queries, tile.rows, scores)
            count = self._count if scores.device.type == "cpu" else self._count_on_device
            count(scores, tile, first)
        finally:
            self.buffers.put(buffer)

    def _count(self, scores: Tensor, tile: _Tile, first: int) -> None:
        table, divisors, bounds = scores.numpy(), tile.lengths.numpy(), self.pairs.bounds[first:]
        for block in blocks(*table.shape):
            similarities = table[block.start : block.stop] / divisors
            if tile.wrong is not None:
                similarities[:, tile.wrong.numpy()] = -np.inf
            self.highest.add(similarities.ravel())
            own = slice(bounds[block.start], bounds[block.stop])
            open_pairs = own.start + np.flatnonzero(self.above[own] < self.deepest)
            if len(open_pairs):
                rows = np.searchsorted(bounds, open_pairs, side="right") - 1 - block.start
                self.above[open_pairs] += count_above(similarities, self.pairs.scores[open_pairs], rows)[0]

    def _count_on_device(self, scores: Tensor, tile: _Tile, first: int) -> None:
        """The same counts, of all pairs."""
        scores = scores / tile.lengths
        if tile.wrong is not None:
            scores[:, tile.wrong] = -torch.inf
        self.highest.add(scores[scores > float(self.highest.least)].cpu().numpy())
        bounds = self.pairs.bounds[first : first + len(scores) + 1]
        own, rows = slice(bounds[0], bounds[-1]), np.repeat(np.arange(len(scores)), np.diff(bounds))
        self.above[own] += count_above_on_device(scores, self.pairs.scores[own], rows)[0]


class Highest:
    """The ``size`` highest of all scores added so far, by keeping up to twice as many."""

    def __init__(self, size: int) -> None:
        self.size, self.least = size, np.float32(-np.inf)  # nothing up to ``least`` can be among the highest
        self.kept: list[NDArray[np.float32]] = []
        self.count, self.lock = 0, threading.Lock()

    def add(self, scores: NDArray[np.float32]) -> None:
        """Take in scores; safe from several threads."""
        new = scores.compress(scores > self.least)
        if len(new):
            with self.lock:
                self.kept.append(new)
                self.count += len(new)
                if self.count > 2 * self.size:
                    self._shrink()

    def place(self, place: int) -> float:
        """The score at a 0-based place below ``size``, -inf if so many were not seen."""
        scores = np.concatenate([np.empty(0, dtype=np.float32), *self.kept])
        return float(-np.partition(-scores, place)[place]) if place < len(scores) else -np.inf

    def _shrink(self) -> None:
        scores = np.concatenate(self.kept)
        scores.partition(len(scores) - self.size)
        self.kept = [scores[len(scores) - self.size :].copy()]
        self.count, self.least = self.size, self.kept[0].min()


def tiles_of(scales: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges of distractors, broken at every scale."""
    edges = sorted({*range(0, scales[-1], TILE), *scales})
    return itertools.pairwise([0, *(edge for edge in edges if edge > 0)])
