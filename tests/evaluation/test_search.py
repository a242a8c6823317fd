"""The k nearest by every way there is, against a full stable sort."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reid_cckd.evaluation import coarse, search
from reid_cckd.evaluation.products import products_of, workers
from reid_cckd.evaluation.rows import Rows
from tests.evaluation.test_retrieval import tied
from tests.reference.retrieval import unit

CPU = torch.device("cpu")


def positive(seed, queries=23, items=300, width=24):
    """Rows whose similarities are positive, so that coarse products are of use."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((queries + items, width)) + rng.uniform(0, 2, (queries + items, 1))
    return rows[:queries].astype(np.float32), (rows[queries:] * rng.uniform(0.1, 9, (items, 1))).astype(np.float32)


def repeated(seed):
    """Every item three times, far apart."""
    query, gallery = positive(seed, items=100)
    return query, np.concatenate([gallery] * 3)


def expected(query, gallery, k, junk=None):
    left, right = unit(query), unit(gallery)
    scores = np.round(left @ right.T, 12)
    lowest = scores.min(axis=1)
    if junk is not None:
        scores[junk] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, axis=1), lowest


@pytest.fixture(params=["all products", "coarse products", "on a device"])
def way(request, monkeypatch):
    """Small blocks, by one of three ways; what coarse products found goes with it."""
    monkeypatch.setattr("reid_cckd.evaluation.rows.BLOCK", 64)
    monkeypatch.setattr(coarse, "available", lambda: request.param == "coarse products")
    monkeypatch.setattr(coarse, "_FEW", 0.5)
    coarsely, reaching = [], coarse.reaching

    def counted(*arguments):
        coarsely.append(reaching(*arguments))
        return coarsely[-1]

    monkeypatch.setattr(coarse, "reaching", counted)
    if request.param == "on a device":
        monkeypatch.setattr(search, "_search", search.search_on_device)
    return SimpleNamespace(name=request.param, near=coarsely)


def found(query, gallery, k, junk=None, **options):
    rows, items = Rows(query, "query", CPU), Rows(gallery, "gallery", CPU)

    def pairs(start, stop):
        return np.nonzero(junk[start:stop])

    with workers() as pool:
        return search.search(rows, items, k, range(len(query)), pool, None if junk is None else pairs, **options)


def assert_equal(result, wanted):
    indices, scores, lowest = wanted
    np.testing.assert_array_equal(result.indices, np.where(np.isneginf(scores), -1, indices))
    np.testing.assert_allclose(result.scores, scores, atol=1e-6)
    if len(result.lowest):
        np.testing.assert_allclose(result.lowest, lowest, atol=1e-6)


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("make", [positive, repeated])
@pytest.mark.parametrize("seed", range(3))
def test_equals_a_stable_sort(way, make, k, seed):
    data = make(seed)
    assert_equal(found(*data, k, chunk=9), expected(*data, k))
    assert any(near is not None for near in way.near) == (way.name == "coarse products")


def test_ties_keep_the_order_of_the_items(way):
    for seed in range(5):
        query, gallery, *_ = tied(seed)
        gallery = np.concatenate([gallery] * 3)
        assert_equal(found(query, gallery, 7), expected(query, gallery, 7))


@pytest.mark.parametrize("k", [1, 12])
def test_a_collapsed_network_gives_the_first_items(way, k):
    query, gallery = np.ones((30, 8), np.float32), np.ones((200, 8), np.float32)
    result = found(query, gallery, k)
    np.testing.assert_array_equal(result.indices, np.tile(np.arange(k), (30, 1)))


@pytest.mark.parametrize("k", [3, 300])
def test_junk_is_left_out(way, k):
    query, gallery = positive(7)
    junk = np.random.default_rng(0).random((len(query), len(gallery))) < 0.3
    junk[:, 250:] = True
    junk[4] = True
    assert_equal(found(query, gallery, k, junk), expected(query, gallery, k, junk))


@pytest.mark.parametrize("worst_first", [False, True])
def test_the_order_of_the_items_does_not_matter(way, worst_first):
    """Every block better than all before, or none."""
    query, gallery = positive(1, queries=1)
    order = expected(query, gallery, len(gallery))[0][0]
    gallery = gallery[order[::-1] if worst_first else order]
    query = query + 0.01 * np.random.default_rng(0).standard_normal((9, query.shape[1])).astype(np.float32)
    assert_equal(found(query, gallery, 6), expected(query, gallery, 6))


def test_the_lowest_similarity_counts_junk_too(way):
    query, gallery = positive(3)
    junk = np.zeros((len(query), len(gallery)), bool)
    junk[np.arange(len(query)), expected(query, gallery, 300)[0][:, -1]] = True
    result = found(query, gallery, 2, junk, lowest=True)
    assert_equal(result, expected(query, gallery, 2, junk))
    assert len(result.lowest) == len(query)


@pytest.mark.parametrize("seed", range(5))
def test_rounding_hides_no_candidate(seed):
    """Whichever way each score is off, by up to the rounding."""
    rng = np.random.default_rng(seed)
    true, rounding = rng.standard_normal((6, 200)).astype(np.float32), np.float32(0.1)
    scores = true + 0.99 * rounding * rng.choice(np.array([-1, 1], np.float32), true.shape)
    near = set(zip(*search._candidates(scores, np.full(6, -np.inf, np.float32), 3, rounding), strict=True))
    assert {(row, item) for row in range(6) for item in np.argsort(-true[row])[:3]} <= near
    assert len(near) < 6 * 40


@pytest.mark.parametrize("width", [5, 8192, 20_000])
@pytest.mark.parametrize("by_columns", [False, True])
def test_products_do_not_depend_on_their_company(width, by_columns):
    """Neither on how many are asked for, few or most of all, nor on which."""
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((count, width)).astype(np.float32) for count in (15, 20)]
    left, right = (torch.from_numpy(np.asfortranarray(x) if by_columns else x) for x in rows)
    pairs = np.divmod(np.arange(300), 20)
    together = products_of(left, right, *pairs)
    np.testing.assert_allclose(together, (rows[0] @ rows[1].T).ravel(), rtol=1e-4, atol=1e-3)
    for some in (slice(0, 1), slice(9, 80, 7), slice(150, 300)):
        np.testing.assert_array_equal(products_of(left, right, *(x[some] for x in pairs)), together[some])


def test_rows_do_not_depend_on_their_company(way):
    data = positive(5)
    whole, parts = found(*data, 4), found(*data, 4, chunk=1)
    np.testing.assert_array_equal(whole.indices, parts.indices)
    if way.name != "on a device":
        np.testing.assert_array_equal(whole.scores, parts.scores)


@pytest.mark.parametrize(("count", "chunk"), [(0, 1), (1, 1), (10, 3), (4096, 1024), (4097, 513), (93_820, 1020)])
def test_rows_are_shared_out_evenly(count, chunk):
    assert search.search_chunk(count) == chunk
