"""One pass over the distractors: how many score above each mate, and the highest impostor scores."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_cckd.evaluation import coarse
from reid_cckd.evaluation.counting import Floats, Ints, blocks, count_above, count_above_on_device, count_among
from reid_cckd.evaluation.products import multiply, products_of, spread
from reid_cckd.evaluation.rows import Rows
from reid_cckd.scratch import empty

TILE = 24_000  # distractors scored together; rows of scores a power of two apart would share cache lines
_PROBES = 1024  # scored by a thread at a time
_SCORES = 24 * 2**20  # scores held by up to four threads: 96 MiB; more threads hold as much each


@dataclass(frozen=True)
class MatePairs:
    """Similarities of ordered pairs (probe, mate): those of probe p are ``bounds[p]:bounds[p + 1]``."""

    scores: Floats
    bounds: Ints


def scores_held(threads: int | None = None) -> int:
    """Scores that all threads together hold at a time."""
    threads = threads or torch.get_num_threads()
    return threads * max(_SCORES // threads, _SCORES // 4)


@dataclass(frozen=True)
class _Tile:
    """Distractors as they are, their lengths, which of them are ignored, and unit rows where they are of use."""

    rows: Tensor
    lengths: Tensor
    wrong: Tensor | None
    halves: Tensor | None


class Pass:
    """One pass over the distractors: for each pair how many score above it, and the highest impostor scores.

    A pair beaten ``deepest`` times is settled, its count no longer exact: as the pass goes on only good pairs are left,
    above which few distractors lie. Where `coarse` products can tell which those are, only these are scored exactly.
    """

    def __init__(
        self,
        photos: Rows,
        others: Rows,
        ignored: NDArray[np.bool_] | None,
        order: Ints | None,
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
        self.most = max(1, scores_held(threads) // threads // TILE)  # probes that a buffer has room for
        self.step = math.ceil(len(photos) / (threads * math.ceil(len(photos) / _PROBES / threads)))
        coarsely = photos.device.type == "cpu" and coarse.available()
        self.halves = coarse.halve(photos.raw(0, len(photos)), photos.lengths) if coarsely else None

    def over(self, tiles: Sequence[tuple[int, int]], pool: Executor) -> Iterator[int]:
        """Score tile after tile, and give the end of each once it is counted; meanwhile the next one is read."""
        coming = pool.submit(self._read, *tiles[0])
        for (_, stop), following in zip(tiles, [*tiles[1:], None], strict=True):
            tile = coming.result()
            if following is not None:
                coming = pool.submit(self._read, *following)
            self._score_tile(tile, pool)
            yield stop

    def _read(self, start: int, stop: int) -> _Tile:
        numbers = None if self.order is None else self.order[start:stop]
        rows, wrong = self.others.raw(start, stop) if numbers is None else self.others.gather(numbers), None
        ignored = None if self.ignored is None else self.ignored[slice(start, stop) if numbers is None else numbers]
        if ignored is not None and ignored.any():
            wrong = torch.from_numpy(ignored).to(rows.device)
            rows = rows.masked_fill(wrong[:, None], 1.0)  # they may be zero vectors, which `measure` refuses
        lengths = self.others.measure(rows, start, numbers)
        return _Tile(rows, lengths, wrong, None if self.halves is None else coarse.halve(rows, lengths))

    def _score_tile(self, tile: _Tile, pool: Executor) -> None:
        starts = range(0, len(self.photos), self.step)
        for _ in spread(lambda first: self._score(tile, first), starts, self.photos.device, pool):
            pass

    def _score(self, tile: _Tile, first: int) -> None:
        """Score a tile against some of the probes."""
        last = min(first + self.step, len(self.photos))
        near = self._near(tile, first, last)
        if near is not None:
            self._score_near(tile, first, last, *near)
        else:
            for start in range(first, last, self.most):
                self._score_all(tile, start, min(start + self.most, last))

    def _near(self, tile: _Tile, first: int, last: int) -> tuple[Ints, Ints] | None:
        """Pairs (probe, distractor) whose scores may matter, or None if it is not known which do."""
        if self.halves is None or tile.halves is None:
            return None
        least = np.full(last - first, self.highest.least)
        pairs, rows = self._open_pairs(first, last)
        np.minimum.at(least, rows, self.pairs.scores[pairs])
        near = coarse.reaching(self.halves[first:last], tile.halves, least)
        if near is None or tile.wrong is None:
            return near
        counts = ~tile.wrong.numpy()[near[1]]
        return near[0][counts], near[1][counts]

    def _open_pairs(self, first: int, last: int) -> tuple[Ints, Ints]:
        """Pairs of these probes that are not settled, and of which probe each is, counted from ``first``."""
        bounds = self.pairs.bounds[first : last + 1]
        pairs = bounds[0] + np.flatnonzero(self.above[bounds[0] : bounds[-1]] < self.deepest)
        return pairs, np.searchsorted(bounds, pairs, side="right") - 1

    def _score_near(self, tile: _Tile, first: int, last: int, rows: Ints, columns: Ints) -> None:
        scores = products_of(self.photos.unit(first, last), tile.rows, rows, columns)
        scores /= tile.lengths.numpy()[columns]
        self.highest.add(scores)
        pairs, owners = self._open_pairs(first, last)
        self.above[pairs] += count_among(scores, rows, self.pairs.scores[pairs], owners, last - first)[0]

    def _score_all(self, tile: _Tile, first: int, last: int) -> None:
        """Score a tile in a buffer that no other thread uses."""
        queries, buffer = self.photos.unit(first, last), self.buffers.get()
        try:
            scores = buffer[: len(queries) * len(tile.rows)].view(len(queries), len(tile.rows))
            multiply(queries, tile.rows, scores)
            count = self._count if scores.device.type == "cpu" else self._count_on_device
            count(scores, tile, first)
        finally:
            self.buffers.put(buffer)

    def _count(self, scores: Tensor, tile: _Tile, first: int) -> None:
        table, divisors = scores.numpy(), tile.lengths.numpy()
        for block in blocks(*table.shape):
            similarities = table[block.start : block.stop] / divisors
            if tile.wrong is not None:
                similarities[:, tile.wrong.numpy()] = -np.inf
            self.highest.add(similarities.ravel())
            pairs, rows = self._open_pairs(first + block.start, first + block.stop)
            if len(pairs):
                self.above[pairs] += count_above(similarities, self.pairs.scores[pairs], rows)[0]

    def _count_on_device(self, scores: Tensor, tile: _Tile, first: int) -> None:
        """The same in place, all at once."""
        scores /= tile.lengths
        if tile.wrong is not None:
            scores.masked_fill_(tile.wrong, -torch.inf)
        best = scores[scores > float(self.highest.least)]
        if len(best) > self.highest.size:  # as at first, when little is known
            best = best.topk(self.highest.size, sorted=False).values
        self.highest.add(best.cpu().numpy())
        pairs, rows = self._open_pairs(first, first + len(scores))
        if len(pairs):
            self.above[pairs] += count_above_on_device(scores, self.pairs.scores[pairs], rows)[0]


class Highest:
    """The ``size`` highest of all scores added so far, by keeping up to twice as many."""

    def __init__(self, size: int) -> None:
        self.size, self.least = size, np.float32(-np.inf)  # nothing up to ``least`` can be among the highest
        self.kept: list[Floats] = []
        self.count, self.lock = 0, threading.Lock()

    def add(self, scores: Floats) -> None:
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


def tiles_of(scales: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges of distractors, broken at every scale."""
    edges = sorted({*range(0, scales[-1], TILE), *scales})
    return list(itertools.pairwise([0, *(edge for edge in edges if edge > 0)]))
