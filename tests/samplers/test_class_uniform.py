"""CUR: exact batches, coverage, short classes, cameras and weights."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_cckd.samplers import ClassUniformSampler
from tests.reference import samplers as reference


@st.composite
def problems(draw: st.DrawFn, shorts: tuple[str, ...] = ("replace", "cycle")) -> dict[str, Any]:
    """Labels with gaps, in random order, and settings that fit them."""
    sizes = draw(st.lists(st.integers(1, 13), min_size=2, max_size=9))
    labels = np.repeat(np.arange(len(sizes)) * 3 + 1, sizes)
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(labels))
    return {
        "labels": labels[order],
        "classes_per_batch": draw(st.integers(1, len(sizes))),
        "samples_per_class": draw(st.integers(1, 6)),
        "seed": draw(st.integers(0, 2**63)),
        "short": draw(st.sampled_from(shorts)),
        "batches_per_epoch": 7,
    }


def epochs(sampler: Any, count: int) -> Iterator[list[int]]:
    for epoch in range(count):
        sampler.set_epoch(epoch)
        yield from sampler


def visits_of(sampler: Any, labels: np.ndarray, count: int) -> dict[int, list[list[int]]]:
    """The images of every visit of every class, in order."""
    visits: dict[int, list[list[int]]] = defaultdict(list)
    for batch in epochs(sampler, count):
        images = defaultdict(list)
        for image in batch:
            images[int(labels[image])].append(image)
        for label, some in images.items():
            visits[label].append(some)
    return visits


@settings(max_examples=30, deadline=None)
@given(problems(), st.booleans())
def test_batches_are_the_slow_ones(problem: dict[str, Any], by_camera: bool) -> None:
    labels = problem["labels"]
    cameras = np.arange(len(labels)) * 5 % 4 if by_camera else None
    names = ("classes_per_batch", "samples_per_class")
    shape = [problem[name] for name in names]
    got = list(epochs(ClassUniformSampler(**problem, cameras=cameras), 2))
    assert got == [
        reference.batch(
            number,
            labels.tolist(),
            *shape,
            kinds=None if cameras is None else cameras.tolist(),
            short=problem["short"],
            seed=problem["seed"],
        )
        for number in range(14)
    ]


@settings(max_examples=30, deadline=None)
@given(problems(), st.booleans())
def test_exactly_p_times_k_and_no_repeated_image_while_the_class_has_k(
    problem: dict[str, Any], by_camera: bool
) -> None:
    labels, k = problem["labels"], problem["samples_per_class"]
    sizes = Counter(labels.tolist())
    cameras = np.arange(len(labels)) % 3 if by_camera else None
    for batch in epochs(ClassUniformSampler(**problem, cameras=cameras), 3):
        images_of = defaultdict(list)
        for image in batch:
            images_of[int(labels[image])].append(image)
        assert len(images_of) == problem["classes_per_batch"]
        for label, images in images_of.items():
            assert len(images) == k
            assert len(set(images)) == min(k, sizes[label])
            if problem["short"] == "cycle":
                counts = Counter(images).values()
                assert max(counts) - min(counts) <= 1


@settings(max_examples=30, deadline=None)
@given(problems(), st.booleans())
def test_every_image_of_a_class_comes_in_each_cycle_of_visits_across_epochs(
    problem: dict[str, Any], by_camera: bool
) -> None:
    labels, k = problem["labels"], problem["samples_per_class"]
    cameras = np.arange(len(labels)) ** 2 % 5 if by_camera else None
    sampler = ClassUniformSampler(**problem, cameras=cameras)
    per_pass = -(-len(set(labels.tolist())) // problem["classes_per_batch"])
    for label, visits in visits_of(sampler, labels, 4 * per_pass).items():
        members = set(np.flatnonzero(labels == label).tolist())
        cycle = -(-len(members) // k)
        assert len(visits) >= 28  # a visit in each pass
        for start in range(0, len(visits) - cycle + 1, cycle):
            assert {image for visit in visits[start : start + cycle] for image in visit} == members


@settings(max_examples=20, deadline=None)
@given(problems())
def test_every_pass_visits_every_class(problem: dict[str, Any]) -> None:
    labels = problem["labels"]
    classes = set(labels.tolist())
    per_pass = -(-len(classes) // problem["classes_per_batch"])
    batches = list(epochs(ClassUniformSampler(**problem), 5))
    for start in range(0, len(batches) - per_pass + 1, per_pass):
        assert {int(labels[i]) for batch in batches[start : start + per_pass] for i in batch} == classes


def test_an_epoch_has_as_many_images_as_there_are_and_at_least_one_pass() -> None:
    assert len(ClassUniformSampler(np.repeat(np.arange(10), 9), 4, 2)) == 12  # 90 images / 8, rounded up
    assert len(ClassUniformSampler(np.repeat(np.arange(10), 2), 2, 4)) == 5  # 20 images / 8 would miss classes


def test_batches_are_lists_of_python_integers() -> None:
    batch = next(iter(ClassUniformSampler([0, 0, 1, 1], 2, 2)))
    assert isinstance(batch, list)
    assert {type(image) for image in batch} == {int}


@pytest.mark.parametrize("convert", [list, np.uint8, torch.tensor, lambda x: np.asarray(x, np.float64)])
def test_labels_come_as_list_array_or_tensor(convert: Any) -> None:
    labels = [3, 1, 1, 3, 2, 2, 2]
    assert list(ClassUniformSampler(convert(labels), 2, 2)) == list(ClassUniformSampler(np.array(labels), 2, 2))


def test_labels_far_apart_are_kept_apart() -> None:
    labels = np.array([2**24, 2**24 + 1, 2**62, 0] * 3)
    for batch in ClassUniformSampler(labels, 4, 3, batches_per_epoch=3):
        assert Counter(labels[batch].tolist()) == {2**24: 3, 2**24 + 1: 3, 2**62: 3, 0: 3}


def test_short_classes_are_filled_up_or_left_out() -> None:
    labels = np.array([0] * 2 + [1] * 8 + [2] * 8)
    draws = {short: list(epochs(ClassUniformSampler(labels, 2, 8, short=short), 30)) for short in ("replace", "cycle")}
    counts = {
        short: {tuple(sorted(Counter(i for i in batch if i < 2).values())) for batch in batches} - {()}
        for short, batches in draws.items()
    }
    assert counts["cycle"] == {(4, 4)}
    assert len(counts["replace"]) > 2
    skipping = list(epochs(ClassUniformSampler(labels, 2, 8, short="skip"), 5))
    assert {int(labels[i]) for batch in skipping for i in batch} == {1, 2}


def test_drawing_with_replacement_is_fair() -> None:
    labels = np.array([0] * 3 + [1] * 3)
    sampler = ClassUniformSampler(labels, 2, 30, batches_per_epoch=200)
    counts = np.bincount(np.concatenate(list(sampler)), minlength=6)
    assert counts.sum() == 200 * 60
    assert abs(counts - 2000).max() < 150


def test_as_many_cameras_as_coverage_allows() -> None:
    """Four cameras of two images each and k = 4: every visit sees all of them."""
    labels, cameras = np.repeat(np.arange(6), 8), np.tile([0, 0, 1, 1, 2, 2, 3, 3], 6)
    for batch in epochs(ClassUniformSampler(labels, 3, 4, cameras=cameras), 4):
        for images in np.reshape(batch, (3, 4)):
            assert set(cameras[images]) == {0, 1, 2, 3}


def test_spare_places_go_to_rare_cameras() -> None:
    """Cameras with 2, 1, 1 and 1 images and k = 4: two visits, and the single images fit into both."""
    cameras = np.tile([0, 0, 1, 2, 3], 2)
    for batch in epochs(ClassUniformSampler(np.repeat([0, 1], 5), 2, 4, cameras=cameras), 4):
        assert [set(cameras[images]) for images in np.reshape(batch, (2, 4))] == [{0, 1, 2, 3}] * 2


@settings(max_examples=30, deadline=None)
@given(problems())
def test_a_camera_is_spread_over_the_visits_of_a_cycle(problem: dict[str, Any]) -> None:
    labels = problem["labels"]
    cameras = np.arange(len(labels)) ** 2 % 5
    sampler = ClassUniformSampler(**problem, cameras=cameras)
    for label, visits in visits_of(sampler, labels, 6).items():
        size = int((labels == label).sum())
        cycle = -(-size // problem["samples_per_class"])
        if size < problem["samples_per_class"]:
            continue
        for start in range(0, len(visits) - cycle + 1, cycle):
            counts = [np.bincount(cameras[visit], minlength=5) for visit in visits[start : start + cycle]]
            assert np.ptp(counts, axis=0).max() <= 1


def test_cameras_meet_in_new_combinations() -> None:
    """A fixed order of cameras would let two of them meet never or always."""
    labels, cameras = np.repeat([0, 1], 8), np.tile(np.arange(8), 2)
    pairs = Counter(
        pair
        for batch in epochs(ClassUniformSampler(labels, 2, 2, cameras=cameras, batches_per_epoch=50), 8)
        for pair in (tuple(sorted(cameras[images].tolist())) for images in np.reshape(batch, (2, 2)))
    )
    expected = 800 / 28
    assert len(pairs) == 28
    assert sum((count - expected) ** 2 / expected for count in pairs.values()) < 27 + 4 * np.sqrt(2 * 27)


def test_classes_come_as_often_as_their_weights_say() -> None:
    labels = np.repeat([5, 6, 7, 8], 10)
    weights = {5: 1.0, 6: 2.0, 7: 1.0, 8: 0.0}
    by_label = ClassUniformSampler(labels, 2, 2, class_weights=weights, batches_per_epoch=400)
    in_order = ClassUniformSampler(labels, 2, 2, class_weights=[1, 2, 1, 0], batches_per_epoch=400)
    batches = list(by_label)
    assert batches == list(in_order)
    counts = Counter(labels[np.concatenate(batches)].tolist())
    assert counts == {5: 400, 6: 800, 7: 400}


def test_weights_keep_batches_exact() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 6)
    sampler = ClassUniformSampler(labels, 4, 3, class_weights=rng.uniform(0.2, 1.0, 20), batches_per_epoch=300)
    for batch in sampler:
        assert sorted(Counter(labels[batch].tolist()).values()) == [3] * 4
        assert len(set(batch)) == 12


def test_the_global_generators_are_neither_used_nor_moved() -> None:
    labels = np.repeat(np.arange(8), 5)
    np.random.seed(0)
    torch.manual_seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    first = list(ClassUniformSampler(labels, 4, 2))
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])
    np.random.seed(1)
    assert list(ClassUniformSampler(labels, 4, 2)) == first


def test_seed_and_epoch_are_independent() -> None:
    """With seed * epoch, epoch 0 of all seeds and seed 0 of all epochs would be the same."""
    labels = np.repeat(np.arange(8), 5)
    runs = {
        (seed, epoch): tuple(map(tuple, list(epochs_of(ClassUniformSampler(labels, 4, 2, seed=seed), epoch))))
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(set(runs.values())) == 16


def epochs_of(sampler: Any, epoch: int) -> Iterator[list[int]]:
    sampler.set_epoch(epoch)
    return iter(sampler)
