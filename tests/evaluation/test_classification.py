"""Classification against its twin."""

import json
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_cckd.evaluation import classification, evaluate_classification
from tests.reference import classification as twin


def images(seed, count=60, classes=7, decimals=8):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes - 1, count)  # the last class has no image
    logits = np.round(rng.standard_normal((count, classes)) + 1.5 * np.eye(classes)[labels], decimals)
    return logits, labels


@pytest.mark.parametrize("decimals", [8, 0])
@given(seed=st.integers(0, 2**31), bins=st.sampled_from([1, 10, 15]))
@settings(max_examples=20, deadline=None)
def test_equals_twin(decimals, seed, bins):
    logits, labels = images(seed, decimals=decimals)
    result = evaluate_classification(logits, labels, top=(1, 3, 7), bins=bins)
    assert result.accuracy == pytest.approx({k: twin.accuracy(logits, labels, k) for k in (1, 3, 7)})
    assert result.ece == pytest.approx(twin.calibration_error(logits, labels, bins), abs=1e-9)


def test_blocks_and_kinds_of_input_do_not_matter(monkeypatch):
    logits, labels = images(1)
    expected = evaluate_classification(logits, labels).summary()
    monkeypatch.setattr(classification, "_ENTRIES", 7 * 7)
    assert evaluate_classification(torch.from_numpy(logits), torch.from_numpy(labels)).summary() == expected
    assert json.loads(json.dumps(expected)) == expected


def test_worst_classes_and_what_they_are_taken_for():
    predicted = np.array([0, 0, 1, 1, 1, 0, 2, 0, 0, 1])
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
    result = evaluate_classification(np.eye(4)[predicted], labels, top=(1,), worst=2)
    np.testing.assert_allclose(result.class_accuracy, [2 / 3, 2 / 3, 1 / 4, np.nan])
    first, second = result.worst
    assert (first.label, first.accuracy, first.count, first.taken_for, first.share) == (2, 0.25, 4, 0, 0.5)
    assert (second.label, second.taken_for, second.share) == (0, 1, pytest.approx(1 / 3))
    assert evaluate_classification(np.eye(2), [0, 1]).worst[0].taken_for == -1


def test_memory_does_not_grow_with_the_square_of_the_classes():
    logits = np.zeros((8, 20_000), np.float32)
    logits[np.arange(8), 19_992 + np.arange(8)] = 1
    tracemalloc.start()
    try:
        result = evaluate_classification(logits, np.full(8, 19_999), worst=2)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()
    (worst,) = result.worst
    assert (worst.label, worst.count, worst.taken_for, worst.accuracy, worst.share) == (19_999, 8, 19_992, 1 / 8, 1 / 8)


def test_huge_logits_are_calibrated_without_overflow():
    assert evaluate_classification(np.eye(3) * 1e4, [0, 1, 2]).ece == pytest.approx(0)
    assert evaluate_classification(np.eye(3) * 1e4, [1, 2, 0]).ece == pytest.approx(1)


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        (np.eye(3), [0, 1, 3], ValueError, "0 ... 2, go from 0 to 3"),
        (np.eye(3), [0, -1, 1], ValueError, "go from -1"),
        (np.eye(3), [0, 1], ValueError, "logits 3, labels 2"),
        (np.eye(3), ["a", "b", "c"], TypeError, "labels must be whole numbers"),
        (np.diag([1, np.nan, 1]), [0, 1, 2], ValueError, "row 1 is not finite"),
        (np.empty((0, 3)), [], ValueError, "logits is empty"),
    ],
)
def test_bad_input_is_named(logits, labels, error, message):
    with pytest.raises(error, match=message):
        evaluate_classification(logits, labels)
