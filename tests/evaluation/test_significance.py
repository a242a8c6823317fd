"""Intervals that cover, tests that keep their level, and answers known in closed form."""

import dataclasses
import itertools

import numpy as np
import pytest

from reid_cckd.evaluation import bootstrap_interval, compare, evaluate_recall, evaluate_retrieval
from tests.evaluation.test_retrieval import clustered


def result_with(ap):
    base = evaluate_retrieval(*clustered(0))
    ap = np.asarray(ap, dtype=float)
    valid = ~np.isnan(ap)
    return dataclasses.replace(base, ap=ap, inp=ap, valid=valid, num_queries=len(ap))


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = rng.normal(0.5, 0.2, (400, 60))
    intervals = [bootstrap_interval(draw, confidence=0.9, resamples=400, seed=i) for i, draw in enumerate(draws)]
    assert 0.85 < np.mean([low < 0.5 < high for low, high in intervals]) < 0.95


def test_interval_equals_the_normal_one_for_many_queries():
    values = np.random.default_rng(1).normal(0.4, 0.1, 4000)
    low, high = bootstrap_interval(values, resamples=4000)
    half = 1.96 * values.std() / np.sqrt(4000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=2e-4)
    assert bootstrap_interval(np.append(values, np.nan), resamples=4000) == (low, high)


def test_groups_widen_the_interval_of_dependent_queries():
    rng = np.random.default_rng(2)
    groups = np.repeat([f"p{i}" for i in range(40)], 25)
    values = np.repeat(rng.random(40), 25)
    single, grouped = bootstrap_interval(values), bootstrap_interval(values, groups=groups)
    assert (grouped[1] - grouped[0]) / (single[1] - single[0]) == pytest.approx(5, rel=0.15)  # sqrt of 25


def test_p_value_equals_all_sign_flips():
    differences = np.array([0.3, 0.1, -0.05, 0.2, 0.15, -0.1, 0.25, 0.05])
    a, b = np.full(8, 0.5), 0.5 + differences
    sums = [np.dot(signs, differences) for signs in itertools.product([-1, 1], repeat=8)]
    exact = np.mean(np.array(sums) >= differences.sum() - 1e-12)
    found = compare(result_with(a), result_with(b), resamples=40_000)
    assert found.p_value == pytest.approx(exact, abs=0.004)
    assert found.difference == pytest.approx(differences.mean())
    assert found.low < found.difference < found.high
    assert (found.num_better, found.num_worse, found.num_queries, found.num_groups) == (6, 2, 8, 8)


def test_level_is_kept_when_models_are_equally_good():
    rng = np.random.default_rng(3)
    pairs = [(result_with(rng.random(30)), result_with(rng.random(30))) for _ in range(200)]
    p_values = np.array([compare(a, b, resamples=200).p_value for a, b in pairs])
    assert 0.01 < np.mean(p_values <= 0.05) < 0.1
    assert 0.4 < np.mean(p_values <= 0.5) < 0.6


def test_level_is_kept_by_people_whose_queries_go_together():
    rng = np.random.default_rng(4)
    people = np.repeat(np.arange(30), 10)
    pairs = [[result_with(rng.normal(size=30)[people] + rng.normal(size=300)) for _ in range(2)] for _ in range(200)]
    single, grouped = (
        np.mean([compare(a, b, resamples=200, groups=groups).p_value <= 0.05 for a, b in pairs])
        for groups in (None, people)
    )
    assert single > 0.2
    assert 0.01 < grouped < 0.1
    assert compare(*pairs[0], groups=people).num_groups == 30


def test_a_model_is_not_better_than_itself():
    same = result_with(np.random.default_rng(0).random(50))
    assert compare(same, same, resamples=100).p_value == 1.0


def test_queries_without_match_are_left_out():
    a, b = np.r_[np.full(20, 0.4), np.nan], np.r_[np.full(20, 0.5), np.nan]
    found = compare(result_with(a), result_with(b), resamples=500, groups=np.arange(21))
    assert (found.num_queries, found.num_better) == (20, 20)
    assert found.p_value < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"convention": "market1501"}, "convention is torchreid and market1501"),
        ({"num_gallery": 3}, "num_gallery"),
        ({"camera_policy": "ignore"}, "camera_policy"),
        ({"valid": np.zeros(20, bool)}, "different queries"),
    ],
)
def test_different_protocols_are_not_compared(change, message):
    a = result_with(np.random.default_rng(0).random(20))
    with pytest.raises(ValueError, match=message):
        compare(a, dataclasses.replace(a, **change))


def test_results_of_recall_are_compared_too_and_with_their_like():
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(10), 4)
    good, bad = (np.eye(10)[ids] + noise * rng.normal(size=(40, 10)) for noise in (0.1, 0.6))
    a, b = evaluate_recall(bad, ids), evaluate_recall(good, ids)
    found = compare(a, b, groups=ids)
    assert found.difference == pytest.approx(b.map_at_r - a.map_at_r)
    assert found.p_value < 0.01
    assert compare(a, b, metric="precision_at_r").difference == pytest.approx(b.r_precision - a.r_precision)
    for other, metric in [(b, "ap"), (result_with(np.full(40, 0.5)), None)]:
        with pytest.raises(ValueError, match="do not both hold"):
            compare(a, other, metric=metric)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="confidence"):
        bootstrap_interval(np.ones(3), confidence=95)
    with pytest.raises(ValueError, match="resamples"):
        bootstrap_interval(np.ones(3), resamples=0)
    with pytest.raises(ValueError, match="no number"):
        bootstrap_interval(np.full(3, np.nan))
    with pytest.raises(ValueError, match="values 3, groups 2"):
        bootstrap_interval(np.ones(3), groups=[1, 2])
