"""Randomness as a pure function: a hash of counters instead of a generator, so any batch can be computed alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_WORD = 1 << 64
_STEPS = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)  # odd constants that keep two counters apart
_WIDTHS = np.array([4, 8, 16, 32, 64, 128, 256])
_MIXERS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def noise(seed: int, purpose: int, counter: NDArray[np.integer], turn: Ints | int) -> NDArray[np.uint64]:
    """64 random bits for every pair (counter, turn): SplitMix64 of their sum in odd steps.

    ``purpose`` separates uses of one seed. Source: Steele, Lea and Flood, Fast splittable generators (2014).
    """
    start = _mix_int(_mix_int(seed % _WORD) + purpose)
    words = counter.astype(np.uint64)
    words *= np.uint64(_STEPS[0])
    words += np.asarray(turn).astype(np.uint64) * np.asarray([_STEPS[1]], np.uint64)
    words += np.uint64(start)
    for shift, factor in _MIXERS:
        words ^= words >> np.uint64(shift)
        words *= np.uint64(factor)
    words ^= words >> np.uint64(31)
    return words


def shuffle(sizes: Ints, bits: NDArray[np.uint64]) -> Ints:
    """Indices that shuffle each of the consecutive segments of ``sizes`` by its random ``bits``.

    Ties of the random bits fall to the position, so the answer is the same on every machine. Short segments are
    sorted side by side, as rows of a few widths: that is what vector units sort fastest.
    """
    order = np.empty(len(bits), np.int64)
    starts = np.cumsum(sizes) - sizes
    row_width = np.searchsorted(_WIDTHS, sizes)
    for step in np.unique(row_width).tolist():
        some = np.flatnonzero(row_width == step)
        if step < len(_WIDTHS):
            _shuffle_rows(order, bits, starts[some], sizes[some], int(_WIDTHS[step]))
        else:
            _shuffle_long(order, bits, starts[some], sizes[some])
    return order


def _shuffle_rows(order: Ints, bits: NDArray[np.uint64], starts: Ints, sizes: Ints, width: int) -> None:
    """Shuffle segments of at most ``width`` <= 256 entries: words (random bits, position in 8 bits), one row each."""
    places = np.arange(width)
    used = places < sizes[:, None]
    cells = (starts[:, None] + places)[used]
    words = np.full(used.shape, _WORD - 1, np.uint64)
    words[used] = bits[cells] | np.uint64(255)
    words ^= np.uint64(255) ^ places.astype(np.uint64)
    words.sort(axis=1)
    order[cells] = ((words & np.uint64(255)).view(np.int64) + starts[:, None])[used]


def _shuffle_long(order: Ints, bits: NDArray[np.uint64], starts: Ints, sizes: Ints) -> None:
    """Shuffle segments of any size: one sort of words (segment, random bits, position)."""
    cells = ranges(starts, sizes)
    total = len(cells)
    low, high = max(total - 1, 0).bit_length(), max(len(sizes) - 1, 0).bit_length()
    words = bits[cells] >> np.uint64(low + high)
    words <<= np.uint64(low)
    words |= np.arange(total, dtype=np.uint64)
    if high:
        words |= np.repeat(np.arange(len(sizes), dtype=np.uint64) << np.uint64(64 - high), sizes)
    words.sort()
    words &= np.uint64((1 << low) - 1)
    order[cells] = cells[words.view(np.int64)]


def ranges(starts: Ints, sizes: Ints) -> Ints:
    """The concatenation of ``arange(start, start + size)``."""
    steps = starts - (np.cumsum(sizes) - sizes)
    return np.repeat(steps, sizes) + np.arange(int(sizes.sum()))


def _mix_int(word: int) -> int:
    word = (word + _STEPS[0]) % _WORD
    for shift, factor in _MIXERS:
        word = ((word ^ (word >> shift)) * factor) % _WORD
    return word ^ (word >> 31)
