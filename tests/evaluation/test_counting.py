"""Counting scores above thresholds, many rows at once, in both ways."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from reid_cckd.evaluation import counting
from reid_cckd.evaluation.counting import (
    Matches,
    _count_among_few,
    _count_in_sorted,
    _runs,
    count_above,
    count_above_on_device,
    count_ahead,
    count_ahead_on_device,
    over_blocks,
)

FLOATS = st.floats(-1, 1, width=32) | st.sampled_from([0.0, -0.0, 0.5, 0.5000001, 1e-38, -np.inf])
TABLES = arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 40)), elements=FLOATS)


def check(scores, thresholds, rows=None):
    scores = np.atleast_2d(scores)
    rows = np.zeros(len(thresholds), int) if rows is None else np.sort(rows)
    least = np.array([thresholds[rows == row].min(initial=np.inf) for row in range(len(scores))], np.float32)
    ways = (
        count_above,
        lambda s, *rest: _count_among_few(s, least, *rest),
        lambda s, *rest: _count_in_sorted(s, least, *rest),
        lambda s, *rest: count_above_on_device(torch.from_numpy(s), *rest),
    )
    for count in ways:
        above, equal = count(scores.copy(), thresholds, rows)
        np.testing.assert_array_equal(above, (scores[rows] > thresholds[:, None]).sum(1))
        np.testing.assert_array_equal(equal, (scores[rows] == thresholds[:, None]).sum(1))


@given(TABLES, st.integers(0, 9), st.integers(0, 99))
@settings(max_examples=300, deadline=None)
def test_counts_are_exact(scores, count, seed):
    """Thresholds are scores of any row, so that they may lie above or below all of their own."""
    rng = np.random.default_rng(seed)
    scores[rng.integers(len(scores)), 0] = 0.25
    check(scores, rng.choice(scores[np.isfinite(scores)], count), rng.integers(0, len(scores), count))


@pytest.mark.parametrize("depth", [0.999, 0.9, 0.75, 0.5, 0.0])
@pytest.mark.parametrize("count", [1, 30, 2000])
def test_counts_are_exact_at_every_depth(depth, count):
    rng = np.random.default_rng(count)
    scores = np.round(rng.standard_normal((3, 5000)) * 0.2, 3).astype(np.float32)
    scores[:, rng.integers(0, 5000, 50)] = -np.inf
    finite = np.sort(scores[np.isfinite(scores)])
    thresholds = rng.permutation(finite[int(depth * len(finite)) :])[:count]
    check(scores, thresholds, rng.integers(0, 3, len(thresholds)))


def test_a_clump_with_an_outlier_is_counted_exactly():
    scores = np.r_[np.float32(1), np.full(500, 1e-6, np.float32), np.arange(500, dtype=np.float32) * 1e-9]
    check(scores, scores[[0, 1, 700, 999]])


def test_thresholds_need_not_be_scores():
    check(np.float32([0.1, 0.2, 0.3]), np.float32([0.9, 0.25, -0.5]))
    check(np.zeros(5, np.float32), np.float32([0.0]))
    check(np.full((2, 3), -np.inf, np.float32), np.float32([-7.0]), np.array([1]))
    check(np.float32([-5000, -6000, 3e30]), np.float32([-5500, 1]))
    check(np.empty((2, 0), np.float32), np.float32([0.5]), np.array([1]))


@given(arrays.arrays(np.int8, (4, 30), elements=st.integers(0, 3)), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_of_equal_scores_those_in_earlier_columns_stand_ahead(levels, seed):
    """Also of matches that lie left and right of the matrix, whose scores are known only."""
    rng = np.random.default_rng(seed)
    scores, columns = levels.astype(np.float32), rng.integers(-3, 34, 40)
    rows, held = np.sort(rng.integers(0, 4, 40)), (columns >= 0) & (columns < 30)
    wanted = np.where(held, scores[rows, columns.clip(0, 29)], rng.integers(0, 4, 40)).astype(np.float32)
    earlier = np.arange(30) < columns[:, None]
    expected = ((scores[rows] > wanted[:, None]) | (scores[rows] == wanted[:, None]) & earlier).sum(1)
    matches = Matches(rows, columns, held, wanted)
    lengths = np.full(30, 2, dtype=np.float32)
    np.testing.assert_array_equal(count_ahead(2 * scores, lengths, matches), expected)
    np.testing.assert_array_equal(count_ahead_on_device(torch.from_numpy(scores), matches), expected)


@pytest.mark.parametrize("depth", [0.0, 0.5, 0.9])
def test_a_device_picks_a_part_of_the_scores_at_a_time(depth, monkeypatch):
    """Also where all of them reach a threshold, of a model that knows nothing."""
    picked, pick = [], counting._picked
    monkeypatch.setattr(counting, "_picked", lambda *part: picked.append(pick(*part)) or picked[-1])
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((160, 50)).astype(np.float32)
    rows = np.sort(rng.integers(0, 160, 900))
    thresholds = np.quantile(scores, depth, axis=1).astype(np.float32)[rows]
    above, equal = count_above_on_device(torch.from_numpy(scores), thresholds, rows)
    np.testing.assert_array_equal(above, (scores[rows] > thresholds[:, None]).sum(1))
    np.testing.assert_array_equal(equal, (scores[rows] == thresholds[:, None]).sum(1))
    assert max(map(len, picked)) <= scores.size / 16 + 50
    assert sum(map(len, picked)) == pytest.approx((1 - depth) * scores.size, rel=0.2)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(0, 20))
def test_runs_cover_all_rows_once(counts, most):
    counts = np.array(counts)
    runs = list(_runs(counts, most))
    assert [row for run in runs for row in range(run.start, run.stop)] == list(range(len(counts)))
    assert all(counts[run].sum() <= most + counts.max() for run in runs)


@pytest.mark.parametrize("shape", [(5, 0), (1, 3_000_000), (3000, 2), (70, 30_000)])
def test_blocks_cover_all_rows_once(shape):
    with ThreadPoolExecutor(2) as pool:
        blocks = over_blocks(lambda first, last: (first, last), shape, pool)
    assert [row for block in blocks for row in range(*block)] == list(range(shape[0]))
