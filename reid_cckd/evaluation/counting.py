"""Counting the scores of a row that lie above thresholds, for many rows at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
T = TypeVar("T")

_BLOCK = 2**21  # scores looked at together, 8 MB: calls long enough that threads do not wait for the interpreter's lock
_PICKED = 16  # on a device a sixteenth of a matrix is picked at a time, which takes about as much memory as the matrix
_SAMPLED, _FEW = 61, 0.01  # every 61st score; below one in a hundred it is faster to pick scores than to sort rows


class Matches(NamedTuple):
    """Entries (row, column) of a matrix of scores, sorted by row, and the score of each.

    Where ``held`` is false the column lies outside the matrix, before 0 or beyond the last.
    """

    rows: Ints
    columns: Ints
    held: NDArray[np.bool_]
    scores: Floats

    def between(self, first: int, last: int) -> Matches:
        """Those in rows ``first`` ... ``last``, counted from ``first``."""
        own = slice(*np.searchsorted(self.rows, (first, last)))
        return Matches(self.rows[own] - first, self.columns[own], self.held[own], self.scores[own])


def over_blocks(work: Callable[[int, int], T], shape: tuple[int, int], pool: Executor) -> Iterator[T]:
    """What ``work(first, last)`` gives for `blocks` of rows of a matrix of this shape; the pool begins at once."""
    return pool.map(lambda rows: work(rows.start, rows.stop), blocks(*shape))


def blocks(height: int, width: int) -> Iterator[range]:
    """Rows of a matrix that are looked at together."""
    step = max(_BLOCK // max(width, 1), 1)
    return (range(first, min(first + step, height)) for first in range(0, height, step))


def count_ahead(products: Floats, lengths: Floats, matches: Matches) -> Ints:
    """How many scores, products / lengths, of its row stand before each match: higher ones, and those as high in
    earlier columns.
    """
    counts = count_above(products / lengths, matches.scores, matches.rows)
    return _with_ties(*counts, matches, lambda row, earlier: products[row, earlier] / lengths[earlier])


def count_ahead_on_device(scores: Tensor, matches: Matches) -> Ints:
    """`count_ahead` by torch, of scores that are divided already."""
    counts = count_above_on_device(scores, matches.scores, matches.rows)
    return _with_ties(*counts, matches, lambda row, earlier: scores[row, earlier])


def _with_ties(above: Ints, equal: Ints, matches: Matches, scores: Callable[[int, slice], Any]) -> Ints:
    """``above`` and what is as high as its match in earlier columns; ``scores`` gives some of a row."""
    for i in np.flatnonzero(equal > matches.held):
        earlier = scores(int(matches.rows[i]), slice(max(matches.columns[i], 0)))
        above[i] += int((earlier == float(matches.scores[i])).sum())
    return above


def count_above_on_device(scores: Tensor, thresholds: Floats, rows: Ints) -> tuple[Ints, Ints]:
    """`count_above` by torch, of a matrix that is left as it is.

    What reaches the least threshold of its row is picked, and counted by its place among the thresholds of all rows.
    """
    least = torch.from_numpy(_least(len(scores), thresholds, rows)).to(scores.device)
    near = scores >= least[:, None]
    wanted, ends = keys_of(thresholds, rows), ((rows + 1) << 32) - 2**31
    edges = torch.from_numpy(np.concatenate([wanted, wanted + 1, ends])).to(scores.device)  # + 1: the next higher score
    ordered, order = edges.sort()
    counts = torch.zeros(len(edges) + 1, dtype=torch.int64, device=scores.device)
    for part in _runs(near.sum(dim=1).cpu().numpy(), near.numel() // _PICKED):
        places = torch.searchsorted(ordered, _picked(scores[part], near[part], part.start), right=True)
        counts.scatter_add_(0, places, counts.new_ones(1).expand_as(places))
    below = edges.scatter(0, order, counts.cumsum(0)[:-1]).cpu().numpy()  # how many are less than each edge
    reached, passed, ended = below.reshape(3, -1)
    return ended - passed, passed - reached


def _runs(counts: Ints, most: int) -> Iterator[slice]:
    """Rows in runs that have up to ``most`` of what is counted together, and those of one row."""
    cuts = np.flatnonzero(np.diff(counts.cumsum() // max(most, 1))) + 1
    return (slice(*ends) for ends in itertools.pairwise([0, *cuts.tolist(), len(counts)]))


def _picked(scores: Tensor, near: Tensor, first: int) -> Tensor:
    """`keys_of` those scores that are near, where ``first`` is the number of the first row."""
    places = near.flatten().nonzero().squeeze(1)
    bits = (scores.flatten()[places] + 0.0).view(torch.int32)
    bits ^= (bits >> 31) & 0x7FFFFFFF
    return ((places // scores.shape[1] + first) << 32) + bits


def count_above(scores: Floats, thresholds: Floats, rows: Ints) -> tuple[Ints, Ints]:
    """How many scores of row ``rows[i]`` lie above ``thresholds[i]``, and how many equal it. ``rows`` are sorted.

    The scores may be overwritten.
    """
    least = _least(len(scores), thresholds, rows)
    sample = scores[:, ::_SAMPLED] >= least[:, None]  # tells which of two exact ways is the faster one
    count = _count_among_few if np.count_nonzero(sample) < _FEW * sample.size else _count_in_sorted
    return count(scores, least, thresholds, rows)


def _least(height: int, thresholds: Floats, rows: Ints) -> Floats:
    """The least threshold of each row, inf where it has none."""
    least = np.full(height, np.inf, dtype=np.float32)
    np.minimum.at(least, rows, thresholds)
    return least


def _count_in_sorted(scores: Floats, least: Floats, thresholds: Floats, rows: Ints) -> tuple[Ints, Ints]:
    """By sorting rows, for which numpy has vector instructions; what lies below ``least`` is made equal first, which
    spares most of the sorting.
    """
    below = np.float32(-np.inf)
    np.maximum(scores, np.nextafter(least, below)[:, None], out=scores)
    scores.sort(axis=1)
    edges = np.stack([np.nextafter(thresholds, below), thresholds], axis=1).ravel()
    own = np.split(edges, 2 * np.searchsorted(rows, np.arange(1, len(scores))))
    places = [row.searchsorted(values, side="right") for row, values in zip(scores, own, strict=True)]
    reached, passed = np.concatenate(places).reshape(-1, 2).T
    return scores.shape[1] - passed, passed - reached


def _count_among_few(scores: Floats, least: Floats, thresholds: Floats, rows: Ints) -> tuple[Ints, Ints]:
    near = np.flatnonzero(scores >= least[:, None])
    return count_among(scores.ravel().take(near), near // scores.shape[1], thresholds, rows, len(scores))


def count_among(scores: Floats, owners: Ints, thresholds: Floats, rows: Ints, height: int) -> tuple[Ints, Ints]:
    """`count_above` of scores picked from ``height`` rows, score i from row ``owners[i]``: by sorting all together."""
    keys = np.sort(keys_of(scores, owners))
    wanted = keys_of(thresholds, rows)
    right = keys.searchsorted(wanted, side="right")
    ends = np.bincount(owners, minlength=height).cumsum()
    return ends[rows] - right, right - keys.searchsorted(wanted)


def keys_of(values: Floats, rows: Ints) -> Ints:
    """Whole numbers in the order of (row, value): the bits of a float are ordered once those of negative ones turn."""
    bits = (values + np.float32(0)).view(np.int32)  # -0.0 becomes 0.0
    bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)
    return (rows << 32) + bits
