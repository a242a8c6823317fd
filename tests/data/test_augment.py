from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_cckd.data.augment import PRESETS, Augment, build_augment
from reid_cckd.errors import ConfigError

SIZE = (32, 16)
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def built(spec: Any) -> Augment:
    augment = build_augment(spec, SIZE)
    assert augment is not None
    return augment


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_keep_size_and_type_and_change_images(preset: str) -> None:
    augment = built(preset)
    results = [augment(IMAGE, seed=0, epoch=0, index=i) for i in range(16)]
    assert all(result.shape == IMAGE.shape and result.dtype == np.uint8 for result in results)
    assert len({result.tobytes() for result in results}) > 8  # crops by at most a pixel may coincide


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 2**20), st.integers(0, 2**40), st.integers(0, 200))
def test_an_image_depends_on_its_key_alone(seed: int, epoch: int, index: int, repeat: int) -> None:
    key = {"seed": seed, "epoch": epoch, "index": index, "repeat": repeat}
    first = AUGMENT(IMAGE, **key)
    AUGMENT(IMAGE, seed=1, epoch=2, index=3)
    random.seed(repeat)
    np.random.seed(repeat)
    np.testing.assert_array_equal(AUGMENT(IMAGE, **key), first)
    np.testing.assert_array_equal(OTHER(IMAGE, **key), first)


AUGMENT, OTHER = built("reid_colour"), built("reid_colour")


@pytest.mark.parametrize("part", ["seed", "epoch", "index", "repeat"])
def test_every_part_of_the_key_counts(part: str) -> None:
    keys = [{"seed": 5, "epoch": 5, "index": 5, "repeat": 5, part: value} for value in range(12)]
    augment = built([{"GaussNoise": {"p": 1.0}}])
    assert len({augment(IMAGE, **key).tobytes() for key in keys}) == 12


def test_a_pickled_pipeline_draws_the_same() -> None:
    copy = pickle.loads(pickle.dumps(AUGMENT))
    for index in range(8):
        key = {"seed": 1, "epoch": 1, "index": index}
        np.testing.assert_array_equal(copy(IMAGE, **key), AUGMENT(IMAGE, **key))


def test_the_original_is_left_alone() -> None:
    before = IMAGE.copy()
    for index in range(16):
        AUGMENT(IMAGE, seed=0, epoch=0, index=index)
    np.testing.assert_array_equal(IMAGE, before)


@pytest.mark.parametrize("spec", [None, [], "", "none"])
def test_no_augmentation(spec: Any) -> None:
    assert build_augment(spec, SIZE) is None


def test_flip_happens_half_the_time_and_is_a_flip() -> None:
    augment = built([{"HorizontalFlip": {"p": 0.5}}])
    results = [augment(IMAGE, seed=0, epoch=0, index=index) for index in range(400)]
    flipped = sum(np.array_equal(result, IMAGE[:, ::-1]) for result in results)
    assert flipped + sum(np.array_equal(result, IMAGE) for result in results) == 400
    assert 160 < flipped < 240


def test_presets_names_and_containers_mix() -> None:
    augment = built(["reid", {"OneOf": {"transforms": ["ToGray", {"Blur": {"blur_limit": 3}}], "p": 0.5}}, "NoOp"])
    assert augment(IMAGE, seed=0, epoch=0, index=0).shape == IMAGE.shape


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        (["HorizontalFlp"], ["HorizontalFlp", "Did you mean 'HorizontalFlip'?"]),
        ("ried", ["'ried'", "Did you mean 'reid'?"]),
        ([{"CoarseDropout": {"num_hole_range": [1, 1]}}], ["num_hole_range", "Did you mean 'num_holes_range'?"]),
        ([{"HorizontalFlip": {"p": 3}}], ["HorizontalFlip refuses", "less than or equal to 1"]),
        ([{"RandomCrop": {"height": 8}}], ["RandomCrop"]),
        ([{"RandomCrop": {"height": 8, "width": 8}}], ["(8, 8, 3)", "32 x 16"]),
        ([{"RandomCrop": {"height": 99, "width": 99}}], ["fails on an image of 32 x 16"]),
        (["Normalize"], ["float32", "Normalize"]),
        ([3], ["3 is not a transform"]),
        ([{"HorizontalFlip": {}, "VerticalFlip": {}}], ["is not a transform"]),
        ([{"HorizontalFlip": 0.5}], ["is not a transform"]),
        ([{"OneOf": {"transforms": ["Blurr"]}}], ["'Blurr'", "Did you mean"]),
        (["ImageOnlyTransformation"], ["neither an albumentations transform nor a preset"]),
    ],
)
def test_mistakes_are_found_when_built(spec: Any, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build_augment(spec, SIZE)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
