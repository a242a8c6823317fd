"""Pairs of faces to verify, as LFW, CFP-FP, AgeDB-30, CALFW and CPLFW are passed around: pickles of encoded images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_cckd.data.folders import describe, files_in
from reid_cckd.data.images import Pixels, decode
from reid_cckd.data.manifest import UNLABELLED, Manifest, chain
from reid_cckd.data.safe_pickle import load_pickle
from reid_cckd.data.sources import Numbered, files_of, number_of
from reid_cckd.errors import DataError


@dataclass(frozen=True, eq=False)
class Pairs:
    """N pairs: images 2i and 2i + 1 of ``manifest`` (2N rows of role "test") form pair i.

    ``same``: (N,) bool, whether they show one person.
    """

    manifest: Manifest
    same: NDArray[np.bool_]


class PairFile:
    """Reads ``lfw.bin:17``: image 17 of a pickle that a process reads once; images are decoded when asked for."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._open: dict[str, tuple[list[Any], NDArray[np.bool_]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"home": self.home, "_open": {}}

    def content(self, file: str) -> tuple[list[Any], NDArray[np.bool_]]:
        """The encoded images and the verdicts of one file."""
        if file not in self._open:
            self._open[file] = _read(self.home / file)
        return self._open[file]

    def image_or_reason(self, path: str, size: tuple[int, int] | None = None) -> Pixels | str:
        return decode(self.encoded(path), size)

    def encoded(self, path: str) -> bytes:
        return bytes(self.content(path.rpartition(":")[0])[0][number_of(path)])

    def files(self, paths: Sequence[str]) -> list[Path]:
        return files_of(self.home, paths)


def read_pairs(path: str | os.PathLike[str]) -> Pairs:
    """The pairs of one `.bin`.

    Raises:
        DataError: the file is missing, truncated, or no pickle of 2N encoded images and N verdicts; nothing in it runs.
    """
    file = Path(path).expanduser()
    source = PairFile(file.parent)
    images, same = source.content(file.name)
    count = len(images)
    labels, zeros = np.full(count, UNLABELLED), np.zeros(count, dtype=np.int64)
    paths = Numbered(file.name, np.arange(count))
    return Pairs(Manifest(file.stem, file.parent, paths, labels, zeros, np.full(count, "test"), source=source), same)


def read_pair_images(root: str | os.PathLike[str]) -> Manifest:
    """The images of a `.bin`, or of all in a folder, without their verdicts: role "test", unlabelled.

    Raises:
        DataError: no `.bin` there, or one is no file of pairs.
    """
    base = Path(root).expanduser()
    if base.is_file():
        return read_pairs(base).manifest
    files = [base / name for name in files_in(base, (".bin",))]
    if not files:
        raise DataError(f"No .bin of face pairs at {describe(base)}. Set the data root to one, or to their folder.")
    return chain("face pairs", base, [read_pairs(file).manifest for file in files], PairFile(base))


def _read(path: Path) -> tuple[list[Any], NDArray[np.bool_]]:
    content = load_pickle(path)
    sound = isinstance(content, (tuple, list)) and len(content) == 2
    images, same = (
        list(part) if isinstance(part, (list, np.ndarray)) else [] for part in (content if sound else ("", ""))
    )
    if not images or len(images) != 2 * len(same) or not all(_is_encoded(image) for image in images):
        raise DataError(
            f"{path} is no file of face pairs: expected a list of 2N encoded images and one of N verdicts, found "
            f"{len(images):,} and {len(same):,}. Download it again."
        )
    if not all(isinstance(verdict, (bool, int, np.bool_, np.integer)) and verdict in (0, 1) for verdict in same):
        raise DataError(f"{path}: a verdict is neither true nor false. Download it again.")
    return images, np.array(same, dtype=np.bool_)


def _is_encoded(image: Any) -> bool:
    """Bytes, or an array of them as some writers leave."""
    return isinstance(image, (bytes, bytearray)) or (
        isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 1
    )
