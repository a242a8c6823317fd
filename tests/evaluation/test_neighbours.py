"""The best k against a full stable sort."""

import numpy as np
import pytest
import torch

from reid_cckd.evaluation import rank_gallery
from tests.evaluation.test_retrieval import clustered, tied
from tests.reference.retrieval import unit


def sorted_ranking(query, gallery, excluded=None):
    scores = unit(query) @ unit(gallery).T
    if excluded is not None:
        scores[excluded] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")
    return order, np.take_along_axis(scores, order, axis=1)


@pytest.mark.parametrize("k", [1, 7, 40, 100])
@pytest.mark.parametrize("seed", range(5))
def test_equals_a_stable_sort_even_with_ties(k, seed):
    query, gallery, *_ = tied(seed)
    indices, scores = rank_gallery(query, gallery, k, chunk=5)
    expected, values = sorted_ranking(query, gallery)
    np.testing.assert_array_equal(indices, expected[:, :k])
    np.testing.assert_allclose(scores, values[:, :k], atol=1e-6)
    assert scores.dtype == np.float32


def test_junk_is_left_out():
    query, gallery, query_ids, gallery_ids, query_cameras, gallery_cameras = clustered(2)
    names = ("query_ids", "gallery_ids", "query_cameras", "gallery_cameras")
    lists = dict(zip(names, (query_ids, gallery_ids, query_cameras, gallery_cameras), strict=True))
    junk = (query_ids[:, None] == gallery_ids) & (query_cameras[:, None] == gallery_cameras)
    indices, scores = rank_gallery(query, gallery, 160, **lists)
    expected, values = sorted_ranking(query, gallery, junk)
    np.testing.assert_array_equal(indices, np.where(np.isneginf(values), -1, expected))
    assert (np.isneginf(scores) == (indices == -1)).all()
    assert (indices == -1).sum() == junk.sum() > 0


def test_tensors_are_welcome():
    query, gallery, *_ = clustered(0)
    one, other = rank_gallery(query, gallery, 3), rank_gallery(torch.from_numpy(query), torch.from_numpy(gallery), 3)
    np.testing.assert_array_equal(one[0], other[0])


def test_bad_input_is_named():
    query, gallery, ids, *_ = clustered(0)
    with pytest.raises(ValueError, match="k must be at least 1"):
        rank_gallery(query, gallery, 0)
    with pytest.raises(ValueError, match="chunk must be at least 1, is -5"):
        rank_gallery(query, gallery, 3, chunk=-5)
    with pytest.raises(ValueError, match="go together"):
        rank_gallery(query, gallery, 3, query_ids=ids)
