"""Counting scores above thresholds, on every branch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from reid_cckd.evaluation.ranking import count_above

FLOATS = st.floats(-1, 1, width=32) | st.sampled_from([0.0, -0.0, 0.5, 0.5000001, 1e-38, -np.inf])


def check(scores, thresholds):
    above, equal = count_above(scores, thresholds)
    np.testing.assert_array_equal(above, (scores > thresholds[:, None]).sum(1))
    np.testing.assert_array_equal(equal, (scores == thresholds[:, None]).sum(1))


@given(arrays.arrays(np.float32, st.integers(1, 60), elements=FLOATS), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_counts_are_exact(scores, count, seed):
    scores[np.random.default_rng(seed).integers(len(scores))] = 0.25
    thresholds = np.random.default_rng(seed).choice(scores[np.isfinite(scores)], count)
    check(scores, thresholds)


@pytest.mark.parametrize("depth", [0.999, 0.9, 0.75, 0.5, 0.0])
@pytest.mark.parametrize("count", [1, 30, 2000])
def test_counts_are_exact_at_every_depth(depth, count):
    rng = np.random.default_rng(count)
    scores = np.round(rng.standard_normal(5000) * 0.2, 3).astype(np.float32)
    scores[rng.integers(0, 5000, 50)] = -np.inf
    finite = np.sort(scores[np.isfinite(scores)])
    check(scores, rng.permutation(finite[int(depth * len(finite)) :])[:count])


def test_a_clump_with_an_outlier_is_counted_exactly():
    scores = np.r_[np.float32(1), np.full(500, 1e-6, np.float32), np.arange(500, dtype=np.float32) * 1e-9]
    check(scores, scores[[0, 1, 700, 999]])


def test_thresholds_need_not_be_scores():
    check(np.float32([0.1, 0.2, 0.3]), np.float32([0.9, 0.25, -0.5]))
    check(np.zeros(5, np.float32), np.float32([0.0]))
