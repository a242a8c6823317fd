"""Where the images of a manifest come from: files, records of a pack, rows of a pickle, a packed cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from reid_cckd.data.images import Pixels, image_or_reason
from reid_cckd.errors import DataError


class UnreadableError(DataError):
    """A file that the disk, or the network, does not give just now."""


class Source(Protocol):
    """Reads one image by its path in the manifest.

    A source is shared by every part of a manifest, is read by many threads at once, and reaches the workers of a
    DataLoader by fork or by pickling; it therefore keeps no position in a file, and what it has in memory is read
    again by a process that did not inherit it.
    """

    def image_or_reason(self, path: str, size: tuple[int, int] | None = None) -> Pixels | str:
        """(H, W, 3) uint8 RGB, resized to ``size`` if given, or in a few words why there is none."""

    def encoded(self, path: str) -> bytes | None:
        """The bytes of the image file, or None where bare pixels are kept. Raises DataError where there are none."""

    def files(self, paths: Sequence[str]) -> Iterable[Path]:
        """The files on disk that hold these images, each once."""


@dataclass(frozen=True)
class Files:
    """Image files below ``root``."""

    root: Path

    def image_or_reason(self, path: str, size: tuple[int, int] | None = None) -> Pixels | str:
        return image_or_reason(self.root / path, size)

    def encoded(self, path: str) -> bytes:
        try:
            return (self.root / path).read_bytes()
        except OSError as error:
            raise UnreadableError(f"{self.root / path} cannot be read: {error.strerror}. Restore it.") from error

    def files(self, paths: Sequence[str]) -> Iterable[Path]:
        return (self.root / path for path in paths)


class Numbered(Sequence[str]):
    """Paths such as ``train.rec:17``, made when asked for: a record of a pack of millions costs eight bytes.

    Part ``number`` of a path is what ``number_of`` returns.
    """

    def __init__(self, prefix: str, numbers: NDArray[Any]) -> None:
        self.prefix = prefix
        self.numbers: NDArray[np.int64] = np.asarray(numbers, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Numbered: ...
    def __getitem__(self, index: int | slice) -> str | Numbered:
        if isinstance(index, slice):
            return Numbered(self.prefix, self.numbers[index])
        return f"{self.prefix}:{self.numbers[index]}"

    def __iter__(self) -> Iterator[str]:
        return (f"{self.prefix}:{number}" for number in self.numbers.tolist())

    def take(self, rows: NDArray[np.int64]) -> Numbered:
        """The paths of these rows, in their order."""
        return Numbered(self.prefix, self.numbers[rows])


def number_of(path: str) -> int:
    """17 of ``train.rec:17``."""
    return int(path.rpartition(":")[2])


def files_of(home: Path, paths: Sequence[str]) -> list[Path]:
    """The files ``train.rec`` of paths such as ``train.rec:17``, by name."""
    return [home / file for file in sorted({path.rpartition(":")[0] for path in paths})]


def length_of(file: Path) -> int:
    """Bytes of a file, -1 of a missing one."""
    try:
        return file.stat().st_size
    except OSError:
        return -1


def stamp_of(files: Iterable[Path]) -> str:
    """A digest of (bytes, time of change) of files, missing ones among them."""
    digest = hashlib.sha256()
    for file in files:
        try:
            found = file.stat()
            digest.update(b"%d %d\n" % (found.st_size, found.st_mtime_ns))
        except OSError:
            digest.update(b"missing\n")
    return digest.hexdigest()
