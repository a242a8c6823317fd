"""Pooled queries against a loop."""

import numpy as np
import pytest

from reid_cckd.evaluation import evaluate_retrieval, pool_queries
from tests.evaluation.test_retrieval import clustered
from tests.reference.retrieval import unit


def test_one_mean_per_person_and_camera_in_order_of_appearance():
    query, gallery, ids, gallery_ids, cameras, gallery_cameras = clustered(2)
    means, first = pool_queries(query, ids, cameras)
    keys = list(zip(ids.tolist(), cameras.tolist(), strict=True))
    assert [keys[i] for i in first] == list(dict.fromkeys(keys))
    for mean, i in zip(means, first, strict=True):
        members = [j for j, key in enumerate(keys) if key == keys[i]]
        np.testing.assert_allclose(mean, unit(query[members]).mean(axis=0), atol=1e-6)
    pooled = evaluate_retrieval(means, gallery, ids[first], gallery_ids, cameras[first], gallery_cameras)
    assert pooled.mean_ap > evaluate_retrieval(*clustered(2)).mean_ap


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="query is empty"):
        pool_queries(np.empty((0, 3), "f4"), [], [])
    with pytest.raises(ValueError, match="query_cameras 1"):
        pool_queries(np.ones((2, 3), "f4"), [1, 2], [1])
