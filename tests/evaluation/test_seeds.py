"""Differences over seeds against scipy's paired test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from reid_cckd.evaluation import compare_seeds

RNG = np.random.default_rng(3)
A = dict(enumerate(RNG.normal(0.5, 0.05, 6).tolist()))
B = {seed: value + RNG.normal(0.02, 0.01) for seed, value in A.items()}


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_t_interval_is_that_of_the_paired_test(confidence: float) -> None:
    found = compare_seeds(A, B, confidence=confidence)
    interval = ttest_rel(list(B.values()), list(A.values())).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.mean == pytest.approx(np.mean([B[seed] - A[seed] for seed in A]))


def test_the_bootstrap_interval_is_inside_the_range_and_repeats() -> None:
    found = compare_seeds(A, B, interval="bootstrap")
    differences = [B[seed] - A[seed] for seed in A]
    assert found.low is not None
    assert found.high is not None
    assert min(differences) <= found.low < found.mean < found.high <= max(differences)
    assert found == compare_seeds(A, B, interval="bootstrap")


def test_only_seeds_in_common_are_paired() -> None:
    found = compare_seeds({0: 0.1, 1: 0.2, 5: 0.9}, {1: 0.4, 0: 0.2, 7: 0.0})
    assert (found.mean, found.num_seeds) == (pytest.approx(0.15), 2)
    assert compare_seeds({0: 0.1}, {0: 0.3}).low is None
    with pytest.raises(ValueError, match=r"no seed in common: \[0\] and \[1\]"):
        compare_seeds({0: 0.1}, {1: 0.3})
    with pytest.raises(ValueError, match="confidence"):
        compare_seeds(A, B, confidence=1.0)
