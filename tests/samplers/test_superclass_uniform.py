"""SUR: superclasses given, an inner k per class, and superclasses found anew."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_cckd.samplers import ClassUniformSampler, SuperclassUniformSampler, UniformSampler
from tests.reference import samplers as reference


@st.composite
def nested(draw: st.DrawFn) -> dict[str, Any]:
    """Superclasses of classes of images, and settings that fit them."""
    count, groups = draw(st.integers(5, 14)), draw(st.integers(2, 5))
    sizes = draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))
    labels = np.random.default_rng(draw(st.integers(0, 99))).permutation(np.repeat(np.arange(count), sizes))
    inner, outer = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return {
        "superclasses": labels % groups,
        "labels": labels,
        "superclasses_per_batch": draw(st.integers(1, groups)),
        "samples_per_superclass": inner * outer,
        "samples_per_class": inner,
        "seed": draw(st.integers(0, 1000)),
    }


@settings(max_examples=30, deadline=None)
@given(nested())
def test_batches_are_the_slow_ones(problem: dict[str, Any]) -> None:
    sampler = SuperclassUniformSampler(**problem, batches_per_epoch=9)
    inner = problem["samples_per_class"]
    assert list(sampler) == [
        reference.batch(
            number,
            problem["superclasses"].tolist(),
            problem["superclasses_per_batch"],
            problem["samples_per_superclass"] // inner,
            inner,
            problem["labels"].tolist(),
            seed=problem["seed"],
        )
        for number in range(9)
    ]


@settings(max_examples=30, deadline=None)
@given(nested())
def test_images_of_a_superclass_come_in_groups_of_one_class(problem: dict[str, Any]) -> None:
    labels, superclasses, inner = problem["labels"], problem["superclasses"], problem["samples_per_class"]
    sizes = Counter(labels.tolist())
    for batch in SuperclassUniformSampler(**problem, batches_per_epoch=20):
        rows = np.reshape(batch, (problem["superclasses_per_batch"], -1))
        assert len({tuple(set(superclasses[row].tolist())) for row in rows}) == len(rows)
        for row in rows:
            assert len(set(superclasses[row].tolist())) == 1
            for group in row.reshape(-1, inner):
                assert len(set(labels[group].tolist())) == 1
            for label, images in Counter(labels[row].tolist()).items():
                assert len(set(row[labels[row] == label].tolist())) == min(images, sizes[label])


@settings(max_examples=20, deadline=None)
@given(nested())
def test_every_image_comes_in_a_cycle_of_groups(problem: dict[str, Any]) -> None:
    labels, superclasses, inner = problem["labels"], problem["superclasses"], problem["samples_per_class"]
    hands = problem["samples_per_superclass"] // inner
    visits: dict[int, list[np.ndarray]] = {}
    for batch in SuperclassUniformSampler(**problem, batches_per_epoch=150):
        for row in np.reshape(batch, (problem["superclasses_per_batch"], -1)):
            visits.setdefault(int(superclasses[row[0]]), []).append(row)
    for superclass, rows in visits.items():
        members = np.flatnonzero(superclasses == superclass)
        groups = sum(-(-size // inner) for size in Counter(labels[members].tolist()).values())
        cycle = -(-groups // hands)
        for start in range(0, len(rows) - cycle + 1, cycle):
            assert set(np.concatenate(rows[start : start + cycle]).tolist()) == set(members.tolist())


def test_different_classes_of_a_superclass_while_there_are() -> None:
    labels = np.repeat(np.arange(12), 4)
    sampler = SuperclassUniformSampler(labels // 4, 2, 8, labels=labels, samples_per_class=2, batches_per_epoch=40)
    for batch in sampler:
        for row in np.reshape(batch, (2, 8)):
            assert sorted(Counter(labels[row].tolist()).values()) == [2, 2, 2, 2]


def test_without_labels_superclasses_are_drawn_as_classes_are() -> None:
    groups = np.random.default_rng(0).integers(0, 6, 90)
    settings_ = {"seed": 4, "short": "cycle", "cameras": np.arange(90) % 3, "class_weights": [1, 2, 1, 1, 2, 1]}
    ours = SuperclassUniformSampler(groups, 3, 5, **settings_)
    assert list(ours) == list(ClassUniformSampler(groups, 3, 5, **settings_))


def test_superclasses_can_be_changed_between_epochs() -> None:
    old, new = np.repeat([0, 1, 2, 3], 8), np.tile([0, 1, 2, 3], 8)
    sampler = SuperclassUniformSampler(old, 2, 4)
    list(sampler)
    sampler.set_superclasses(new)
    sampler.set_epoch(1)
    fresh = SuperclassUniformSampler(new, 2, 4)
    fresh.set_epoch(1)
    assert list(sampler) == list(fresh)
    assert sampler.state_dict() == fresh.state_dict()
    with pytest.raises(ValueError, match=r"32 .* 31"):
        sampler.set_superclasses(new[:31])


def test_uniform_batches_show_every_image_once_an_epoch() -> None:
    sampler = UniformSampler(103, 10)
    assert len(sampler) == 11
    for epoch in range(3):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert all(len(set(batch)) == 10 for batch in batches)
        assert set(np.concatenate(batches).tolist()) == set(range(103))
    assert list(UniformSampler(np.zeros(103), 10)) == list(UniformSampler(103, 10))


def test_uniform_batches_are_of_unrelated_images() -> None:
    sampler = UniformSampler(40, 8, batches_per_epoch=2000)
    meetings = np.zeros((40, 40))
    for batch in sampler:
        meetings[np.ix_(batch, batch)] += 1
    pairs = meetings[np.triu_indices(40, 1)]
    expected = 2000 * 28 / 780
    assert ((pairs - expected) ** 2 / expected).sum() < 780 + 5 * np.sqrt(2 * 780)
