"""Decoding: a file becomes uint8 RGB, or an error that says what is wrong with it.

Pillow, although OpenCV decodes a small JPEG about three times faster into the same bytes: OpenCV fills the missing
part of a truncated file with grey and says nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from reid_cckd.errors import DataError

Pixels = NDArray[np.uint8]
T = TypeVar("T")


class BadImage(NamedTuple):
    """An image that cannot be used, and why: ``row`` of the manifest, ``path`` relative to its root."""

    row: int
    path: str
    reason: str


class DamagedImageError(DataError):
    """An image that cannot be decoded; its message survives the journey out of a DataLoader worker in one paragraph."""

    def __init__(self, message: str) -> None:
        # torch raises a worker's error again as type(error)("Caught ... traceback ... DamagedImageError: message").
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


def read_image(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> Pixels:
    """The image as (H, W, 3) uint8 RGB, resized to ``size`` = (H, W) with antialiased bilinear filtering if given.

    Raises:
        DamagedImageError: the file is missing, empty, truncated or no image.
    """
    image = image_or_reason(path, size)
    if isinstance(image, str):
        raise DamagedImageError(
            f"{path} cannot be decoded: {image}. Restore the file, or let the run skip damaged images "
            "(on_bad_image: skip)."
        )
    return image


def image_or_reason(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> Pixels | str:
    """What ``read_image`` returns, or in a few words why it would raise."""
    try:
        with Image.open(path) as image:
            return _pixels(image, size)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        return _reason(Path(path), error)


def _pixels(image: Image.Image, size: tuple[int, int] | None) -> Pixels:
    rgb = image.convert("RGB")
    if size is not None and rgb.size != (size[1], size[0]):
        rgb = rgb.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.array(rgb)  # a copy: a view of Pillow's buffer is read-only, which torch warns about


def _reason(file: Path, error: Exception) -> str:
    if not file.exists():
        return "the file is missing"
    if file.is_dir():
        return "it is a folder"
    if file.stat().st_size == 0:
        return "the file is empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image, or its beginning is damaged"
    return str(error).rstrip(".") or type(error).__name__


def in_threads(work: Callable[[int], T], rows: Iterable[int], workers: int | None = None) -> Iterator[T]:
    """``work`` of every row, in order, by one thread per processor unless told: Pillow decodes without the GIL."""
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        yield from pool.map(work, rows)
