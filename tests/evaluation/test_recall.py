"""Self-retrieval against its twin and against pytorch-metric-learning's calculator."""

import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reid_cckd.evaluation import evaluate_recall
from tests.evaluation.test_retrieval import clustered, tied
from tests.reference import recall as twin
from tests.reference.retrieval import is_decided

RANKS = (1, 2, 8)


@pytest.mark.parametrize("make", [clustered, tied])
@given(seed=st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_equals_twin(make, seed):
    _, rows, _, ids, *_ = make(seed)
    rows, ids = rows[:60], np.where(np.arange(len(ids)) == 7, 99, ids)[:60]  # one row alone in its id
    assume(is_decided(rows, rows, ids, ids))
    result = evaluate_recall(rows, ids, RANKS, chunk=17)
    recall, map_at_r, r_precision, valid = twin.evaluate(rows, ids, RANKS)
    assert result.recall == pytest.approx(recall, abs=1e-9)
    assert (result.map_at_r, result.r_precision) == pytest.approx((map_at_r, r_precision), abs=1e-9)
    assert (result.num_valid_queries, result.num_queries) == (valid, len(rows))
    assert result.first_rank[7] == 0
    assert np.isnan(result.ap_at_r[7])


def test_equals_pytorch_metric_learning():
    calculator = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    import torch
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.inference import CustomKNN

    _, rows, _, ids, *_ = clustered(1)
    metrics = ("precision_at_1", "mean_average_precision_at_r", "r_precision")
    peer = calculator.AccuracyCalculator(include=metrics, k="max_bin_count", knn_func=CustomKNN(CosineSimilarity()))
    theirs = peer.get_accuracy(torch.from_numpy(rows), torch.from_numpy(ids))
    ours = evaluate_recall(rows, ids)
    assert (ours.recall[1], ours.map_at_r, ours.r_precision) == pytest.approx([theirs[m] for m in metrics], abs=1e-6)


def test_summary_is_json():
    _, rows, _, ids, *_ = clustered(1)
    assert json.loads(json.dumps(evaluate_recall(rows, ids).summary()))["recall@1"] > 0


@pytest.mark.parametrize(
    ("ids", "ranks", "message"),
    [
        (np.arange(160), (1,), "nothing to find"),
        (np.arange(9), (1,), "embeddings 160, ids 9"),
        (np.zeros(160, int), (0,), "ranks"),
    ],
)
def test_bad_input_is_named(ids, ranks, message):
    with pytest.raises(ValueError, match=message):
        evaluate_recall(clustered(0)[1], ids, ranks)
