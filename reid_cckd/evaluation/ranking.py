"""Where the true matches of each query stand in its ranking, without sorting the ranking or keeping the scores."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_cckd.evaluation.counting import Floats, Ints, Matches, count_ahead, count_ahead_on_device, over_blocks
from reid_cckd.evaluation.products import Chunks
from reid_cckd.evaluation.rows import Codes
from reid_cckd.evaluation.share import Share

Progress = Callable[[int, int], None]  # queries done, queries in all
Add = Callable[[Tensor], object]
Waiting = Callable[[], NDArray[np.int64]]
Places = tuple[Ints, Ints]  # rows and columns of a chunk

_NONE = np.empty(0, np.int64)


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

    @classmethod
    def of(cls, places: NDArray[np.int64], counts: NDArray[np.int64]) -> Positions:
        """From how many places each query has."""
        return cls(places, np.append(0, np.cumsum(counts)))

    @property
    def counts(self) -> NDArray[np.int64]:
        """True matches of each query."""
        return np.diff(self.offsets)

    def whole(self, share: Share) -> Positions:
        """Those of all queries, of which this process has a part."""
        return Positions.of(share.whole(self.places), share.whole(self.counts))


def match_positions(
    chunks: Chunks,
    lengths: Tensor,
    relevance: Relevance,
    pool: Executor,
    progress: Progress | None = None,
    part: range | None = None,
    add: Add = lambda values: values,
    queries: range | None = None,
) -> Positions:
    """Rank every true match exactly, from scores that come a chunk of queries at a time.

    A chunk is overwritten here, and counted by ``pool``, or the device, after it has multiplied the next one, while the
    true matches of that one are looked up: it must stay until the next but one is asked for. Items are ranked by
    descending score, each divided by its entry in ``lengths``; equal ones keep the gallery's order, as a stable sort
    does.

    Where the scores are those of a ``part`` of the gallery, ``add`` sums a tensor (of the CPU) over all parts in place:
    of a chunk the scores of the true matches are exchanged and how many items of each part lie above them. Where the
    chunks are of some ``queries`` only, so are the positions.
    """
    queries = range(len(relevance.counts)) if queries is None else queries
    part = range(len(relevance.order)) if part is None else part
    places, counts = [_NONE], [_NONE]  # of several processes one may have no queries
    count: Callable[[], Waiting] | None = None
    for own, make in chunks:
        pairs = relevance.pairs(own.start, own.stop)  # while the chunk is multiplied
        waiting = None if count is None else count()
        counts.append(np.bincount(pairs.rows, minlength=len(own)))
        scores = make()
        matches = _find(scores, lengths, pairs, part, add)
        if waiting is not None:
            places.append(waiting())
        count = functools.partial(_begin, scores, lengths, matches, add, pool)
        if progress is not None:
            progress(own.stop - queries.start, len(queries))
    if count is not None:
        places.append(count()())
    return Positions.of(np.concatenate(places), np.concatenate(counts))


def _find(scores: Tensor, lengths: Tensor, pairs: Pairs, part: range, add: Add) -> Matches:
    """The true matches of a chunk with their scores; junk is put at the end of the ranking."""
    junk = _inside(pairs.junk_columns, part)
    rows, columns, held = pairs.rows, pairs.columns - part.start, _inside(pairs.columns, part)
    look = _look if scores.device.type == "cpu" else _look_on_device
    ignored = pairs.junk_rows[junk], pairs.junk_columns[junk] - part.start
    wanted = np.zeros(len(rows), dtype=np.float32)
    wanted[held] = look(scores, lengths, ignored, (rows[held], columns[held]))
    return Matches(rows, columns, held, _added(wanted, add))  # each lies in one part: this adds zeros


def _look(scores: Tensor, lengths: Tensor, junk: Places, wanted: Places) -> Floats:
    """The wanted scores, and -inf for junk; by numpy, whose small steps leave no threads behind that wait for more."""
    table, divisors = scores.numpy(), lengths.numpy()
    table[junk] = -np.inf
    found: Floats = table[wanted] / divisors[wanted[1]]
    return found


def _look_on_device(scores: Tensor, lengths: Tensor, junk: Places, wanted: Places) -> Floats:
    """The same of scores on a device, which are divided there once for all."""
    every = scores.div_(lengths).view(-1)
    out, own = (torch.from_numpy(rows * len(lengths) + columns).to(every.device) for rows, columns in (junk, wanted))
    found: Floats = every.index_fill_(0, out, -torch.inf)[own].cpu().numpy()
    return found


def _begin(scores: Tensor, lengths: Tensor, matches: Matches, add: Add, pool: Executor) -> Waiting:
    """Begin to rank the true matches of a chunk; what is returned waits for their places."""
    counted = _ahead(scores, lengths, matches, pool)

    def places() -> NDArray[np.int64]:
        ahead = _added(np.concatenate(list(counted)), add)
        beginnings = matches.rows * (ahead.max(initial=0) + 1)
        best_first: NDArray[np.int64] = np.sort(beginnings + ahead) - beginnings  # within a query
        return best_first

    return places


def _added(values: NDArray[Any], add: Add) -> NDArray[Any]:
    """Summed over all parts of the gallery, in place."""
    add(torch.from_numpy(values))
    return values


def _inside(columns: NDArray[np.int64], part: range) -> NDArray[np.bool_]:
    return (columns >= part.start) & (columns < part.stop)


def _ahead(scores: Tensor, lengths: Tensor, matches: Matches, pool: Executor) -> Iterable[NDArray[np.int64]]:
    """How many items of this part stand before each true match, in pieces."""
    if scores.device.type != "cpu":
        return [count_ahead_on_device(scores, matches)]
    table, divisors = scores.numpy(), lengths.numpy()

    def count(first: int, last: int) -> NDArray[np.int64]:
        return count_ahead(table[first:last], divisors, matches.between(first, last))

    return over_blocks(count, table.shape, pool)
