"""Augmentation of whole batches where the images lie: the common transforms, written as in albumentations' YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from reid_cckd.batch import send
from reid_cckd.data.augment import PRESETS, Spec, name_and_arguments
from reid_cckd.errors import ConfigError, did_you_mean
from reid_cckd.splitmix import GOLDEN, mixed, shifted


def uniform(seed: int, epoch: int | Tensor, index: Tensor, repeat: Tensor, draws: int) -> Tensor:
    """(N, draws) numbers in [0, 1) of 24 bits, a function of the arguments alone: the same on any device.

    ``index``, ``repeat``, and ``epoch`` where it is not one number: (N,) int64.
    """
    state = torch.full_like(index, seed)
    for part in (epoch, index, repeat):
        state = mixed(state * GOLDEN + part)
    counter = torch.arange(1, draws + 1, device=index.device) * GOLDEN
    return shifted(mixed(state[:, None] + counter), 40).float() / 2**24


class Step(Protocol):
    """One transform of (N, 3, H, W) uint8 images that consumes ``draws`` uniform numbers an image."""

    @property
    def draws(self) -> int: ...
    def __call__(self, images: Tensor, chance: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class HorizontalFlip:
    """Mirror with probability ``p``."""

    p: float = 0.5
    draws = 1

    def __call__(self, images: Tensor, chance: Tensor) -> Tensor:
        both = torch.cat([images, images.flip(-1)])  # to pick whole images is several times as fast as torch.where
        row = torch.arange(len(images), device=images.device)
        return both.index_select(0, row + len(images) * (chance[:, 0] < self.p))


@dataclass(frozen=True)
class Pad:
    """A border of ``padding`` pixels: one number, or (left and right, top and bottom)."""

    padding: int | Sequence[int] = 0
    fill: int = 0
    draws = 0

    def __call__(self, images: Tensor, chance: Tensor) -> Tensor:
        x, y = (self.padding, self.padding) if isinstance(self.padding, int) else self.padding
        return functional.pad(images, (x, x, y, y), value=self.fill)


@dataclass(frozen=True)
class RandomCrop:
    """A part of ``height`` x ``width`` from anywhere."""

    height: int
    width: int
    draws = 2

    def __call__(self, images: Tensor, chance: Tensor) -> Tensor:
        count, planes, height, width = images.shape
        spare = height - self.height, width - self.width
        if min(spare) < 0:
            raise ValueError(f"a crop of {self.height} x {self.width} out of {height} x {width}")
        top, left = ((chance[:, i] * (spare[i] + 1)).long().clamp(max=spare[i]) for i in (0, 1))
        plane = torch.arange(count * planes, device=images.device).view(count, planes, 1) * (height * width)
        line = torch.arange(self.height, device=images.device) * width
        starts = plane + (top * width + left).view(-1, 1, 1) + line
        runs = images.reshape(-1).unfold(0, self.width, 1)  # a view: from each pixel on, as many as the crop is wide
        return runs.index_select(0, starts.flatten()).view(count, planes, self.height, self.width)


@dataclass(frozen=True)
class Erasing:
    """With probability ``p`` fill a box of ``scale`` of the area and ``ratio`` of height to width, cut to the image."""

    scale: Sequence[float] = (0.02, 0.33)
    ratio: Sequence[float] = (0.3, 3.3)
    fill: int | Sequence[int] = 0
    p: float = 0.5
    draws = 5

    def __call__(self, images: Tensor, chance: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        area = (self.scale[0] + chance[:, 1] * (self.scale[1] - self.scale[0])) * height * width
        low, high = torch.tensor(self.ratio).log().tolist()
        ratio = torch.exp(low + chance[:, 2] * (high - low))
        sides = (area * ratio).sqrt().round().clamp(1, height), (area / ratio).sqrt().round().clamp(1, width)
        return _filled(images, *sides, chance[:, 3:], self.fill, chance[:, 0] < self.p)


@dataclass(frozen=True)
class CoarseDropout:
    """Cutout: with probability ``p`` fill one box, whose sides are drawn from ranges in pixels."""

    hole_height_range: Sequence[int] = (8, 8)
    hole_width_range: Sequence[int] = (8, 8)
    num_holes_range: Sequence[int] = (1, 1)
    fill: int | Sequence[int] = 0
    p: float = 0.5
    draws = 5

    def __post_init__(self) -> None:
        if tuple(self.num_holes_range) != (1, 1):
            raise TypeError("num_holes_range is [1, 1] on the device")

    def __call__(self, images: Tensor, chance: Tensor) -> Tensor:
        ranges = (self.hole_height_range, self.hole_width_range)
        sides = [low + (chance[:, 1 + i] * (high - low + 1)).floor() for i, (low, high) in enumerate(ranges)]
        return _filled(images, sides[0], sides[1], chance[:, 3:], self.fill, chance[:, 0] < self.p)


STEPS: dict[str, Any] = {kind.__name__: kind for kind in (HorizontalFlip, Pad, RandomCrop, Erasing, CoarseDropout)}


@dataclass(frozen=True)
class BatchedAugment:
    """Transforms of a batch, in order; what happens to an image depends on (seed, epoch, index, repeat) alone."""

    steps: tuple[Step, ...]
    seed: int = 0

    def __call__(self, images: Tensor, index: Tensor, epoch: int | Tensor, repeat: Tensor) -> Tensor:
        """``images``: (N, 3, H, W) uint8; the others as in `uniform`, on the same device."""
        chance = uniform(self.seed, epoch, index, repeat, sum(step.draws for step in self.steps))
        for step in self.steps:
            images = step(images, chance[:, : step.draws])
            chance = chance[:, step.draws :]
        return images


def build_batched_augment(spec: Spec | None, image_size: tuple[int, int], seed: int) -> BatchedAugment | None:
    """`build_augment` for images on the device: the same list or preset, made of the transforms in `STEPS`.

    Raises:
        ConfigError: a transform or argument that there is not here, or a pipeline that changes the size of an image.
    """
    if not spec or spec == "none":
        return None
    augment = BatchedAugment(tuple(_steps(spec, image_size)), seed)
    zero = torch.zeros(1, dtype=torch.int64)
    try:
        result = augment(torch.zeros(1, 3, *image_size, dtype=torch.uint8), zero, 0, zero)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"data.augment fails on an image of {image_size[0]} x {image_size[1]}: {error}.") from error
    if result.shape[2:] != image_size:
        raise ConfigError(
            f"data.augment turns {image_size} into {tuple(result.shape[2:])}; end with a RandomCrop to data.image_size."
        )
    return augment


def _steps(spec: Spec, size: tuple[int, int]) -> list[Step]:
    steps: list[Step] = []
    for entry in [spec] if isinstance(spec, str) else spec:
        if isinstance(entry, str) and entry in PRESETS:
            steps += _steps(PRESETS[entry](*size), size)
        else:
            steps.append(_step(entry))
    return steps


def _step(entry: str | Mapping[str, Any]) -> Step:
    name, arguments = name_and_arguments(entry)
    if name not in STEPS:
        raise ConfigError(
            f"data.augment: {name!r} does not run on the device.{did_you_mean(name, STEPS)} These do: "
            f"{', '.join(STEPS)}. For any other set data.cache: memory."
        )
    try:
        step: Step = STEPS[name](**arguments)
    except TypeError as error:
        raise ConfigError(f"data.augment: {name} on the device refuses {arguments}: {error}.") from error
    return step


def _filled(
    images: Tensor, heights: Tensor, widths: Tensor, chance: Tensor, fill: int | Sequence[int], chosen: Tensor
) -> Tensor:
    """A box in each chosen image, its place drawn by ``chance`` (N, 2) so that it lies inside."""
    masks = []
    for axis, (sides, size) in enumerate(((heights, images.shape[-2]), (widths, images.shape[-1]))):
        start = (chance[:, axis] * (size - sides + 1)).floor()[:, None]
        place = torch.arange(size, device=images.device)
        masks.append((place >= start) & (place < start + sides[:, None]))
    box = (masks[0][:, None, :, None] & masks[1][:, None, None, :]) & chosen[:, None, None, None]
    colour = send(torch.tensor(fill, dtype=torch.uint8), images.device).expand(3).view(1, 3, 1, 1)
    return torch.where(box, colour, images)
