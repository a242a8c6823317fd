"""Verification against its twin and scikit-learn."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_cckd.evaluation import evaluate_pairs, evaluate_verification, verification
from tests.reference import verification as twin
from tests.reference.retrieval import unit


def pairs(seed, count=83, noise=1.5, decimals=None):
    rng = np.random.default_rng(seed)
    same = rng.random(count) < 0.5
    same[:2] = [True, False]
    first = rng.standard_normal((count, 8))
    second = np.where(same[:, None], first, rng.standard_normal((count, 8))) + noise * rng.standard_normal((count, 8))
    if decimals is not None:  # exact ties: rows of one entry
        first, second = (np.eye(4)[rng.integers(0, 4, count)] for _ in range(2))
    return first.astype(np.float32), second.astype(np.float32), same


@pytest.mark.parametrize("decimals", [None, 0])
@given(seed=st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_equals_twin_and_scikit_learn(decimals, seed):
    metrics = pytest.importorskip("sklearn.metrics")
    first, second, same = pairs(seed, decimals=decimals)
    result = evaluate_verification(first, second, same, folds=7, fars=(0.01, 0.1, 0.5))
    scores = result.scores
    np.testing.assert_allclose(scores, (unit(first) * unit(second)).sum(1), atol=1e-6)
    np.testing.assert_allclose(result.fold_accuracy, twin.fold_accuracy(2 - 2 * scores, same, 7), atol=1e-12)
    assert result.tar == pytest.approx({far: twin.tar_at_far(scores, same, far) for far in (0.01, 0.1, 0.5)})
    assert result.auc == pytest.approx(metrics.roc_auc_score(same, scores), abs=1e-12)
    fpr, tpr, _ = metrics.roc_curve(same, scores, drop_intermediate=False)
    grid = np.linspace(0, 1, 20_001)
    crossing = grid[np.argmin(np.abs(1 - np.interp(grid, fpr, tpr) - grid))]
    if len(np.unique(fpr)) == len(fpr):  # elsewhere the ROC has steps, on which np.interp is not a function
        assert result.eer == pytest.approx(crossing, abs=1e-3)


def test_pairs_by_row_equal_pairs_of_rows(monkeypatch):
    monkeypatch.setattr(verification, "BLOCK", 16)
    first, second, same = pairs(3)
    both = np.stack([first, second], axis=1).reshape(-1, 8)
    expected = evaluate_verification(first, second, same)
    found = evaluate_pairs(both, range(0, 166, 2), range(1, 166, 2), same)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    assert found.summary() == pytest.approx(expected.summary(), abs=1e-6)
    for rows, error, message in [
        (range(166, 0, -2), ValueError, "rows in 0"),
        (np.ones(83), TypeError, "whole"),
        (range(3), ValueError, "first 3"),
    ]:
        with pytest.raises(error, match=message):
            evaluate_pairs(both, rows, range(1, 166, 2), same)


def test_perfect_and_hopeless_pairs():
    rows = np.eye(10, dtype=np.float32)
    first, second, even = np.repeat(rows, 2, axis=0), np.repeat(rows, 2, axis=0), np.arange(20) % 2 == 0
    second[~even] *= -1
    perfect = evaluate_verification(first, second, even, folds=2)
    assert (perfect.accuracy, perfect.auc, perfect.eer, perfect.tar[1e-3]) == (1.0, 1.0, 0.0, 1.0)
    assert -1 < perfect.threshold < 1
    hopeless = evaluate_verification(first, second, ~even, folds=2)
    assert (hopeless.auc, hopeless.eer, hopeless.tar[1e-3]) == (0.0, 1.0, 0.0)


def test_equal_error_rate_of_two_bells():
    """Scores of two normal distributions one standard deviation apart: EER is the normal tail at 0.5."""
    from reid_cckd.evaluation.verification import _equal_error, roc

    rng = np.random.default_rng(0)
    same = np.arange(200_000) < 100_000
    fpr, tpr = roc(rng.standard_normal(200_000) + same, same)
    assert _equal_error(fpr, tpr) == pytest.approx(0.3085, abs=0.003)


def test_summary_is_json():
    assert json.loads(json.dumps(evaluate_verification(*pairs(0)).summary()))["tar@0.001"] >= 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"same": np.ones(83, bool)}, ValueError, "both true and false"),
        ({"same": np.ones(83)}, TypeError, "boolean"),
        ({"same": np.ones(3, bool)}, ValueError, "same 3"),
        ({"folds": 1}, ValueError, "folds"),
        ({"folds": 84}, ValueError, "83 pairs"),
        ({"fars": (0,)}, ValueError, "fars"),
        ({"second": np.ones((83, 3), "f4")}, ValueError, "first has 8 columns and second has 3"),
    ],
)
def test_bad_input_is_named(change, error, message):
    first, second, same = pairs(0)
    with pytest.raises(error, match=message):
        evaluate_verification(**{"first": first, "second": second, "same": same, **change})
