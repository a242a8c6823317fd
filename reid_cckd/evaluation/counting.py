"""Counting the scores of a row that lie above thresholds: exact, without sorting the row, for many rows at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
T = TypeVar("T")

_BLOCK = 2**19  # scores looked at together, 2 MB: calls long enough that threads do not wait for the interpreter's lock
_BINS = 1024
_TALLEST = 1024  # rows of a block: the number of a bin stays exact in float32


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


def over_blocks(work: Callable[[int, int], T], shape: tuple[int, int], pool: ThreadPoolExecutor) -> Iterator[T]:
    """What ``work(first, last)`` gives for blocks of rows of a matrix of this shape; the pool begins at once."""
    height = min(max(_BLOCK // max(shape[1], 1), 1), _TALLEST)
    return pool.map(lambda first: work(first, min(first + height, shape[0])), range(0, shape[0], height))


def count_ahead(scores: Floats | Tensor, matches: Matches) -> Ints:
    """How many scores of its row stand before each match: higher ones, and those as high in earlier columns."""
    count = count_above_on_device if isinstance(scores, Tensor) else count_above
    ahead, equal = count(scores, matches.scores, matches.rows)  # type: ignore[arg-type]
    for i in np.flatnonzero(equal > matches.held):
        earlier = scores[matches.rows[i], : max(matches.columns[i], 0)]
        ahead[i] += int((earlier == float(matches.scores[i])).sum())
    return ahead


def count_above_on_device(scores: Tensor, thresholds: Floats, rows: Ints) -> tuple[Ints, Ints]:
    """`count_above` by sorting whole rows, which a GPU does faster than it walks through candidates.

    ``rows`` are sorted.
    """
    within = np.arange(len(rows)) - np.searchsorted(rows, rows)
    table = np.full((len(scores), within.max(initial=0) + 1), np.inf, dtype=np.float32)
    table[rows, within] = thresholds
    places = torch.from_numpy(table).to(scores.device)
    ordered = scores.sort(dim=1).values
    left, right = (torch.searchsorted(ordered, places, right=end).cpu().numpy()[rows, within] for end in (False, True))
    return scores.shape[1] - right, right - left


def count_above(scores: Floats, thresholds: Floats, rows: Ints) -> tuple[Ints, Ints]:
    """How many scores of row ``rows[i]`` lie above ``thresholds[i]``, and how many equal it.

    Each row is divided into bins of equal width from its lowest threshold up. Rounding may move the edge of a bin,
    never the order of two, so a histogram counts all but what shares a bin with a threshold; that is sorted.
    """
    height, width = scores.shape
    top = scores.max(axis=1, initial=-1)
    low = top.copy()
    np.minimum.at(low, rows, thresholds)
    scale = np.float32(_BINS) / np.maximum(top - low, np.float32(1e-20))
    base = np.arange(height, dtype=np.float32) * (_BINS + 1)  # rows do not share bins
    shifted = scores - low[:, None]
    shifted *= scale[:, None]
    shifted += base[:, None]
    near = np.flatnonzero(scores >= low[:, None])
    bins = shifted.ravel().take(near).astype(np.int64)
    own = ((np.minimum(thresholds, top[rows]) - low[rows]) * scale[rows] + base[rows]).astype(np.int64)

    counts = np.bincount(bins, minlength=height * (_BINS + 1))
    shared = np.zeros(len(counts), dtype=np.bool_)
    shared[own] = True
    counts[own] = 0
    counts = counts.cumsum()
    beyond = counts[(rows + 1) * (_BINS + 1) - 1] - counts[own]

    near = near.compress(shared.take(bins))
    owners = near // width
    keys = np.sort(_keys(scores.ravel().take(near), owners))
    wanted = _keys(thresholds, rows)
    right = keys.searchsorted(wanted, side="right")
    ends = np.bincount(owners, minlength=height).cumsum()
    return beyond + (ends[rows] - right), right - keys.searchsorted(wanted)


def _keys(values: Floats, rows: Ints) -> Ints:
    """Whole numbers in the order of (row, value): the bits of a float are ordered once those of negative ones turn."""
    bits = (values + np.float32(0)).view(np.int32)  # -0.0 becomes 0.0
    bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)
    return (rows << 32) + bits
