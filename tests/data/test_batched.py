"""Augmentation of whole batches: its chance, each step against plain loops, and batches that repeat exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reid_cckd.batch import Batch, Part
from reid_cckd.data import DeviceImages, build_batched_augment
from reid_cckd.data.batched import BatchedAugment, CoarseDropout, Erasing, HorizontalFlip, RandomCrop, uniform
from reid_cckd.engine import DirectFeed
from reid_cckd.errors import ConfigError
from reid_cckd.samplers import UniformSampler

CPU = torch.device("cpu")
BITS = 2**64


def mixed(state: int) -> int:
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % BITS
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % BITS
    return state ^ (state >> 31)


def reference(seed: int, epoch: int, index: int, repeat: int, draw: int) -> float:
    state = seed
    for part in (epoch, index, repeat):
        state = mixed((state * 0x9E3779B97F4A7C15 + part) % BITS)
    return ((mixed((state + (draw + 1) * 0x9E3779B97F4A7C15) % BITS) >> 40) & (2**24 - 1)) / 2**24


def test_chance_is_the_published_generator_and_evenly_spread() -> None:
    index = torch.tensor([0, 1, 7, 2**40])
    found = uniform(3, 5, index, torch.tensor([0, 0, 2, 1]), 4)
    rows = zip(index.tolist(), [0, 0, 2, 1], strict=True)
    assert found.tolist() == [[reference(3, 5, row, repeat, draw) for draw in range(4)] for row, repeat in rows]
    many = uniform(0, 0, torch.arange(20_000), torch.zeros(20_000).long(), 3)
    counts = torch.histc(many, 10, 0, 1)
    assert float((counts - 6000).abs().max()) < 5 * 6000**0.5
    correlation = torch.corrcoef(torch.cat([many.T, many.roll(1, 0).T]))
    assert float((correlation - torch.eye(6)).abs().max()) < 0.03


def images(count: int, size: tuple[int, int] = (6, 5)) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_crops_and_flips_are_those_of_a_loop() -> None:
    source = images(9, (8, 7))
    chance = torch.rand(9, 2, generator=torch.Generator().manual_seed(1))
    chance[0], chance[1] = 0.0, 1 - 2**-24
    cropped = RandomCrop(6, 5)(source, chance)
    for row in range(9):
        y, x = int(chance[row, 0] * 3), int(chance[row, 1] * 3)
        assert torch.equal(cropped[row], source[row, :, y : y + 6, x : x + 5])
    flipped = HorizontalFlip(0.5)(source, chance[:, :1])
    for row in range(9):
        assert torch.equal(flipped[row], source[row].flip(-1) if chance[row, 0] < 0.5 else source[row])


@pytest.mark.parametrize("step", [Erasing(fill=(1, 2, 3)), CoarseDropout((2, 4), (1, 3), fill=(1, 2, 3))])
def test_boxes_are_whole_inside_and_of_the_sizes_asked_for(step: Erasing | CoarseDropout) -> None:
    source = torch.full((400, 3, 12, 10), 200, dtype=torch.uint8)
    changed = step(source, torch.rand(400, 5, generator=torch.Generator().manual_seed(2)))
    hit = (changed != source).any(dim=1)
    assert 0.4 < hit.any(dim=(1, 2)).float().mean() < 0.6
    for mask, image in zip(hit, changed, strict=True):
        if mask.any():
            height, width = int(mask.any(dim=1).sum()), int(mask.any(dim=0).sum())
            assert height * width == int(mask.sum())
            assert image[:, mask].unique(dim=1).flatten().tolist() == [1, 2, 3]
            if isinstance(step, CoarseDropout):
                assert 2 <= height <= 4
                assert 1 <= width <= 3


LABELS = np.arange(40) % 4


def on_device(
    seed: int = 0, augment: str = "cifar", shown: NDArray[np.int64] | None = None, views: int | None = None
) -> DeviceImages:
    pixels = torch.randint(0, 256, (40, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return DeviceImages(pixels, LABELS, CPU, build_batched_augment(augment, (8, 8), seed), shown, views)


def feed(seed: int = 0, ahead: int = 1) -> DirectFeed:
    held = on_device(seed)
    held.ahead = ahead
    return DirectFeed(held.batches, UniformSampler(LABELS, 8, seed=seed), str)


def test_an_epoch_repeats_resumes_and_differs_from_the_next() -> None:
    whole, rest = list(feed().batches(2, 0)), list(feed().batches(2, 3))
    assert len(whole) == len(feed()) == 5
    for one, other in zip(whole[3:], rest, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.index, other.index)
        assert torch.equal(one.labels, one.index % 4)
    plain = {row: image for batch in whole for row, image in zip(batch.index.tolist(), batch.images, strict=True)}
    for batch in feed().batches(3, 0):
        pairs = zip(batch.index.tolist(), batch.images, strict=True)
        changed = sum(not torch.equal(plain[row], image) for row, image in pairs)
        assert changed > 4
    assert not torch.equal(next(feed(1).batches(2, 0)).images, whole[0].images)


def test_a_view_depends_on_its_row_and_not_on_its_batch() -> None:
    held = on_device().batch
    together, alone = held([5, 9, 5], 1), held([9], 1)
    assert torch.equal(together.images[1], alone.images[0])
    assert not torch.equal(together.images[0], together.images[2])  # a repeated image looks different
    part = Part([5])  # of the same batch, on another process
    part.before = [5, 9]
    assert torch.equal(held(part, 1).images[0], together.images[2])


def equal(one: Batch, other: Batch) -> bool:
    """Whether two batches of a device agree in every column."""
    columns = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(torch.equal(column, twin) for column, twin in columns)


@pytest.mark.parametrize("views", [None, 2])
@pytest.mark.parametrize("augment", ["cifar", "reid", "none"])
@pytest.mark.parametrize("ahead", [1, 5, 8, 11, 1000])
def test_batches_that_are_made_together_are_those_made_one_by_one(ahead: int, augment: str, views: int | None) -> None:
    shown = np.arange(40)
    shown[3] = 7  # a stand-in repeats the image that it shows
    rest = Part([3, 4])  # of a batch that is shared out
    rest.before = [3, 7, 8]
    parts = [[7, 3, 7, 0], [3, 7, 7], rest, [1], [7, 2, 39, 7, 3]]
    apart, together = (on_device(augment=augment, shown=shown, views=views) for _ in range(2))
    together.ahead = ahead
    batches = list(together.batches(iter(parts), 3))
    assert len(batches) == len(parts)
    for batch, rows in zip(batches, parts, strict=True):
        assert equal(batch, apart.batch(rows, 3))


def test_of_some_views_an_epoch_shows_one_and_a_repeat_the_next() -> None:
    free, held = on_device(), on_device(views=3)
    views = [free.batch(range(40), view) for view in range(3)]
    for epoch in range(4):
        batch = held.batch([5, 9, 5, 5, 5], epoch)
        expected = [(epoch + repeat) % 3 for repeat in (0, 0, 1, 2, 3)]
        assert batch.there is not None
        assert batch.there[2].tolist() == [40 * view + row for view, row in zip(expected, (5, 9, 5, 5, 5), strict=True)]
        for image, view, row in zip(batch.images, expected, batch.index.tolist(), strict=True):
            assert torch.equal(image, views[view].images[row])


@pytest.mark.parametrize("ahead", [16, 1000])
def test_an_epoch_that_is_made_ahead_is_the_same_from_any_batch_on(ahead: int) -> None:
    for start in (0, 3):
        pairs = zip(feed().batches(2, start), feed(ahead=ahead).batches(2, start), strict=True)
        assert all(equal(one, other) for one, other in pairs)


def test_an_accelerator_makes_as_many_batches_at_once_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    held, sizes = on_device(), list[int]()
    assert held.augment is not None
    augment = type(held.augment).__call__

    def spy(self: BatchedAugment, images: torch.Tensor, *rest: Any) -> torch.Tensor:
        sizes.append(len(images))
        return augment(self, images, *rest)

    monkeypatch.setattr(BatchedAugment, "__call__", spy)
    parts = [[0, 1, 2, 3]] * 5
    for ahead, expected in ((1, [4] * 5), (9, [8, 8, 4]), (20, [20]), (2, [4] * 5)):
        held.ahead = ahead
        assert len(list(held.batches(parts, 0))) == 5
        assert sizes == expected
        sizes.clear()


def test_a_batch_that_lies_on_the_device_takes_its_numbers_along() -> None:
    batch = on_device().batch([5, 9, 5], 1)
    assert batch.there is not None
    batch = replace(batch, there=batch.there.clone())  # as on a device of its own
    moved = batch.to(CPU)
    assert batch.there is not None
    assert moved.images is batch.images
    assert moved.index.data_ptr() == batch.there.data_ptr()  # what is there, not a copy of what is on the host
    assert moved.index.tolist() == [5, 9, 5]
    assert moved.repeat is not None
    assert moved.repeat.tolist() == [0, 0, 1]


def test_without_augmentation_the_images_are_untouched() -> None:
    assert build_batched_augment("none", (8, 8), 0) is None
    pixels = torch.randint(0, 256, (4, 3, 2, 3), dtype=torch.uint8)
    held = DeviceImages(pixels, np.arange(4), CPU, None)
    assert torch.equal(held.batch([2, 0], 0).images, pixels[[2, 0]].permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ([{"HorizontalFlop": {}}], "Did you mean 'HorizontalFlip'"),
        ([{"ColorJitter": {}}], "data.cache: memory"),
        ([{"RandomCrop": {"height": 8, "widht": 8}}], "widht"),
        ([{"Pad": {"padding": 2}}], "end with a RandomCrop"),
        ([{"RandomCrop": {"height": 9, "width": 9}}], "fails on an image"),
        ([{"CoarseDropout": {"num_holes_range": [1, 3]}}], "num_holes_range"),
    ],
)
def test_what_cannot_run_on_the_device_is_named(spec: list[dict[str, dict[str, int]]], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_batched_augment(spec, (8, 8), 0)


@pytest.mark.parametrize("preset", ["reid", "cifar"])
def test_presets_run_on_the_device_too(preset: str) -> None:
    augment = build_batched_augment(preset, (32, 16), 0)
    assert augment is not None
    source = images(16, (32, 16))
    index = torch.arange(16)
    assert augment(source, index, 0, torch.zeros(16).long()).shape == source.shape
