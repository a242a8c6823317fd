"""Templates, cleaned probes, and search among enrolled people, against twins."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_cckd.evaluation import clean_probes, evaluate_open_set, pool_templates
from tests.reference import templates as twin


def images(seed, count=40, width=6):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, width)).astype(np.float32) * rng.uniform(0.2, 5, (count, 1)).astype(np.float32)
    return rows, rng.integers(0, 7, count), rng.integers(0, 4, count)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_templates_equal_twin(seed):
    rows, templates, media = images(seed)
    weights = np.random.default_rng(seed).uniform(0.1, 1, len(rows))
    for given_weights in (None, weights):
        pooled, owners = pool_templates(rows, templates, media, given_weights)
        np.testing.assert_allclose(pooled, twin.pool(rows, templates, media, given_weights), atol=1e-5)
        np.testing.assert_array_equal(np.unique(templates)[owners], templates)


def test_the_frames_of_a_video_count_as_one_photo():
    photo, frame = np.eye(2, dtype=np.float32)
    pooled, _ = pool_templates(np.stack([photo, frame, frame, frame]), ["a"] * 4, [0, 1, 1, 1])
    np.testing.assert_allclose(pooled, [[0.5**0.5, 0.5**0.5]], atol=1e-6)


def test_templates_without_direction_and_of_other_lengths_are_refused():
    rows = np.array([[1, 0], [-1, 0]], dtype=np.float32)
    with pytest.raises(ValueError, match="templates: row 0 is a zero vector"):
        pool_templates(rows, [3, 3], [0, 1])
    with pytest.raises(ValueError, match="media 1"):
        pool_templates(rows, [3, 3], [0])
    with pytest.raises(ValueError, match="empty"):
        pool_templates(rows[:0], [], [])


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_clean_probes_equal_twin(seed):
    rows, people, _ = images(seed)
    noisy = np.random.default_rng(seed).random(len(rows)) < 0.2
    noisy[np.unique(people, return_index=True)[1]] = False
    np.testing.assert_allclose(clean_probes(rows, people, noisy), twin.clean(rows, people, noisy), atol=1e-5)


def test_a_person_without_a_clean_photo_is_named():
    rows, _, _ = images(0)
    names = ["ann"] * 20 + ["bob"] * 20
    with pytest.raises(ValueError, match="every photo of bob is noisy"):
        clean_probes(rows, names, np.array([False] * 20 + [True] * 20))


def probes(seed, tied=False):
    rng = np.random.default_rng(seed)
    people = rng.permutation(12)
    centres = rng.standard_normal((12, 5))
    ids = rng.integers(0, 12, 50)
    ids[:2] = people[0], people[-1]
    rows = centres[ids] + rng.standard_normal((50, 5))
    if tied:  # similarities that are exact in float32
        centres, rows = (np.eye(4)[rng.integers(0, 4, n)] for n in (12, 50))
    return rows.astype(np.float32), centres[people[:7]].astype(np.float32), ids, people[:7]


@pytest.mark.parametrize("tied", [False, True])
@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_search_equals_twin(tied, seed):
    data = probes(seed, tied)
    result = evaluate_open_set(*data, ranks=(1, 3), fpirs=(0.05, 0.3), chunk=7)
    cmc, tpir = twin.search(*data, (1, 3), (0.05, 0.3))
    assert result.cmc == pytest.approx(cmc, abs=1e-9)
    assert result.tpir == pytest.approx(tpir, abs=1e-9)
    assert (result.num_mated, result.num_nonmated) == ((result.ranks > 0).sum(), (result.ranks == 0).sum())
    assert json.loads(json.dumps(result.summary()))["num_gallery"] == 7


def test_everybody_enrolled_is_a_closed_set():
    rows, gallery, _, people = probes(0)
    result = evaluate_open_set(gallery, gallery, people, people)
    assert (result.cmc[1], result.tpir, result.num_nonmated) == (1.0, {}, 0)
    assert evaluate_open_set(rows, gallery, [f"p{people[0]}"] * 50, [f"p{i}" for i in people]).num_mated == 50


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gallery_ids": np.zeros(7, int)}, "enrolled twice"),
        ({"probe_ids": np.full(50, 99)}, "share no id"),
        ({"probe_ids": np.zeros(3, int)}, "probe_ids 3"),
        ({"ranks": (0,)}, "ranks"),
        ({"fpirs": (1.0,)}, "fpirs"),
        ({"gallery": np.ones((7, 2), "f4")}, "columns"),
    ],
)
def test_bad_input_is_named(changes, message):
    rows, gallery, ids, people = probes(0)
    arguments = {"probes": rows, "gallery": gallery, "probe_ids": ids, "gallery_ids": people}
    with pytest.raises(ValueError, match=message):
        evaluate_open_set(**{**arguments, **changes})
