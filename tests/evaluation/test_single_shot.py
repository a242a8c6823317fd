"""One image per person: what is known exactly, and the mean over many draws against a slow simulation."""

import numpy as np
import pytest

from reid_cckd.evaluation import bootstrap_interval, evaluate_retrieval, evaluate_single_shot, single_shot
from tests.evaluation.test_retrieval import clustered, tied
from tests.reference.retrieval import unit


def simulate(data, repeats, seed=0):
    """CMC@1 with a fresh draw for every query, as the public evaluators do."""
    query, gallery, query_ids, gallery_ids, query_cameras, gallery_cameras = data
    rng, scores, hits = np.random.default_rng(seed), unit(query) @ unit(gallery).T, []
    for i, row in enumerate(scores):
        keep = np.flatnonzero((gallery_ids != query_ids[i]) | (gallery_cameras != query_cameras[i]))
        if not (gallery_ids[keep] == query_ids[i]).any():
            continue
        for _ in range(repeats):
            drawn = [rng.choice(keep[gallery_ids[keep] == person]) for person in np.unique(gallery_ids[keep])]
            hits.append(gallery_ids[max(drawn, key=lambda j: row[j])] == query_ids[i])
    return np.mean(hits)


def test_mean_over_draws_equals_a_simulation():
    data = clustered(3, noise=0.8)
    ours = evaluate_single_shot(*data, ranks=(1,), repeats=300)
    assert ours.cmc[1] == pytest.approx(simulate(data, 300), abs=0.02)
    assert 0.2 < ours.cmc[1] < 0.95
    assert 0 < ours.std[1] < 0.2


def test_one_image_per_person_is_plain_cmc():
    for make, seed in ((clustered, 0), (tied, 1), (tied, 2)):
        query, gallery, query_ids, gallery_ids, query_cameras, gallery_cameras = make(seed)
        _, first = np.unique(gallery_ids, return_index=True)
        first = np.sort(first)
        data = (query, gallery[first], query_ids, gallery_ids[first], query_cameras, gallery_cameras[first])
        ours, plain = evaluate_single_shot(*data, repeats=2, chunk=7), evaluate_retrieval(*data)
        assert ours.cmc == pytest.approx(plain.cmc, abs=1e-12)
        assert ours.std == pytest.approx(dict.fromkeys(plain.cmc, 0), abs=1e-12)
        assert ours.num_valid_queries == plain.num_valid_queries < ours.num_queries


def test_seeded_and_independent_of_chunks(monkeypatch):
    data, draw, drawn = clustered(5), single_shot._draw, []
    one = evaluate_single_shot(*data, seed=3)
    monkeypatch.setattr(single_shot, "_draw", lambda *args: drawn.append(args) or draw(*args))
    np.testing.assert_array_equal(evaluate_single_shot(*data, seed=3, chunk=7).ranks, one.ranks)
    assert len(drawn) == one.repeats  # and not again for each chunk
    assert one.cmc != evaluate_single_shot(*data, seed=4).cmc


def test_the_ranks_of_each_query_give_the_scores():
    data = clustered(3, noise=0.8)
    result, plain = evaluate_single_shot(*data, ranks=(1, 3), repeats=9), evaluate_retrieval(*data)
    valid = result.ranks[0] > 0
    np.testing.assert_array_equal(valid, plain.valid)
    hits = (result.ranks[:, valid] <= 3).mean(axis=0)
    assert hits.mean() == pytest.approx(result.cmc[3])
    low, high = bootstrap_interval(hits, groups=data[2][valid])
    assert low < result.cmc[3] < high


def test_bad_input_is_named():
    data = clustered(0)
    with pytest.raises(ValueError, match="repeats"):
        evaluate_single_shot(*data, repeats=0)
    with pytest.raises(ValueError, match="ranks"):
        evaluate_single_shot(*data, ranks=(0,))
    with pytest.raises(ValueError, match="no query has a true match"):
        evaluate_single_shot(*data[:3], np.full(160, 99))
