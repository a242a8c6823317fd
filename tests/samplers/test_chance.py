"""Counter-based randomness: the words, and shuffling segments of every length."""

from __future__ import annotations

import numpy as np
import pytest

from reid_cckd.samplers.chance import noise, ranges, shuffle
from tests.reference import samplers as reference


def test_noise_is_the_slow_one() -> None:
    counters, turns = np.arange(50) * 7, np.arange(50) % 3
    words = noise(2**40 + 5, 4, counters, turns)
    assert words.tolist() == [
        reference.noise(2**40 + 5, 4, int(c), int(t)) for c, t in zip(counters, turns, strict=True)
    ]


@pytest.mark.parametrize("change", ["seed", "purpose", "turn"])
def test_noise_depends_on_each_of_its_arguments(change: str) -> None:
    settings = {"seed": 1, "purpose": 2, "turn": 3}
    counters = np.arange(100)
    first = noise(counter=counters, **settings)
    other = noise(counter=counters, **{**settings, change: settings[change] + 1})
    assert not (first == other).any()


def test_shuffle_sorts_segments_of_every_width_by_their_bits() -> None:
    sizes = np.array([1, 4, 300, 0, 8, 5, 256, 257, 17, 64, 3, 130, 33])
    bits = noise(0, 0, np.arange(sizes.sum()), 0)
    order = shuffle(sizes, bits)
    starts = np.cumsum(sizes) - sizes
    for start, size in zip(starts, sizes, strict=True):
        want = reference.shuffled(list(range(start, start + size)), bits[start : start + size].tolist())
        assert order[start : start + size].tolist() == want


@pytest.mark.parametrize("width", [7, 300])
def test_equal_bits_fall_to_the_position(width: int) -> None:
    bits = np.full(2 * width, 2**64 - 1, np.uint64)
    assert shuffle(np.array([width, width]), bits).tolist() == list(range(2 * width))


@pytest.mark.parametrize("size", [5, 300])
def test_every_place_is_equally_likely(size: int) -> None:
    turns = 4000
    counters = np.tile(np.arange(size), turns)
    bits = noise(0, 5, counters, np.repeat(np.arange(turns), size))
    order = shuffle(np.full(turns, size), bits).reshape(turns, size) - np.arange(turns)[:, None] * size
    counts = np.bincount(order[:, 0], minlength=size)
    chi_square = ((counts - turns / size) ** 2 / (turns / size)).sum()
    assert abs(chi_square - (size - 1)) < 5 * np.sqrt(2 * (size - 1))


def test_ranges_concatenates() -> None:
    assert ranges(np.array([5, 0, 7]), np.array([2, 0, 3])).tolist() == [5, 6, 7, 8, 9]
    assert ranges(np.array([], np.int64), np.array([], np.int64)).tolist() == []
