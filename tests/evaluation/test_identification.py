"""Identification against a twin that walks through the pairs."""

import json

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reid_cckd.evaluation import coarse, distractors, evaluate_identification, products
from tests.reference import identification as twin

SCALES, RANKS, FPRS = (10, 100, 300), (1, 3, 20), (1e-3, 1e-2, 0.3)


def faces(seed, people=6, width=12, distractors=300, noise=1.0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, people, 30)
    photos = rng.standard_normal((people, width))[ids] + noise * rng.standard_normal((30, width))
    others = rng.standard_normal((distractors, width)) * rng.uniform(0.1, 10, (distractors, 1))
    return photos.astype(np.float32), ids, others.astype(np.float32)


def tied(seed):
    """Similarities that are exact in float32: rows of four entries of +-1 among zeros."""
    rng = np.random.default_rng(seed)

    def rows(count):
        out = np.zeros((count, 6), dtype=np.float32)
        for row in out:
            row[rng.choice(6, 4, replace=False)] = rng.choice([-1.0, 1.0], 4)
        return out

    return rows(30), rng.integers(0, 6, 30), rows(300)


def assert_equal_to_twin(result, data, ignored=None, ranks=RANKS, fprs=FPRS):
    for scale in SCALES:
        rate, tpr = twin.evaluate(*data, scale, ranks, fprs, ignored)
        assert result.rate[scale] == pytest.approx(rate, abs=1e-9)
        assert result.tpr[scale] == pytest.approx(tpr, abs=1e-9)


@pytest.mark.parametrize("make", [faces, tied])
@given(seed=st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_equals_twin(make, seed):
    data = make(seed)
    assume(twin.is_decided(*data))
    assert_equal_to_twin(evaluate_identification(*data, SCALES, RANKS, FPRS), data)


@pytest.mark.parametrize("branch", ["_count", "_count_on_device"])
@pytest.mark.parametrize(("tile", "scores"), [(7, 40), (64, 64), (1000, 4000)])
def test_tiles_do_not_matter(monkeypatch, branch, tile, scores):
    """Small tiles, small probe chunks, and the branch for accelerators, run here on the CPU."""
    monkeypatch.setattr(distractors, "TILE", tile)
    monkeypatch.setattr(distractors, "_SCORES", scores)
    count = getattr(distractors.Pass, branch)
    monkeypatch.setattr(distractors.Pass, "_count", torch.inference_mode()(count))  # threads of the CPU know of none
    for make in (faces, tied):
        data = make(5)
        assert_equal_to_twin(evaluate_identification(*data, SCALES, RANKS, FPRS), data)


@pytest.fixture
def coarsely(monkeypatch):
    """As on a processor with fast bfloat16, whatever runs this; the exact scores that were asked for, pair by pair."""
    asked = []

    def products_of(left, right, rows, columns):
        asked.append(len(rows))
        return products.products_of(left, right, rows, columns)

    monkeypatch.setattr(coarse, "available", lambda: True)
    monkeypatch.setattr(coarse, "_FEW", 0.2)
    monkeypatch.setattr(distractors, "TILE", 50)
    monkeypatch.setattr(distractors, "products_of", products_of)
    return asked


@pytest.mark.parametrize("make", [faces, tied])
def test_coarse_products_change_nothing(coarsely, make):
    for seed in range(5):
        data = make(seed)
        result = evaluate_identification(*data, SCALES, (1, 3), (1e-3,))
        assert_equal_to_twin(result, data, None, (1, 3), (1e-3,))
    assert 0 < sum(coarsely) < 5 * 30 * 300 / 5


def test_coarse_products_leave_ignored_distractors_out(coarsely):
    photos, ids, others = faces(3)
    ignored = np.arange(300) % 3 == 1
    others[ignored] = photos[0]
    result = evaluate_identification(photos, ids, others, SCALES, (1, 3), (1e-3,), ignored=ignored)
    assert sum(coarsely)
    assert_equal_to_twin(result, (photos, ids, others), ignored, (1, 3), (1e-3,))


@pytest.mark.parametrize("collapsed", [False, True])
@pytest.mark.parametrize("width", [8, 64, 512])
def test_a_copy_of_the_mate_is_a_tie(width, collapsed):
    """However the products of the same two rows were summed: a hit, and no acceptance."""
    rng = np.random.default_rng(width)
    photos = rng.standard_normal((80, width)).astype(np.float32)
    photos[1::2] += photos[::2]
    photos = np.tile(photos[:1], (80, 1)) if collapsed else photos
    data = photos, np.arange(80) // 2, np.tile(2 * photos[1::2], (9, 1))
    result = evaluate_identification(*data, (333,), (1, 2), (1e-6,))
    rate, tpr = twin.evaluate(*data, 333, (1, 2), (1e-6,))
    assert (result.rate[333], result.tpr[333]) == (pytest.approx(rate), pytest.approx(tpr))


def test_ignored_distractors_count_and_never_win():
    photos, ids, others = faces(3)
    ignored = np.random.default_rng(0).random(300) < 0.1
    others[ignored] = photos[
        np.arange(ignored.sum()) % 30
    ]  # photos of the probes themselves, the worst that may hide there
    unclean = evaluate_identification(photos, ids, others, SCALES, RANKS, FPRS)
    clean = evaluate_identification(photos, ids, others, SCALES, RANKS, FPRS, ignored=ignored)
    assert_equal_to_twin(clean, (photos, ids, others), ignored)
    assert clean.num_ignored == {scale: ignored[:scale].sum() for scale in SCALES}
    assert clean.rate[300][1] > unclean.rate[300][1]
    others[np.flatnonzero(ignored)[:2]] = [[0] * 12, [np.nan] * 12]  # never looked at
    assert evaluate_identification(photos, ids, others, SCALES, RANKS, FPRS, ignored=ignored).rate == clean.rate


def test_an_order_is_as_good_as_rows_in_that_order(monkeypatch):
    monkeypatch.setattr(distractors, "TILE", 64)
    photos, ids, others = faces(6, distractors=500)
    order = np.random.default_rng(0).permutation(500)[:300]
    ignored = np.random.default_rng(1).random(500) < 0.1
    others[ignored] = 0
    expected = evaluate_identification(photos, ids, others[order], SCALES, RANKS, FPRS, ignored=ignored[order])
    found = evaluate_identification(photos, ids, others, SCALES, RANKS, FPRS, ignored=ignored, order=order)
    assert (found.rate, found.tpr, found.num_ignored) == (expected.rate, expected.tpr, expected.num_ignored)
    bad = np.flatnonzero(ignored)[0]
    with pytest.raises(ValueError, match=f"row {bad} is a zero vector"):
        evaluate_identification(photos, ids, others, (10,), order=np.append(np.flatnonzero(~ignored)[:9], bad))


def test_more_distractors_never_help():
    result = evaluate_identification(*faces(1), SCALES, RANKS, FPRS)
    for rank in RANKS:
        assert result.rate[10][rank] >= result.rate[100][rank] >= result.rate[300][rank] > 0
    assert result.num_pairs == len(result.above[10])
    assert json.loads(json.dumps(result.summary()))[0]["distractors"] == 10


@pytest.mark.parametrize("kind", ["float16", "memmap", "torch"])
def test_inputs(kind, tmp_path):
    photos, ids, others = tied(4)
    expected = evaluate_identification(photos, ids, others, SCALES, RANKS, FPRS)
    if kind == "memmap":
        np.save(tmp_path / "others.npy", others)
        others = np.load(tmp_path / "others.npy", mmap_mode="r")
    elif kind == "float16":
        photos, others = photos.astype(np.float16), others.astype(np.float16)
    else:
        photos, others, ids = torch.from_numpy(photos), torch.from_numpy(others), [f"p{i}" for i in ids]
    found = evaluate_identification(photos, ids, others, SCALES, RANKS, FPRS)
    assert (found.rate, found.tpr) == (expected.rate, expected.tpr)


def test_the_distractors_are_read_in_order_and_progress_says_so(monkeypatch):
    monkeypatch.setattr(distractors, "TILE", 128)
    seen = []
    evaluate_identification(*faces(0), SCALES, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(10, 300), (100, 300), (128, 300), (256, 300), (300, 300)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scales": (10, 301)}, "301 distractors are wanted and there are 300"),
        ({"scales": ()}, "scales"),
        ({"scales": (0,)}, "scales"),
        ({"ranks": (0,)}, "ranks"),
        ({"fprs": (0.0,)}, "fprs"),
        ({"probe_ids": np.arange(30)}, "no person has two photos"),
        ({"probe_ids": np.arange(3)}, "probes 30, probe_ids 3"),
        ({"distractors": np.zeros((300, 12), "f4")}, "distractors: row 0 is a zero vector"),
        ({"distractors": np.ones((300, 5), "f4")}, "probes has 12 columns and distractors has 5"),
        ({"probes": np.empty((0, 12), "f4"), "probe_ids": []}, "probes is empty"),
        ({"ignored": np.zeros(3, bool)}, "distractors 300, ignored 3"),
        ({"order": np.arange(9)}, "10 distractors are wanted and there are 9"),
        ({"order": np.arange(291, 301)}, r"order must be rows in 0 \.\.\. 299"),
    ],
)
def test_bad_input_is_named(changes, message):
    photos, ids, others = faces(0)
    with pytest.raises(ValueError, match=message):
        evaluate_identification(
            **{"probes": photos, "probe_ids": ids, "distractors": others, "scales": (10,), **changes}
        )
