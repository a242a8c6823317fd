"""Augmentation: an albumentations pipeline written in YAML, checked when built, the same for any number of workers."""

from __future__ import annotations

import importlib
import inspect
import os
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from reid_cckd.data.images import Pixels
from reid_cckd.errors import ConfigError, did_you_mean

Spec = str | Sequence[str | Mapping[str, Any]]

ERASED = (124, 116, 104)  # ImageNet's mean colour: what is erased says nothing after normalisation


def reid_preset(height: int, width: int) -> list[dict[str, Any]]:
    """The custom of person ReID: flip, pad and crop (10 pixels at 256 x 128, in proportion else), random erasing."""
    padding = [max(1, round(10 * height / 256)), max(1, round(10 * width / 128))]
    return [
        {"HorizontalFlip": {"p": 0.5}},
        {"Pad": {"padding": padding[::-1]}},
        {"RandomCrop": {"height": height, "width": width}},
        {"Erasing": {"scale": [0.02, 0.33], "ratio": [0.3, 3.3], "fill": ERASED, "p": 0.5}},
    ]


def reid_colour_preset(height: int, width: int) -> list[dict[str, Any]]:
    """The preset ``reid`` with colour jitter before the erasing."""
    *geometry, erasing = reid_preset(height, width)
    jitter = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.02, "p": 0.5}
    return [*geometry, {"ColorJitter": jitter}, erasing]


def cifar_preset(height: int, width: int) -> list[dict[str, Any]]:
    """The custom of CIFAR: pad (4 pixels at 32 x 32, in proportion else) and crop, flip."""
    padding = [max(1, round(width / 8)), max(1, round(height / 8))]
    return [
        {"Pad": {"padding": padding}},
        {"RandomCrop": {"height": height, "width": width}},
        {"HorizontalFlip": {"p": 0.5}},
    ]


PRESETS: dict[str, Callable[[int, int], list[dict[str, Any]]]] = {
    "reid": reid_preset,
    "reid_colour": reid_colour_preset,
    "cifar": cifar_preset,
}


class Augment:
    """A pipeline whose randomness depends on (seed, epoch, index, repeat) alone.

    All transforms of a pipeline share one NumPy and one Python generator. Both are set anew for each image: the first
    is counter-based, so that is a few stores, where albumentations' own ``set_random_seed`` builds two generators per
    transform.
    """

    def __init__(self, compose: Any) -> None:
        self._compose = compose
        self._numpy = np.random.Generator(np.random.Philox(key=[0, 0]))
        self._python = random.Random(0)
        self._state = self._numpy.bit_generator.state
        compose.set_random_state(self._numpy, self._python)

    def __call__(self, image: Pixels, *, seed: int, epoch: int, index: int, repeat: int = 0) -> Pixels:
        """The augmented (H, W, 3) uint8 image; ``repeat`` tells copies of one image in a batch apart."""
        state = self._state["state"]
        state["key"][:] = seed, epoch
        state["counter"][:] = 0, 0, repeat, index
        self._numpy.bit_generator.state = self._state
        self._python.seed(((seed << 32 | epoch) << 64) | (index << 16) | repeat)
        result: Pixels = self._compose(image=image)["image"]
        return result


def build_augment(spec: Spec | None, image_size: tuple[int, int]) -> Augment | None:
    """The pipeline of ``spec``: a preset's name, or a list such as ``[{"HorizontalFlip": {"p": 0.5}}, "reid"]``.

    An entry is a name or one ``{name: arguments}``; containers (OneOf, SomeOf, Sequential) take their entries as
    ``transforms``. None, "none" or an empty list: no
    augmentation. ``image_size``: (H, W) of every image before and after the pipeline.

    Raises:
        ConfigError: an unknown transform or argument, a value that albumentations refuses, or a pipeline that changes
            the size or type of an image.
    """
    if not spec or spec == "none":
        return None
    library = _albumentations()
    transforms = _transforms(library, spec, image_size)
    augment = Augment(library.Compose(transforms))
    _check_result(augment, image_size)
    return augment


def limit_threads(worker: int = 0) -> None:
    """One thread for each loader worker (a ``worker_init_fn``): OpenCV's own threads only get in the way."""
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(0)


def _albumentations() -> ModuleType:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or importing it asks PyPI for its version
    library = importlib.import_module("albumentations")
    limit_threads()
    return library


def _transforms(library: ModuleType, spec: Spec, size: tuple[int, int]) -> list[Any]:
    entries = [spec] if isinstance(spec, str) else spec
    built: list[Any] = []
    for entry in entries:
        if isinstance(entry, str) and entry in PRESETS:
            built += _transforms(library, PRESETS[entry](*size), size)
        else:
            built.append(_transform(library, entry, size))
    return built


def _transform(library: ModuleType, entry: str | Mapping[str, Any], size: tuple[int, int]) -> Any:
    name, arguments = name_and_arguments(entry)
    factory = _known(library).get(name)
    if factory is None:
        names = [*_known(library), *PRESETS]
        raise ConfigError(
            f"augment: {name!r} is neither an albumentations transform nor a preset.{did_you_mean(name, names)}"
        )
    accepted = [key for key in inspect.signature(factory).parameters if key != "strict"]
    for key in arguments:
        if key not in accepted:
            hint = did_you_mean(key, accepted)
            raise ConfigError(f"augment: {name} has no argument {key!r}.{hint} It accepts {', '.join(accepted)}.")
    if "transforms" in arguments:
        arguments["transforms"] = _transforms(library, arguments["transforms"], size)
    try:
        return factory(**arguments)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"augment: {name} refuses {dict(arguments)}: {reason}. Correct its arguments.") from error


def name_and_arguments(entry: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """``"Name"`` or ``{"Name": {argument: value}}`` taken apart; ConfigError for anything else."""
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and len(entry) == 1:
        name, arguments = next(iter(entry.items()))
        if arguments is None or isinstance(arguments, Mapping):
            return str(name), dict(arguments or {})
    raise ConfigError(
        f"augment: {entry!r} is not a transform. Write its name, or one name with its arguments, such as "
        "{HorizontalFlip: {p: 0.5}}."
    )


def _known(library: ModuleType) -> dict[str, Any]:
    kinds = (library.BasicTransform, library.BaseCompose)
    members = inspect.getmembers(library, inspect.isclass)
    return {name: member for name, member in members if issubclass(member, kinds) and member not in kinds}


def _check_result(augment: Augment, size: tuple[int, int]) -> None:
    """Run once: what only shows on an image is better found now than in a worker."""
    try:
        result = augment(np.full((*size, 3), 127, np.uint8), seed=0, epoch=0, index=0)
    except Exception as error:  # transforms raise whatever they like
        raise ConfigError(
            f"augment fails on an image of {size[0]} x {size[1]}: {error}. Correct the pipeline."
        ) from error
    if result.shape != (*size, 3) or result.dtype != np.uint8:
        raise ConfigError(
            f"augment turns a {(*size, 3)} uint8 image into {result.shape} {result.dtype}; it must keep size "
            "and type, because batches are stacked and every network normalises by its own statistics. End with a "
            f"RandomCrop to {size[0]} x {size[1]}, and leave out Normalize and ToTensorV2."
        )
