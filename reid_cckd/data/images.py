"""Decoding: a file becomes uint8 RGB, or an error that says what is wrong with it.

Pillow, although OpenCV decodes a small JPEG about three times faster into the same bytes: OpenCV fills the missing
part of a truncated file with grey and says nothing.
"""

from __future__ import annotations

import io
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from reid_cckd.errors import DataError

Pixels = NDArray[np.uint8]
T = TypeVar("T")

FORMAT_OF = {
    **dict.fromkeys((".jpg", ".jpeg"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".ppm", ".pgm"), "PPM"),
    ".png": "PNG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".gif": "GIF",
}
SUFFIXES = tuple(FORMAT_OF)
FORMATS = tuple(dict.fromkeys(FORMAT_OF.values()))  # Pillow knows more; PostScript it would even run
MAX_PIXELS = 2**26  # 201 MB decoded: a file that claims more is a bomb or no photograph
UNDECODABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


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

    @classmethod
    def of(cls, path: str | os.PathLike[str], reason: str) -> DamagedImageError:
        """The error of one image."""
        return cls(
            f"{path} cannot be decoded: {reason}. Restore the file, or let the run skip damaged images "
            "(on_bad_image: skip)."
        )


def read_image(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> Pixels:
    """The image as (H, W, 3) uint8 RGB, resized to ``size`` = (H, W) with antialiased bilinear filtering if given.

    It stands upright as EXIF data say; transparency is dropped, and of 16-bit grey values the upper eight bits stay.

    Raises:
        DamagedImageError: the file is missing, empty, truncated or no image.
    """
    image = image_or_reason(path, size)
    if isinstance(image, str):
        raise DamagedImageError.of(path, image)
    return image


def image_or_reason(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> Pixels | str:
    """What ``read_image`` returns, or in a few words why it would raise."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return _pixels(image, size)
    except UNDECODABLE as error:
        return _reason_of_file(Path(path), error)


def decode(encoded: bytes, size: tuple[int, int] | None = None) -> Pixels | str:
    """`image_or_reason` of the bytes of an image file."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            return _pixels(image, size)
    except UNDECODABLE as error:
        return _reason(error) if encoded else "it is empty (0 bytes)"


def resize(pixels: Pixels, size: tuple[int, int] | None) -> Pixels:
    """A copy of (H, W, 3) uint8 pixels, resized to ``size`` = (H, W) as decoding does it."""
    if size is None or pixels.shape[:2] == tuple(size):
        return pixels.copy()
    return _pixels(Image.fromarray(pixels), size)


def _pixels(image: Image.Image, size: tuple[int, int] | None) -> Pixels:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"it claims {width} x {height} pixels, more than {MAX_PIXELS:,}")
    rgb = _eight_bits(upright(image)).convert("RGB")
    if size is not None and rgb.size != (size[1], size[0]):
        rgb = rgb.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.array(rgb)  # a copy: a view of Pillow's buffer is read-only, which torch warns about


def upright(image: Image.Image) -> Image.Image:
    """``image`` turned as its EXIF data says, the way every viewer shows it; damaged data turn nothing."""
    if "exif" not in image.info:
        return image
    image.load()  # what is wrong with the pixels shows here, and not in the try below
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # hostile EXIF data raise whatever they like
        return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of 16 bits, which Pillow would cut off at 255, by their upper eight; any other image as it is.

    Raises:
        ValueError: floating point, whose range nobody knows.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; save it with 8 bits a channel")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))


def _reason_of_file(file: Path, error: Exception) -> str:
    if not file.exists():
        return "the file is missing"
    if file.is_dir():
        return "it is a folder"
    if file.stat().st_size == 0:
        return "the file is empty (0 bytes)"
    return _reason(error)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image, or its beginning is damaged"
    return str(error).rstrip(".") or type(error).__name__


def in_threads(work: Callable[[int], T], rows: Iterable[int], workers: int | None = None) -> Iterator[T]:
    """``work`` of every row, in order, by one thread per processor unless told: Pillow decodes without the GIL.

    Threads run at most 32 rows each ahead of who consumes them, so that millions of rows need no memory.
    """
    count, waiting, queue = workers or os.cpu_count() or 1, iter(rows), deque[Future[T]]()
    with ThreadPoolExecutor(count) as pool:
        try:
            queue.extend(pool.submit(work, row) for row in itertools.islice(waiting, 32 * count))
            while queue:
                yield queue.popleft().result()
                queue.extend(pool.submit(work, row) for row in itertools.islice(waiting, 1))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
