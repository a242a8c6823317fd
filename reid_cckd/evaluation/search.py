"""The k most similar items of each row, exactly: block by block, many rows at a time, nothing of size N x G kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from reid_cckd.evaluation import coarse
from reid_cckd.evaluation.counting import Floats, Ints, keys_of
from reid_cckd.evaluation.products import chunk_size, multiply, products_of, spread
from reid_cckd.evaluation.rows import BLOCK
from reid_cckd.scratch import empty

Pairs = tuple[Ints, Ints]
Junk = Callable[[int, int], Pairs]  # pairs (row, item) of rows start ... stop that do not count; rows from start

_ROWS = 1024  # at most that one thread searches for at a time
_NO_PAIRS = (np.empty(0, np.int64), np.empty(0, np.int64))
_NO_SCORES = np.empty(0, np.float32)


class Set(Protocol):
    """Embeddings that are read piece by piece: `Rows`, or several after one another."""

    @property
    def device(self) -> torch.device: ...
    def __len__(self) -> int: ...
    def unit(self, start: int, stop: int) -> Tensor: ...
    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor]]: ...


@dataclass(frozen=True)
class Found:
    """(N, k) items, best first, and cosine similarities; where there are fewer than k, -1 and -inf.

    ``lowest``: (N,) the lowest similarity of each row to any item, if it was asked for.
    """

    indices: Ints
    scores: Floats
    lowest: Floats


def search(
    rows: Set,
    items: Set,
    k: int,
    part: range,
    pool: Executor,
    junk: Junk | None = None,
    lowest: bool = False,
    chunk: int | None = None,
) -> Found:
    """The ``k`` nearest of ``items`` for each of ``part`` of the rows; of equal ones the earlier item comes first.

    ``chunk``: rows that are searched for together, on the CPU by one thread.
    """
    size = chunk or search_chunk(len(rows))
    if rows.device.type != "cpu":
        size = min(size, chunk_size(len(rows), len(items)))
    starts = [range(start, min(start + size, part.stop)) for start in range(part.start, part.stop, size)]

    def work(own: range) -> Found:
        left = rows.unit(own.start, own.stop)
        pairs = junk(own.start, own.stop) if junk else _NO_PAIRS
        return (_search if rows.device.type == "cpu" else search_on_device)(left, items, k, pairs, lowest)

    nothing = _Best(0, k).found(_NO_SCORES)  # of several processes one may have no rows
    found = [nothing, *spread(work, starts, rows.device, pool)]
    columns = zip(*((one.indices, one.scores, one.lowest) for one in found), strict=True)
    return Found(*(np.concatenate(parts) for parts in columns))


def search_chunk(count: int) -> int:
    """Rows searched for together, of so many, when the caller does not say: as many for each of four threads."""
    return math.ceil(max(count, 1) / (4 * math.ceil(max(count, 1) / (4 * _ROWS))))


def search_on_device(left: Tensor, items: Set, k: int, junk: Pairs, lowest: bool) -> Found:
    """By all products at once; `topk` finds the scores, a stable sort of what reaches them settles ties."""
    scores = torch.empty(len(left), len(items), device=left.device)
    for start, block, lengths in items.blocks():
        products = scores[:, start : start + len(block)]
        multiply(left, block, products)
        products /= lengths
    least = scores.min(dim=1).values.cpu().numpy() if lowest else _NO_SCORES
    scores[tuple(torch.from_numpy(x).to(scores.device) for x in junk)] = -torch.inf
    bound = scores.topk(min(k, len(items)), dim=1).values[:, -1:]
    places = torch.nonzero((scores >= bound) & (scores > -torch.inf), as_tuple=True)
    rows, columns = (place.cpu().numpy() for place in places)
    best = _Best(len(left), k)
    best.add(rows, columns, scores[places].cpu().numpy())
    return best.found(least)


def _search(left: Tensor, items: Set, k: int, junk: Pairs, lowest: bool) -> Found:
    best, least = _Best(len(left), k), np.full(len(left) * lowest, np.inf, dtype=np.float32)
    halves = coarse.halve(left) if coarse.available() and not lowest else None
    buffer = empty(len(left) * min(BLOCK, len(items)), left.device)
    for start, block, lengths in items.blocks():
        own = _within(junk, start, len(block))
        near = None if halves is None else coarse.reaching(halves, coarse.halve(block, lengths), best.least)
        if near is not None:
            rows, columns = _without(near, own, len(block))
        else:
            scores = _all(left, block, lengths, buffer)
            if lowest:
                np.minimum(least, scores.min(axis=1), out=least)
            scores[own] = -np.inf
            rows, columns = _candidates(scores, best.least, k, (left.shape[1] + 2) * np.float32(2**-23))
        # one by one, so that they depend on the two rows alone and those of equal rows are equal
        similarities = products_of(left, block, rows, columns) / lengths.numpy()[columns]
        best.add(rows, start + columns, similarities)
    return best.found(least)


def _all(left: Tensor, block: Tensor, lengths: Tensor, buffer: Tensor) -> Floats:
    products = buffer[: len(left) * len(block)].view(len(left), len(block))
    multiply(left, block, products)
    scores: Floats = products.numpy()
    scores /= lengths.numpy()
    return scores


def _candidates(scores: Floats, least: Floats, k: int, rounding: np.float32) -> Pairs:
    """Pairs that may be among the k best and above ``least`` by scores that differ from these by up to ``rounding``."""
    above = scores > (least - rounding)[:, None]
    if np.count_nonzero(above) > 2 * k * len(scores):  # of a block too only its own k best matter
        kth = max(scores.shape[1] - k, 0)
        least = np.maximum(least, np.partition(scores, kth, axis=1)[:, kth] - rounding)
        above = scores > (least - rounding)[:, None]
    return np.divmod(np.flatnonzero(above), scores.shape[1])


def _within(pairs: Pairs, start: int, count: int) -> Pairs:
    """Those of a block of items, counted from its start."""
    rows, columns = pairs
    inside = (columns >= start) & (columns < start + count)
    return rows[inside], columns[inside] - start


def _without(pairs: Pairs, junk: Pairs, count: int) -> Pairs:
    keep = ~np.isin(pairs[0] * count + pairs[1], junk[0] * count + junk[1])
    return pairs[0][keep], pairs[1][keep]


class _Best:
    """The k best of each row among the items seen so far, which come in their order."""

    def __init__(self, rows: int, k: int) -> None:
        self.k, self.least = k, np.full(rows, -np.inf, dtype=np.float32)  # nothing up to ``least`` is of use
        self.kept = [(*_NO_PAIRS, _NO_SCORES)]
        self.waiting = 0

    def add(self, rows: Ints, columns: Ints, scores: Floats) -> None:
        """Take in items that come after all before; they are sorted out once there are k for each row."""
        better = scores > self.least[rows]
        self.kept.append((rows[better], columns[better], scores[better]))
        self.waiting += int(np.count_nonzero(better))
        if self.waiting >= self.k * len(self.least):
            self._settle()

    def found(self, lowest: Floats) -> Found:
        """All that is kept, as a table."""
        self._settle()
        ((rows, columns, scores),) = self.kept
        places = _places(rows)
        shape = len(self.least), self.k
        indices, values = np.full(shape, -1), np.full(shape, -np.inf, dtype=np.float32)
        indices[rows, places], values[rows, places] = columns, scores
        return Found(indices, values, lowest)

    def _settle(self) -> None:
        rows, columns, scores = (np.concatenate(parts) for parts in zip(*self.kept, strict=True))
        order = np.argsort(keys_of(-scores, rows), kind="stable")
        places = _places(rows[order])
        order, places = order[places < self.k], places[places < self.k]
        self.kept, self.waiting = [(rows[order], columns[order], scores[order])], 0
        last = places == self.k - 1
        self.least[rows[order][last]] = scores[order][last]


def _places(rows: Ints) -> Ints:
    """The place of each entry among those of its row; ``rows`` are sorted."""
    return np.arange(len(rows)) - np.searchsorted(rows, rows)
