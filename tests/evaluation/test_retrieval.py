"""Retrieval against a twin that sorts, in both conventions, with ties, junk and queries without match."""

import functools
import json

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reid_cckd.evaluation import evaluate_retrieval, process, ranking
from reid_cckd.evaluation.counting import count_ahead_on_device
from tests.reference import retrieval as twin

CONVENTIONS = ("torchreid", "market1501")


def clustered(seed, queries=40, items=160, width=16, people=12, cameras=4, noise=1.2):
    """People as centres with noise; a few queries whose person is not in the gallery."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((people + 2, width))
    query_ids, gallery_ids = rng.integers(0, people + 2, queries), rng.integers(0, people, items)
    query, gallery = (
        (centres[ids] + noise * rng.standard_normal((len(ids), width))).astype(np.float32) * rng.uniform(0.1, 9)
        for ids in (query_ids, gallery_ids)
    )
    return query, gallery, query_ids, gallery_ids, rng.integers(0, cameras, queries), rng.integers(0, cameras, items)


def tied(seed, queries=12, items=40):
    """Rows whose similarities are exact in float32 (four entries of +-1, the rest 0), so that ties abound."""
    rng = np.random.default_rng(seed)

    def rows(count):
        out = np.zeros((count, 6), dtype=np.float32)
        for row in out:
            row[rng.choice(6, 4, replace=False)] = rng.choice([-1.0, 1.0], 4)
        return out

    ids = [rng.integers(0, 5, n) for n in (queries, items)]
    return rows(queries), rows(items), *ids, *(rng.integers(0, 2, n) for n in (queries, items))


def assert_equal_to_twin(result, lists, ranks=(1, 5, 10)):
    ap, inp, cmc, valid = twin.evaluate(lists, ranks, result.convention)
    assert result.mean_ap == pytest.approx(ap, abs=1e-9)
    assert result.mean_inp == pytest.approx(inp, abs=1e-9)
    assert result.cmc == pytest.approx(cmc, abs=1e-9)
    assert result.num_valid_queries == valid


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("make", [clustered, tied])
@given(seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_equals_twin(make, convention, seed):
    data = make(seed)
    assume(twin.is_decided(*data))
    result = evaluate_retrieval(*data, convention=convention)
    assert_equal_to_twin(result, twin.ranked_hits(*data))
    assert result.camera_policy == "exclude-same"


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_camera_policies(convention):
    data = clustered(3)
    without = evaluate_retrieval(*data[:4], convention=convention)
    ignored = evaluate_retrieval(*data, cameras="ignore", convention=convention)
    assert_equal_to_twin(without, twin.ranked_hits(*data[:4]))
    assert without.mean_ap == ignored.mean_ap != evaluate_retrieval(*data, convention=convention).mean_ap
    assert (without.camera_policy, ignored.camera_policy) == ("none given", "ignore")


def test_per_query_values_and_means_agree():
    data = clustered(5)
    result = evaluate_retrieval(*data, ranks=(1, 3))
    hits = twin.ranked_hits(*data)
    np.testing.assert_array_equal(result.valid, [hit.any() for hit in hits])
    np.testing.assert_allclose(result.ap, [twin.average_precision(hit) for hit in hits], atol=1e-12)
    np.testing.assert_array_equal(result.first_rank, [np.argmax(hit) + 1 if hit.any() else 0 for hit in hits])
    assert 0 < result.num_valid_queries < result.num_queries == 40
    assert np.isnan(result.ap[~result.valid]).all()
    assert result.cmc[3] == np.mean(result.first_rank[result.valid] <= 3)


@pytest.mark.parametrize("chunk", [1, 7, 39, 40, 1000])
def test_chunks_do_not_matter(chunk):
    data = tied(11, queries=40, items=300)
    whole, parts = evaluate_retrieval(*data), evaluate_retrieval(*data, chunk=chunk)
    np.testing.assert_array_equal(whole.ap, parts.ap)
    np.testing.assert_array_equal(whole.first_rank, parts.first_rank)


@pytest.mark.parametrize("matches", [1, 3, 200, 800])
def test_few_and_many_matches(matches):
    """Of one match little of a row is sorted, of many all of it."""
    rng = np.random.default_rng(matches)
    ids = rng.permutation(np.arange(1000) >= matches).astype(int)
    query, gallery = rng.standard_normal((3, 8)).astype("f4"), rng.standard_normal((1000, 8)).astype("f4")
    data = (query, gallery, np.zeros(3, int), ids)
    assert_equal_to_twin(evaluate_retrieval(*data), twin.ranked_hits(*data))


def test_counting_on_a_device_finds_the_same_places(monkeypatch):
    """The branch for accelerators runs on any device; here on the CPU, with ties and junk."""
    data = tied(8, queries=30, items=200)
    expected = evaluate_retrieval(*data)
    monkeypatch.setattr(ranking, "_look", ranking._look_on_device)
    monkeypatch.setattr(
        ranking, "_ahead", lambda scores, lengths, matches, pool: [count_ahead_on_device(scores, matches)]
    )
    found = evaluate_retrieval(*data)
    np.testing.assert_array_equal(found.ap, expected.ap)
    np.testing.assert_array_equal(found.inp, expected.inp)


def test_equal_similarities_keep_the_gallery_order():
    gallery = np.tile(np.float32([[1, 0]]), (5, 1))
    for place in range(5):
        ids = np.arange(5) == place
        result = evaluate_retrieval(gallery[:1], gallery, [1], ids.astype(int), ranks=(1,))
        assert result.first_rank[0] == place + 1
        assert result.mean_ap == pytest.approx(1 / (place + 1))


@pytest.mark.parametrize("width", [2, 64, 500])
@pytest.mark.parametrize(("queries", "items"), [(1, 50), (1, 333), (3, 333), (3, 4099), (17, 7)])
def test_equal_items_keep_their_order_however_few_there_are(queries, items, width):
    """A BLAS sums the last columns of a small product in an order of their own."""
    rng = np.random.default_rng(width)
    query, item = (rng.standard_normal((n, width)).astype(np.float32) for n in (queries, 1))
    ids = np.arange(items) == items - 1
    result = evaluate_retrieval(query, np.repeat(item, items, axis=0), np.ones(queries, int), ids.astype(int))
    np.testing.assert_array_equal(result.first_rank, items)


@pytest.mark.parametrize("convert", ["float16", "memmap", "torch", "bfloat16", "strided", "float64"])
def test_process(convert, tmp_path):
    query, gallery, *rest = tied(2)
    expected = evaluate_retrieval(query, gallery, *rest)
    if convert in ("float16", "float64"):
        gallery = gallery.astype(convert)
    elif convert == "memmap":
        np.save(tmp_path / "gallery.npy", gallery)
        gallery = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    elif convert == "strided":
        gallery = np.asfortranarray(np.repeat(gallery, 2, axis=0))[::2]
    else:
        kind = torch.bfloat16 if convert == "bfloat16" else torch.float32
        query, gallery = torch.from_numpy(query), torch.from_numpy(gallery).to(kind).requires_grad_()
    np.testing.assert_array_equal(evaluate_retrieval(query, gallery, *rest).ap, expected.ap)


@pytest.mark.filterwarnings("error")
def test_a_read_only_array_is_read_in_silence():
    query, gallery, *rest = tied(2)
    gallery.flags.writeable = False
    evaluate_retrieval(query, gallery, *rest)


def test_ids_may_be_text_or_tensors():
    data = clustered(4)
    expected = evaluate_retrieval(*data).ap
    text = [np.array([f"p{i}" for i in ids]) for ids in data[2:]]
    np.testing.assert_array_equal(evaluate_retrieval(*data[:2], *text).ap, expected)
    np.testing.assert_array_equal(evaluate_retrieval(*data[:2], *[list(ids) for ids in text]).ap, expected)
    np.testing.assert_array_equal(evaluate_retrieval(*data[:2], *map(torch.from_numpy, data[2:])).ap, expected)


def test_large_ids_stay_apart():
    rows = np.eye(3, dtype=np.float32)
    ids = np.array([2**24, 2**24 + 1, 2**53 + 1])
    result = evaluate_retrieval(rows, rows, ids, ids)
    assert result.mean_ap == 1.0


@pytest.mark.parametrize("types", [("uint64", "int64"), ("int64", "uint64"), ("uint64", "uint64")])
def test_large_ids_of_different_types_stay_apart(types):
    """numpy brings uint64 and signed numbers together as float64, where 2**53 and 2**53 + 1 are one."""
    rows, ids = np.eye(4, dtype=np.float32), 2**53 + np.arange(4)
    result = evaluate_retrieval(rows, np.roll(rows, 1, axis=0), *(ids.astype(kind) for kind in types))
    np.testing.assert_array_equal(result.first_rank, [2, 3, 4, 4])


@pytest.mark.parametrize("older", [False, True])
def test_callers_precision_settings_do_not_leak_in_or_out(older, monkeypatch):
    if older:
        monkeypatch.setattr(process, "_BACKENDS", [])  # as before torch 2.9
    data = clustered(6)
    expected = evaluate_retrieval(*data).ap
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            np.testing.assert_array_equal(evaluate_retrieval(*data).ap, expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.skipif(not process._BACKENDS, reason="this torch knows one precision only")
@pytest.mark.parametrize("place", ["cuda.matmul", "mkldnn.matmul", ""])
def test_precision_of_a_backend_does_not_leak_in_or_out(place):
    backend = functools.reduce(getattr, filter(None, place.split(".")), torch.backends)
    before, during = backend.fp32_precision, []
    backend.fp32_precision = "tf32"
    try:
        evaluate_retrieval(*clustered(6), progress=lambda *_: during.append(process.precision()))
        assert backend.fp32_precision == "tf32"
        backend.fp32_precision = "ieee"
        assert process.precision()[place.startswith("mkldnn")] == "ieee"  # what followed the setting still does
    finally:
        backend.fp32_precision = before
    assert during == [["ieee", "ieee"]]


def test_progress_counts_queries():
    seen = []
    evaluate_retrieval(*clustered(1), chunk=15, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(15, 40), (30, 40), (40, 40)]


def test_summary_is_json():
    text = json.dumps(evaluate_retrieval(*clustered(1)).summary())
    assert {"mean_ap", "rank1", "rank10", "mean_inp", "convention", "camera_policy"} <= set(json.loads(text))


def broken(**changes):
    query, gallery, query_ids, gallery_ids, query_cameras, gallery_cameras = clustered(0)
    arguments = {
        "query": query,
        "gallery": gallery,
        "query_ids": query_ids,
        "gallery_ids": gallery_ids,
        "query_cameras": query_cameras,
        "gallery_cameras": gallery_cameras,
    }
    return {**arguments, **changes}


def with_row(value):
    gallery = clustered(0)[1].copy()
    gallery[17, 3:] = value
    gallery[17] *= 0 if value == 0 else 1
    return gallery


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gallery": with_row(0)}, "gallery: row 17 is a zero vector"),
        ({"gallery": with_row(np.nan)}, "gallery: row 17 is not finite"),
        ({"query": clustered(0)[0] * np.inf}, "query: row 0 is not finite"),
        ({"gallery": clustered(0)[1][:, :5]}, "query has 16 columns and gallery has 5"),
        ({"gallery": np.empty((0, 16), "f4")}, "gallery is empty"),
        ({"gallery": np.empty((160, 0), "f4")}, "at least one column"),
        ({"gallery": np.ones(160, "f4")}, "rows, columns"),
        ({"gallery_ids": [1, 2]}, "gallery 160, gallery_ids 2"),
        ({"query_cameras": None}, "both be given or both be None"),
        ({"gallery_ids": np.full(160, 99)}, "share no id"),
        ({"query_cameras": np.zeros(40, int), "gallery_cameras": np.zeros(160, int)}, "1 camera in all.*'ignore'"),
        ({"ranks": ()}, "ranks"),
        ({"ranks": (0, 1)}, "ranks"),
        ({"convention": "coco"}, "convention"),
        ({"cameras": "drop"}, "cameras must be"),
        ({"chunk": 0}, "chunk"),
        ({"query_ids": np.zeros((40, 1), int)}, "one-dimensional"),
    ],
)
def test_bad_values_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        evaluate_retrieval(**broken(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query": clustered(0)[0].astype(int)}, "query must be floating point"),
        ({"query": torch.ones(40, 16, dtype=torch.int32)}, "query must be floating point"),
        ({"query_ids": np.zeros(40)}, "query_ids must be whole numbers or text"),
        ({"query_ids": ["a"] * 40}, "both be numbers or both be text"),
    ],
)
def test_bad_types_are_named(changes, message):
    with pytest.raises(TypeError, match=message):
        evaluate_retrieval(**broken(**changes))
