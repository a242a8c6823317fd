"""Where the true matches of each query stand in its ranking, without sorting the ranking or keeping the scores."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_cckd.evaluation.rows import BLOCK, Codes, Rows, multiply

Progress = Callable[[int, int], None]  # queries done, queries in all

_SCORES = 24 * 2**20  # scores held at a time: 96 MiB
_FEWEST = 16  # queries in a chunk, however long the gallery
_MANY = 2000  # scores from which a histogram is cheaper than sorting
_BINS = 1024


@dataclass(frozen=True)
class Pairs:
    """Pairs (query, gallery item) of a chunk of queries, sorted by query: true matches, and junk to be left out."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    junk_rows: NDArray[np.int64]
    junk_columns: NDArray[np.int64]


class Relevance:
    """Which gallery items are true matches of a query (same id) and which of those are junk (same id and same tag).

    The tag is the camera in re-identification. Where query and gallery are one set it is the row's own number.
    """

    def __init__(
        self, query_ids: Codes, gallery_ids: Codes, query_tags: Codes | None = None, gallery_tags: Codes | None = None
    ) -> None:
        self.order = np.argsort(gallery_ids, kind="stable")
        grouped = gallery_ids[self.order]
        self.first = np.searchsorted(grouped, query_ids, side="left")
        self.counts = np.searchsorted(grouped, query_ids, side="right") - self.first
        self.query_tags, self.gallery_tags = query_tags, gallery_tags

    def pairs(self, start: int, stop: int) -> Pairs:
        """The pairs of queries start ... stop; rows count from ``start``, columns rise within a row."""
        counts = self.counts[start:stop]
        rows = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        columns = self.order[self.first[start:stop][rows] + within]
        if self.query_tags is None or self.gallery_tags is None:
            return Pairs(rows, columns, rows[:0], columns[:0])
        junk = self.query_tags[start:stop][rows] == self.gallery_tags[columns]
        return Pairs(rows[~junk], columns[~junk], rows[junk], columns[junk])


@dataclass(frozen=True)
class Positions:
    """0-based places of the true matches in each query's ranking, best first, junk not counted.

    Query q owns ``places[offsets[q]:offsets[q + 1]]``.
    """

    places: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """True matches of each query."""
        return np.diff(self.offsets)


def match_positions(
    chunks: Iterable[tuple[int, Tensor]],
    lengths: Tensor | None,
    relevance: Relevance,
    progress: Progress | None = None,
) -> Positions:
    """Rank every true match exactly, from scores that come a chunk of queries at a time and are overwritten.

    Items are ranked by descending score, each divided by its entry in ``lengths``; equal ones keep the gallery's order,
    as a stable sort does.
    """
    places, counts = [], []
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start, scores in chunks:
            pairs = relevance.pairs(start, start + len(scores))
            places.append(_places(scores, lengths, pairs, pool))
            counts.append(np.bincount(pairs.rows, minlength=len(scores)))
            if progress is not None:
                progress(start + len(scores), len(relevance.counts))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return Positions(np.concatenate(places), offsets)


def product_chunks(query: Rows, gallery: Rows, chunk: int | None = None) -> Iterator[tuple[int, Tensor]]:
    """(first query, (chunk, gallery) products of unit queries with gallery rows as they are) in turn.

    Divided by ``gallery.lengths`` they are cosine similarities: that spares a normalised copy of the gallery, and the
    consumer can do it on the way. The tensor is one buffer of ``chunk`` x gallery float32, overwritten each time.
    """
    size = min(chunk or chunk_size(len(gallery)), len(query))
    buffer = torch.empty(size, len(gallery), device=query.device)
    for start in range(0, len(query), size):
        rows = query.unit(start, start + size)
        products = buffer[: len(rows)]
        for a in range(0, len(gallery), BLOCK):
            items = gallery.raw(a, a + BLOCK)
            multiply(rows, items, products[:, a : a + len(items)])
        yield start, products


def chunk_size(gallery_size: int) -> int:
    """Queries scored together when the caller does not say."""
    return max(_FEWEST, _SCORES // gallery_size)


def _places(scores: Tensor, lengths: Tensor | None, pairs: Pairs, pool: ThreadPoolExecutor) -> NDArray[np.int64]:
    if scores.device.type != "cpu":
        return _places_on_device(scores if lengths is None else scores.div_(lengths), pairs)
    table = scores.numpy()
    table[pairs.junk_rows, pairs.junk_columns] = -np.inf
    bounds = np.searchsorted(pairs.rows, np.arange(len(table) + 1))
    places = np.empty(len(pairs.rows), dtype=np.int64)

    def rank(rows: range) -> None:
        divided = np.empty(table.shape[1], dtype=np.float32)  # one row at a time, in the core's own cache
        for row in rows:
            own = slice(bounds[row], bounds[row + 1])
            if own.start < own.stop:
                values = table[row] if lengths is None else np.divide(table[row], lengths.numpy(), out=divided)
                places[own] = _row_places(values, pairs.columns[own])

    list(pool.map(rank, shares(len(table), torch.get_num_threads())))
    return places


def shares(count: int, parts: int) -> list[range]:
    edges = np.linspace(0, count, parts + 1).astype(int)
    return [range(a, b) for a, b in itertools.pairwise(edges)]


def _row_places(row: NDArray[np.float32], columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of the items ``columns`` in the ranking of one query, whose scores are ``row``; best first."""
    wanted = row[columns]
    wanted.sort()
    above, equal = count_above(row, wanted)
    if equal.sum() > len(wanted):
        above, _ = count_above(row, row[columns])
        ties = [np.count_nonzero(row[:column] == row[column]) for column in columns]
        above = -np.sort(-(above + ties))
    return above[::-1]


def count_above(
    scores: NDArray[np.float32], thresholds: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many ``scores`` lie above each threshold, and how many equal it; both exact."""
    near, beyond = scores.compress(scores >= thresholds.min()), np.zeros(len(thresholds), dtype=np.int64)
    if len(near) > _MANY:
        near, beyond = _histogram(near, thresholds)
    near.sort()
    right = near.searchsorted(thresholds, side="right")
    return beyond + (len(near) - right), right - near.searchsorted(thresholds)


def _histogram(
    scores: NDArray[np.float32], thresholds: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores that share a bin with some threshold, and how many of the others lie above each threshold.

    No score may lie below all thresholds. Rounding may move a bin's edge, never the order of two bins, and whatever
    shares a bin with a threshold is compared exactly by the caller.
    """
    low = thresholds.min()
    scale = np.float32(_BINS) / max(scores.max() - low, np.float32(1e-30))
    bins = _bin(scores, low, scale)
    own = _bin(np.minimum(thresholds, scores.max()), low, scale)
    counts = np.bincount(bins, minlength=_BINS + 1)
    shared = np.zeros(len(counts), dtype=np.bool_)
    shared[own] = True
    counts[own] = 0
    beyond = counts[::-1].cumsum()[::-1]
    return scores.compress(shared.take(bins)), beyond[own]


def _bin(values: NDArray[np.float32], low: np.float32, scale: np.float32) -> NDArray[np.intp]:
    """Bins of equal width from ``low`` up."""
    shifted = values - low
    shifted *= scale
    bins: NDArray[np.intp] = shifted.astype(np.intp)
    return bins


def _places_on_device(scores: Tensor, pairs: Pairs) -> NDArray[np.int64]:
    """The same counts by sorting whole rows, which a GPU does faster than it walks through candidates."""
    rows, columns, junk_rows, junk_columns = (
        torch.from_numpy(x).to(scores.device) for x in (pairs.rows, pairs.columns, pairs.junk_rows, pairs.junk_columns)
    )
    scores[junk_rows, junk_columns] = -torch.inf
    wanted = scores[rows, columns]
    within = torch.arange(len(rows), device=scores.device) - torch.searchsorted(rows, rows)
    width = int(within.max()) + 1 if len(rows) else 0
    thresholds = torch.full((len(scores), width), torch.inf, device=scores.device)
    thresholds[rows, within] = wanted
    ordered = scores.sort(dim=1).values
    right = torch.searchsorted(ordered, thresholds, right=True)[rows, within]
    left = torch.searchsorted(ordered, thresholds)[rows, within]
    above = scores.shape[1] - right
    for tie in torch.nonzero(right - left > 1)[:, 0].tolist():
        above[tie] += (scores[rows[tie], : columns[tie]] == wanted[tie]).sum()
    places = above.cpu().numpy()
    return places[np.lexsort((places, pairs.rows))]
