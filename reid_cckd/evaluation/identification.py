"""Identification among distractors: the MegaFace protocol in one pass over the distractors."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_cckd.evaluation.counting import blocks, count_above, count_above_on_device
from reid_cckd.evaluation.products import empty, multiply, workers
from reid_cckd.evaluation.ranking import Progress
from reid_cckd.evaluation.rows import Embeddings, Ids, Rows, choose_device, codes_of, exact_float32, same_length

_TILE = 24_000  # distractors scored together; rows of scores a power of two apart would share cache lines
_SCORES = 24 * 2**20  # scores held by up to four threads: 96 MiB; more threads hold as much each


@dataclass(frozen=True)
class IdentificationResult:
    """``rate[scale][rank]`` and ``tpr[scale][fpr]`` are fractions; ``above[scale]`` has an entry per ordered pair."""

    rate: dict[int, dict[int, float]]
    tpr: dict[int, dict[float, float]]
    above: dict[int, NDArray[np.int64]]  # distractors that score above the mate, counted up to the highest rank
    num_probes: int
    num_pairs: int
    num_ignored: dict[int, int]  # distractors of each scale that were ignored

    def summary(self) -> list[dict[str, Any]]:
        """One row per scale, ready for a table or JSON."""
        return [
            {
                "distractors": scale,
                **{f"rank{rank}": value for rank, value in self.rate[scale].items()},
                **{f"tpr@{fpr:g}": value for fpr, value in self.tpr[scale].items()},
                "ignored": self.num_ignored[scale],
            }
            for scale in self.rate
        ]


@dataclass(frozen=True)
class _Pairs:
    """Similarities of ordered pairs (probe, mate): those of probe p are ``bounds[p]:bounds[p + 1]``."""

    scores: NDArray[np.float32]
    bounds: NDArray[np.int64]


def evaluate_identification(
    probes: Embeddings,
    probe_ids: Ids,
    distractors: Embeddings,
    scales: Sequence[int] = (10, 100, 1_000),
    ranks: Sequence[int] = (1, 10),
    fprs: Sequence[float] = (1e-6, 1e-5, 1e-4),
    *,
    ignored: NDArray[np.bool_] | None = None,
    order: NDArray[np.int64] | None = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> IdentificationResult:
    """Find each photo (P, D) of a person by each other photo of that person among the first N distractors (M, D).

    For every ordered pair of photos of one person, one is the probe and the other joins the N distractors. It is a hit
    at rank r when fewer than r distractors score above the mate; a tie is a hit, as in public evaluators. ``tpr`` is
    the share of pairs whose score exceeds every impostor score but the highest floor(fpr x P x N); impostors are all
    probes against the N distractors.

    ``ignored``: (M,) true for distractors known to be wrong; they count in N and never score above anything.
    ``order``: the rows of ``distractors`` that count, in the order in which they do; by default all, as they come.

    The distractors are read once, in order, for all scales, ranks and rates; 96 MiB of scores are held by up to four
    threads, and 8 bytes per impostor score above the highest of ``fprs``. ``progress(done, total)`` counts distractors.

    Raises:
        ValueError: no person with two photos, fewer distractors than a scale, different widths or lengths, a row that
            is zero or not finite (with its number), ranks below 1, rates outside (0, 1). TypeError: a wrong type.

    Source: Kemelmacher-Shlizerman et al., The MegaFace Benchmark, CVPR 2016.
    """
    place = choose_device(device, distractors, probes)
    photos, others = Rows(probes, "probes", place), Rows(distractors, "distractors", place, measure=False)
    scales = sorted({int(scale) for scale in scales})
    _check(photos, others, probe_ids, scales, ranks, fprs, ignored, order)
    with exact_float32(place), workers() as pool:
        pairs = _mates(photos, codes_of(probe_ids, "probe_ids"))
        highest = _Highest(_accepted(max(fprs, default=0), len(photos) * scales[-1]) + 1)
        run = _Pass(photos, others, ignored, order, pairs, max(ranks), highest)
        above, tpr = {}, {}
        for stop in run.over(_tiles(scales), pool):
            if progress is not None:
                progress(stop, scales[-1])
            if stop in scales:
                above[stop] = np.minimum(run.above, max(ranks))
                accepted = {fpr: _accepted(fpr, len(photos) * stop) for fpr in fprs}
                tpr[stop] = {f: float(np.mean(pairs.scores > highest.place(n))) for f, n in accepted.items()}
    counted = np.arange(scales[-1]) if order is None else order
    skipped = np.zeros(len(counted)) if ignored is None else np.cumsum(ignored[counted])
    return IdentificationResult(
        rate={scale: {int(r): float(np.mean(above[scale] < r)) for r in ranks} for scale in scales},
        tpr=tpr,
        above=above,
        num_probes=len(photos),
        num_pairs=len(pairs.scores),
        num_ignored={scale: int(skipped[scale - 1]) for scale in scales},
    )


def _mates(photos: Rows, ids: NDArray[np.int64]) -> _Pairs:
    """Similarities of all ordered pairs of one person, computed as those to the distractors are."""
    mates: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(ids)
    order = np.argsort(ids, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(ids[order])) + 1):
        index = torch.from_numpy(group)
        rows = photos.values[index.to(photos.values.device)].to(photos.device, torch.float32)
        lengths = photos.lengths[index.to(photos.device)]
        scores = ((rows / lengths[:, None]) @ rows.T / lengths).cpu().numpy()
        for row, probe in enumerate(group):
            mates[probe] = np.delete(scores[row], row)
    counts = np.array([len(values) for values in mates])
    if not counts.any():
        raise ValueError("probe_ids: no person has two photos, so there is no pair to find")
    bounds = np.concatenate([[0], np.cumsum(counts)])
    return _Pairs(np.concatenate(mates), bounds)


def _tiles(scales: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges of distractors, broken at every scale."""
    edges = sorted({*range(0, scales[-1], _TILE), *scales})
    return itertools.pairwise([0, *(edge for edge in edges if edge > 0)])


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


class _Pass:
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
        pairs: _Pairs,
        deepest: int,
        highest: _Highest,
    ) -> None:
        self.photos, self.others, self.pairs = photos, others, pairs
        self.ignored, self.order = ignored, order
        self.deepest, self.highest = deepest, highest
        self.above = np.zeros(len(pairs.scores), dtype=np.int64)
        threads = torch.get_num_threads() if photos.device.type == "cpu" else 1
        self.buffers: SimpleQueue[Tensor] = SimpleQueue()
        for _ in range(threads):
            self.buffers.put(empty(scores_held(threads) // threads, photos.device))
        most = max(1, scores_held(threads) // threads // _TILE)
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


class _Highest:
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


def _accepted(fpr: float, impostors: int) -> int:
    """How many impostors a rate accepts; the hair's breadth keeps 1e-6 of a million at 1."""
    return int(fpr * impostors * (1 + 1e-12))


def _check(
    photos: Rows,
    others: Rows,
    probe_ids: Ids,
    scales: Sequence[int],
    ranks: Sequence[int],
    fprs: Sequence[float],
    ignored: NDArray[np.bool_] | None,
    order: NDArray[np.int64] | None,
) -> None:
    same_length(probes=photos, probe_ids=probe_ids)
    same_length(distractors=others, ignored=ignored)
    if photos.width != others.width:
        raise ValueError(f"probes has {photos.width} columns and distractors has {others.width}")
    if len(photos) == 0:
        raise ValueError("probes is empty")
    if not scales or scales[0] < 1:
        raise ValueError(f"scales must be whole numbers from 1 up, are {list(scales)}")
    count = len(others) if order is None else len(order)
    if scales[-1] > count:
        raise ValueError(f"scales: {scales[-1]} distractors are wanted and there are {count}")
    if order is not None and count and (order.min() < 0 or order.max() >= len(others)):
        raise ValueError(f"order must be rows in 0 ... {len(others) - 1}, goes from {order.min()} to {order.max()}")
    if not len(ranks) or min(ranks) < 1:
        raise ValueError(f"ranks must be whole numbers from 1 up, are {list(ranks)}")
    if any(not 0 < fpr < 1 for fpr in fprs):
        raise ValueError(f"fprs must lie between 0 and 1, are {list(fprs)}")
