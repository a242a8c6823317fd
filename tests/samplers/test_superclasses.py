"""Superclasses found by K-means, their agreement with labels, and the file they are kept in."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from reid_cckd.samplers import (
    ClassUniformSampler,
    Superclasses,
    SuperclassUniformSampler,
    build_superclasses,
    superclass_report,
    superclasses_of_epoch,
)
from reid_cckd.samplers.clustering import _class_means

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(6, 16))
TRUE = RNG.integers(0, 6, 900)
POINTS = (CENTRES[TRUE] + 0.15 * RNG.normal(size=(900, 16))).astype(np.float32)
LABELS = TRUE * 10 + RNG.integers(0, 10, 900)  # ten classes in each true superclass


@pytest.mark.parametrize("by", ["instance", "class centroid"])
@pytest.mark.parametrize("spherical", [True, False])
def test_well_separated_superclasses_are_found(by: Any, spherical: bool) -> None:
    found = build_superclasses(POINTS, LABELS, 6, by=by, spherical=spherical)
    assert normalized_mutual_info_score(TRUE, found.assignments) == pytest.approx(1.0)
    assert found.sizes.tolist() == [(found.assignments == c).sum() for c in range(6)]
    assert found.sizes.sum() == 900
    assert found.repaired == 0


def test_classes_stay_together_when_their_centroids_are_clustered() -> None:
    noisy = (POINTS + 2 * RNG.normal(size=POINTS.shape)).astype(np.float32)
    found = build_superclasses(noisy, LABELS, 6, by="class centroid").assignments
    assert all(len(set(found[label == LABELS].tolist())) == 1 for label in set(LABELS.tolist()))


def test_equal_seeds_are_equal_and_kept_with_the_settings() -> None:
    noise = RNG.normal(size=(500, 8)).astype(np.float32)
    first, again, other = (build_superclasses(noise, np.arange(500), 20, seed=seed) for seed in (1, 1, 2))
    assert (first.assignments == again.assignments).all()
    assert (first.assignments != other.assignments).any()
    assert (first.seed, first.by, first.spherical) == (1, "instance", True)


@pytest.mark.parametrize(
    "convert",
    [
        torch.tensor,
        lambda x: x.astype(np.float64),
        lambda x: np.asfortranarray(x),
        lambda x: torch.tensor(x).bfloat16().requires_grad_(),  # numpy has no such type
    ],
)
def test_embeddings_come_in_any_form(convert: Any) -> None:
    want = build_superclasses(POINTS, LABELS, 6).assignments
    assert (build_superclasses(convert(POINTS), torch.tensor(LABELS), 6).assignments == want).all()


def test_a_half_precision_memory_map_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", POINTS.astype(np.float16))
    found = build_superclasses(np.load(tmp_path / "x.npy", mmap_mode="r"), LABELS, 6)
    assert normalized_mutual_info_score(TRUE, found.assignments) == pytest.approx(1.0)


def test_the_length_of_rows_matters_only_to_plain_k_means() -> None:
    longer = POINTS * RNG.uniform(0.1, 10, (900, 1)).astype(np.float32)
    spherical = build_superclasses(longer, LABELS, 6).assignments
    assert normalized_mutual_info_score(TRUE, spherical) == pytest.approx(1.0)
    assert normalized_mutual_info_score(TRUE, build_superclasses(longer, LABELS, 6, spherical=False).assignments) < 0.95


def test_training_on_some_rows_assigns_all() -> None:
    found = build_superclasses(POINTS, LABELS, 6, max_points_per_centroid=20)
    assert normalized_mutual_info_score(TRUE, found.assignments) == pytest.approx(1.0)
    assert len(found.assignments) == 900


def test_every_row_is_with_its_nearest_centroid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reid_cckd.samplers.clustering._ROWS_AT_ONCE", 256)
    noise = RNG.normal(size=(700, 8)).astype(np.float32)
    found = build_superclasses(noise, np.arange(700), 9, spherical=False)
    distances = ((noise[:, None].astype(float) - found.centroids[None]) ** 2).sum(-1)
    assert (distances.argmin(1) == found.assignments).all()
    assert found.objective == pytest.approx(distances.min(1).mean(), rel=1e-4)
    unit = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    found = build_superclasses(noise, np.arange(700), 9)
    distances = ((unit[:, None].astype(float) - found.centroids[None]) ** 2).sum(-1)
    assert (distances.argmin(1) == found.assignments).all()
    assert found.objective == pytest.approx(distances.min(1).mean(), rel=1e-4)


def test_no_superclass_is_empty_even_of_equal_rows() -> None:
    copies = np.repeat(POINTS[:3], 10, axis=0)
    found = build_superclasses(copies, np.arange(30), 8)
    assert found.sizes.min() >= 1
    assert found.repaired >= 5
    assert np.isfinite(found.centroids).all()
    as_many_as_rows = build_superclasses(copies, np.arange(30), 30)
    assert (as_many_as_rows.sizes == 1).all()


@pytest.mark.parametrize("spherical", [True, False])
@pytest.mark.parametrize("points", ["far from zero", "some zero", "many equal"])
def test_the_objective_is_the_mean_squared_distance(points: str, spherical: bool) -> None:
    """Where products have no digits left of differences, where rows have no direction, and of clusters filled later."""
    rows = {
        "far from zero": POINTS + 100,
        "some zero": np.concatenate([POINTS[:50], np.zeros_like(POINTS[:50])]),
        "many equal": POINTS[0] + np.concatenate([np.zeros_like(POINTS[:400]), 0.2 * POINTS[:6]]),
    }[points]
    found = build_superclasses(rows, np.arange(len(rows)), 4, spherical=spherical, attempts=1)
    assert bool(found.repaired) == (points == "many equal" and not spherical)
    length = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) if spherical else 1
    offsets = rows.astype(float) / length - found.centroids[found.assignments]
    assert found.objective == pytest.approx((offsets**2).sum(axis=1).mean(), rel=1e-4)


def test_class_means_are_those_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reid_cckd.samplers.clustering._ROWS_AT_ONCE", 64)
    members = np.unique(LABELS, return_inverse=True)[1]
    want = [POINTS[members == c].astype(float).mean(0) for c in range(members.max() + 1)]
    np.testing.assert_allclose(_class_means(POINTS, members, normalise=False), want, rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=40))
def test_agreement_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    groups, classes = np.array(pairs).T
    report = superclass_report(groups * 7, classes + 2)
    assert report.nmi == pytest.approx(normalized_mutual_info_score(classes, groups), abs=1e-12)
    assert report.purity == pytest.approx(contingency_matrix(groups, classes).max(1).sum() / len(pairs))
    assert report.sizes.tolist() == np.unique(groups, return_counts=True)[1].tolist()


def test_pairs_within_a_superclass_are_counted() -> None:
    groups = np.repeat(np.arange(8), 25)
    sur = superclass_report(groups, groups, SuperclassUniformSampler(groups, 4, 4))
    assert sur.pairs_within == pytest.approx(3 / 15)
    assert sur.pairs_within_uniform == pytest.approx(24 / 199)
    cur = superclass_report(groups, groups, ClassUniformSampler(np.arange(200) // 5, 8, 2, batches_per_epoch=300))
    assert cur.pairs_within is not None
    assert cur.pairs_within > 1 / 15  # the pairs of a class, and some classes of one superclass
    assert superclass_report(groups, groups).pairs_within is None


def test_a_file_brings_everything_back(tmp_path: Path) -> None:
    found = build_superclasses(POINTS, LABELS, 6, by="class centroid", seed=3)
    found.save(tmp_path / "deep" / "s.npz")
    loaded = Superclasses.load(tmp_path / "deep" / "s.npz")
    for field in dataclasses.fields(Superclasses):
        mine, theirs = getattr(found, field.name), getattr(loaded, field.name)
        assert type(mine) is type(theirs)
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("damage", ["cut", "text", "other"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "s.npz"
    build_superclasses(POINTS, LABELS, 6).save(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "text":
        path.write_text("nothing")
    else:
        np.savez(path, assignments=np.zeros(3))
    with pytest.raises(ValueError, match=r"s\.npz is not a file of superclasses"):
        Superclasses.load(path)


def test_superclasses_are_found_anew_every_so_many_epochs(tmp_path: Path) -> None:
    turns = []

    def find(turn: int) -> Superclasses:
        turns.append(turn)
        return build_superclasses(POINTS, LABELS, 6, seed=turn)

    seeds = [superclasses_of_epoch(tmp_path, epoch, 3, find).seed for epoch in range(7)]
    assert seeds == [0, 0, 0, 1, 1, 1, 2]
    assert turns == [0, 1, 2]
    assert superclasses_of_epoch(tmp_path, 5, 3, find).seed == 1  # a run that goes on
    assert superclasses_of_epoch(tmp_path, 99, None, find).seed == 0
    assert turns == [0, 1, 2]
