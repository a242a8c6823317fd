"""Re-ranking against a dense twin and against torchreid's numbers; query expansion against a loop."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from reid_cckd.evaluation import Reranking, evaluate_retrieval, expand_queries, reranking
from reid_cckd.evaluation.products import workers
from reid_cckd.evaluation.rows import two_sets
from tests.evaluation.test_retrieval import assert_equal_to_twin, clustered
from tests.reference import reranking as twin
from tests.reference.retrieval import unit

CPU = torch.device("cpu")


def scores(query, gallery, options, chunk=1000):
    rows = two_sets(query, gallery, CPU, ("query", "gallery"))
    with workers() as pool:
        chunks = reranking.reranked_chunks(*rows, options, pool, chunk)
        return np.concatenate([make().numpy().copy() for _, make in chunks])


@pytest.mark.parametrize(
    "options", [Reranking(), Reranking(7, 1, 0.5), Reranking(5, 3, 0.0), Reranking(9, 4, 1.0), Reranking(3, 12)]
)
@pytest.mark.parametrize("seed", range(3))
def test_equals_dense_twin(monkeypatch, options, seed):
    monkeypatch.setattr(reranking, "_BLOCK", 37)
    query, gallery, *_ = clustered(seed)
    expected = twin.distances(query, gallery, options.k1, options.k2, options.weight)
    np.testing.assert_allclose(scores(query, gallery, options, chunk=11), -expected, atol=2e-6)


def test_sets_smaller_than_the_neighbourhood():
    query, gallery, *_ = clustered(1, queries=3, items=6)
    np.testing.assert_allclose(scores(query, gallery, Reranking()), -twin.distances(query, gallery), atol=2e-6)


def test_equals_torchreid():
    golden = json.loads((Path(__file__).parent / "golden" / "reranking.json").read_text())
    query, gallery = (np.array(golden[name], dtype=np.float32) for name in ("query", "gallery"))
    found = scores(query, gallery, Reranking(**golden["options"]))
    np.testing.assert_allclose(found, -np.array(golden["distances"]), atol=1e-5)


def test_metrics_follow_the_new_ranking():
    data = clustered(4)
    plain, reranked = evaluate_retrieval(*data), evaluate_retrieval(*data, reranking=Reranking())
    order = -twin.distances(*data[:2])
    hits = []
    for i, row in enumerate(order):
        keep = ~((data[3] == data[2][i]) & (data[5] == data[4][i]))
        kept = np.flatnonzero(keep)
        hits.append(data[3][kept[np.argsort(-row[kept], kind="stable")]] == data[2][i])
    assert_equal_to_twin(reranked, hits)
    assert reranked.mean_ap > plain.mean_ap
    assert reranked.summary()["reranking"] == {"k1": 20, "k2": 6, "weight": 0.3}
    assert plain.summary()["reranking"] is None


@pytest.mark.parametrize("options", [{"k1": 0}, {"k2": 0}, {"weight": 1.5}])
def test_bad_options_are_named(options):
    with pytest.raises(ValueError, match="k1 and k2 must be at least 1"):
        Reranking(**options)


@pytest.mark.parametrize(("k", "alpha"), [(1, 0.0), (5, 3.0), (500, 1.0)])
def test_query_expansion_equals_a_loop(k, alpha):
    query, gallery, *_ = clustered(0)
    expected = []
    for row in unit(query):
        similarity = unit(gallery) @ row
        best = np.argsort(-similarity, kind="stable")[:k]
        expected.append(row + (np.maximum(similarity[best], 0) ** alpha) @ unit(gallery)[best])
    np.testing.assert_allclose(expand_queries(query, gallery, k=k, alpha=alpha), unit(expected), atol=1e-6)


def test_query_expansion_helps_clustered_people():
    query, gallery, *lists = clustered(3)
    expanded = evaluate_retrieval(expand_queries(query, gallery, k=5), gallery, *lists)
    assert expanded.mean_ap > evaluate_retrieval(query, gallery, *lists).mean_ap
    with pytest.raises(ValueError, match="alpha"):
        expand_queries(query, gallery, alpha=-1)
