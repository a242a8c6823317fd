"""k-reciprocal re-ranking, sparse: memory is (Q + G) x k, never (Q + G) x (Q + G)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_cckd.evaluation.counting import Floats, Ints
from reid_cckd.evaluation.products import Chunks, product_chunks
from reid_cckd.evaluation.rows import Rows
from reid_cckd.evaluation.search import search, search_chunk
from reid_cckd.evaluation.share import ALONE, Share

_BLOCK = 512  # rows whose neighbourhoods are worked out together
_NO_ENTRIES = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))

Entries = tuple[Ints, Ints, Floats]  # of a sparse matrix: row, column, value


@dataclass(frozen=True)
class Reranking:
    """Neighbours that define a neighbourhood, neighbours averaged over, and the weight of the original distance.

    Raises:
        ValueError: a neighbour count below 1, or a weight outside [0, 1].
    """

    k1: int = 20
    k2: int = 6
    weight: float = 0.3

    def __post_init__(self) -> None:
        if min(self.k1, self.k2) < 1 or not 0 <= self.weight <= 1:
            raise ValueError(f"k1 and k2 must be at least 1 and weight in [0, 1], is {self}")

    @property
    def depth(self) -> int:
        """Neighbours to look for, the row itself among them."""
        return max(self.k1 + 1, self.k2)


@dataclass(frozen=True)
class _Sparse:
    """Rows of a sparse matrix: row i holds ``values[bounds[i]:bounds[i + 1]]`` at those ``columns``, ascending."""

    bounds: Ints
    columns: Ints
    values: Floats

    @classmethod
    def of(cls, pieces: Iterable[Entries], part: range) -> _Sparse:
        """The rows of a part, from entries sorted by row and column."""
        rows, columns, values = (np.concatenate(column) for column in zip(_NO_ENTRIES, *pieces, strict=True))
        return cls(np.searchsorted(rows, np.arange(part.start, part.stop + 1)), columns, values)

    def whole(self, share: Share) -> _Sparse:
        """All rows, of which this process has those of its part."""
        counts = share.whole(np.diff(self.bounds))
        return _Sparse(np.append(0, np.cumsum(counts)), share.whole(self.columns), share.whole(self.values))

    def entries(self, rows: Ints) -> tuple[Ints, Ints]:
        """(which of ``rows``, place of the entry) of all entries of these rows, in turn."""
        counts = self.bounds[rows + 1] - self.bounds[rows]
        owners = np.repeat(np.arange(len(rows)), counts)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        return owners, self.bounds[rows][owners] + within

    def transposed(self, rows: slice, columns: int) -> _Sparse:
        """The transpose of these rows; its columns count from ``rows.start``."""
        own = slice(self.bounds[rows.start], self.bounds[rows.stop])
        owners = np.repeat(np.arange(rows.stop - rows.start), np.diff(self.bounds[rows.start : rows.stop + 1]))
        order = np.argsort(self.columns[own], kind="stable")
        return _Sparse.of([(self.columns[own][order], owners[order], self.values[own][order])], range(columns))


def reranked_chunks(
    query: Rows,
    gallery: Rows,
    options: Reranking,
    pool: Executor,
    chunk: int,
    share: Share = ALONE,
) -> Chunks:
    """(queries, what gives their (chunk, G) scores on the CPU, higher is closer) in turn, as `product_chunks` does.

    ``share``: processes that all have these rows work out their parts of the neighbourhoods, and each gives the scores
    of its part of the queries.

    A score is minus the weighted sum of the Jaccard distance of neighbourhoods and the squared Euclidean distance of
    unit rows, the latter divided by its largest value in the query's row over queries and gallery.

    Source: Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017, eq. 12.
    """
    everything = _Both(query, gallery)
    part = share.part(len(everything), _BLOCK)
    nearest, farthest = _neighbours(everything, options.depth, pool, share)
    encoded = _encode(everything, nearest[:, : options.k1 + 1], farthest, options.k1, part).whole(share)
    features = _average(encoded, nearest[:, : options.k2], part).whole(share)
    columns = features.transposed(slice(len(query), len(everything)), len(everything))

    def reranked(own: range, products: Callable[[], Tensor]) -> Tensor:
        scores = products().div_(gallery.lengths).cpu().numpy()
        scores -= 1  # minus half the squared distance
        scores *= 2 * options.weight / farthest[own.start : own.stop, None]
        scores -= 1 - options.weight
        for row in range(len(scores)):
            items, common = _overlap(features, columns, own.start + row, len(gallery))
            scores[row, items] += (1 - options.weight) * (common / (2 - common))
        return torch.from_numpy(scores)

    for own, products in product_chunks(query, gallery, chunk, pool, share.part(len(query), chunk)):
        yield own, functools.partial(reranked, own, products)


class _Both:
    """Queries and gallery as one set of unit rows, left where they are."""

    def __init__(self, query: Rows, gallery: Rows) -> None:
        self.query, self.gallery = query, gallery
        self.device = query.device

    def __len__(self) -> int:
        return len(self.query) + len(self.gallery)

    def take(self, index: Ints) -> Tensor:
        """Unit rows by number."""
        rows = torch.empty(len(index), self.query.width, device=self.query.device)
        is_query = index < len(self.query)
        for part, numbers, mask in (
            (self.query, index[is_query], is_query),
            (self.gallery, index[~is_query] - len(self.query), ~is_query),
        ):
            rows[torch.from_numpy(mask).to(rows.device)] = part.take(numbers)
        return rows

    def unit(self, start: int, stop: int) -> Tensor:
        """Unit rows in turn, queries first."""
        border = len(self.query)
        parts = [self.query.unit(start, min(stop, border))] if start < border else []
        return torch.cat([*parts, self.gallery.unit(max(start - border, 0), stop - border)] if stop > border else parts)

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(first row, rows as they are, their lengths), block by block, queries first."""
        yield from self.query.blocks()
        yield from ((len(self.query) + start, rows, lengths) for start, rows, lengths in self.gallery.blocks())


def _neighbours(everything: _Both, depth: int, pool: Executor, share: Share) -> tuple[Ints, Floats]:
    """(N, depth) the nearest of each row, itself among them, and (N,) its largest squared distance to any."""
    count = len(everything)
    part = share.part(count, search_chunk(count))
    found = search(everything, everything, min(depth, count), part, pool, lowest=True)
    return share.whole(found.indices), np.maximum(2 - 2 * share.whole(found.lowest), np.float32(1e-12))


def _reciprocal(nearest: Ints, k: int) -> NDArray[np.bool_]:
    """(N, k) whether row i is also among the k nearest of its own neighbour."""
    parts = []
    for start in range(0, len(nearest), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(nearest)))
        parts.append((nearest[nearest[rows, :k], :k] == rows[:, None, None]).any(axis=2))
    return np.concatenate(parts)


def _encode(everything: _Both, nearest: Ints, farthest: Floats, k1: int, part: range) -> _Sparse:
    """The expanded set of k-reciprocal neighbours of each row of a part, weighted by closeness to a sum of 1."""
    half = min(int(np.around(k1 / 2)) + 1, nearest.shape[1])
    mutual, close = _reciprocal(nearest, nearest.shape[1]), _reciprocal(nearest, half)

    def encoded(block: slice) -> Entries:
        own, member = _expand(nearest, mutual, close, block, half)
        rows = own + block.start
        similarity = (everything.take(rows) * everything.take(member)).sum(dim=1).cpu().numpy()
        closeness = np.exp(-(2 - 2 * similarity) / farthest[rows])
        total = np.bincount(own, weights=closeness, minlength=block.stop - block.start)
        return rows, member, (closeness / total[own]).astype(np.float32)

    return _Sparse.of(map(encoded, _blocks(part)), part)


def _blocks(part: range) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, part.stop)) for start in range(part.start, part.stop, _BLOCK))


def _expand(
    nearest: Ints, mutual: NDArray[np.bool_], close: NDArray[np.bool_], block: slice, half: int
) -> tuple[Ints, Ints]:
    """(row of the block, member) pairs, sorted: reciprocal neighbours, and theirs where two thirds are shared."""
    members = np.where(mutual[block], nearest[block], -1)  # (B, k)
    candidates = np.where(close[members], nearest[members, :half], -2)  # (B, k, half); -2 matches nothing
    candidates[members < 0] = -2
    shared = (candidates[..., None] == members[:, None, None, :]).any(axis=3).sum(axis=2)
    accepted = shared > 2 / 3 * (candidates >= 0).sum(axis=2)
    candidates[~accepted] = -2
    together = np.concatenate([members, candidates.reshape(len(members), -1)], axis=1)
    rows, places = np.nonzero(together >= 0)
    pairs = np.unique(rows * np.int64(len(nearest)) + together[rows, places])
    return np.divmod(pairs, len(nearest))


def _average(features: _Sparse, nearest: Ints, part: range) -> _Sparse:
    """Local query expansion: each row of a part becomes the mean of its nearest rows."""
    count, k2 = nearest.shape

    def averaged(block: slice) -> Entries:
        owners, places = features.entries(nearest[block].reshape(-1))
        keys = (owners // k2) * np.int64(count) + features.columns[places]
        pairs, inverse = np.unique(keys, return_inverse=True)
        own, member = np.divmod(pairs, count)
        means = np.bincount(inverse, weights=features.values[places]) / k2
        return own + block.start, member, means.astype(np.float32)

    return _Sparse.of(map(averaged, _blocks(part)), part)


def _overlap(features: _Sparse, columns: _Sparse, row: int, items: int) -> tuple[Ints, Floats]:
    """Gallery items that share a neighbour with a row, and the sum over neighbours of the smaller weight."""
    own = slice(features.bounds[row], features.bounds[row + 1])
    owners, places = columns.entries(features.columns[own])
    smaller = np.minimum(features.values[own][owners], columns.values[places])
    sums = np.bincount(columns.columns[places], weights=smaller, minlength=items)
    found = np.flatnonzero(sums)
    return found, sums[found].astype(np.float32)
