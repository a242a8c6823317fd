"""Any data set written anew in another format, read back and compared with its source.

What is written is complete or not there, continues after a kill, and replaces nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reid_cckd.data.images import BadImage, in_threads
from reid_cckd.data.manifest import UNLABELLED, Manifest
from reid_cckd.data.sources import UnreadableError
from reid_cckd.data.staging import need_space, staged
from reid_cckd.errors import DataError

Show = Callable[[int, int], None]  # of (done, total)
Bars = Callable[[str, str], AbstractContextManager[Show]]  # of (title, unit)

SAMPLED = 100  # images whose length predicts that of all


class Target(Protocol):
    """A format, and the images that are to be written in it.

    ``workers``: threads, one per processor if None.
    """

    workers: int | None

    def plan(self) -> dict[str, Any]:
        """All that decides about what is written."""

    def needed(self) -> tuple[int, int]:
        """About how many bytes are going to be written, and how many files."""

    def fill(self, part: Path, show: Show) -> None:
        """Write everything into ``part``, or what a killed call left out."""

    def read(self, folder: Path) -> Manifest:
        """What is written in ``folder``."""

    def columns(self) -> dict[str, Any]:
        """What columns of ``read`` have to hold."""

    def compared(self, copy: Manifest) -> NDArray[np.int64]:
        """Rows of ``copy`` whose images are compared with the source: all that are damaged are among them."""

    def compare(self, copy: Manifest, row: int) -> tuple[bool, str]:
        """Whether image ``row`` of ``copy`` is that of the source, and why it cannot be decoded, if it cannot."""


@dataclass(frozen=True)
class Converted:
    """What was read back.

    ``bytes``: of all files. ``compared``: images set beside the source. ``bad``: all images that cannot be
    decoded, here as in the source.
    """

    images: int
    people: int
    bytes: int
    compared: int
    bad: tuple[BadImage, ...]


def convert(target: Target, folder: Path, bars: Bars) -> Converted:
    """Write ``target`` at ``folder``, or leave it when it is there, and compare it with the source.

    Raises:
        DataError: ``folder`` holds something else, or what was written is not what the source holds, and is removed.
        UnreadableError: an image file cannot be read; what was written stays, for the next call.
        UserError: no space, which is asked for before work begins.
    """
    with staged(folder, target.plan()) as part:
        if part is None:
            return _read_back(target, folder, bars)
        size, files = target.needed()
        have = _sizes(part)
        need_space(folder, size - sum(have), files - len(have))
        with bars("write", "images") as show:
            target.fill(part, show)
        try:
            return _read_back(target, part, bars)
        except UnreadableError:  # which says nothing against what was written
            raise
        except DataError:
            shutil.rmtree(part)
            raise


def predicted_bytes(count: int, content: Callable[[int], bytes]) -> int:
    """How long the contents of ``count`` rows are together, judged by a few of them."""
    rows = np.unique(np.linspace(0, count - 1, SAMPLED).astype(np.int64)).tolist()
    return int(np.mean([len(content(row)) for row in rows]) * count)


def _read_back(target: Target, folder: Path, bars: Bars) -> Converted:
    copy = target.read(folder)
    for name, expected in target.columns().items():
        if not np.array_equal(getattr(copy, name), expected):
            raise DataError(f"{folder}: the {name} that were read back differ from those of the source. Write it anew.")
    rows, bad = target.compared(copy).tolist(), list[BadImage]()
    with bars("compare", "images") as show:
        for number, (same, reason) in enumerate(
            in_threads(lambda row: target.compare(copy, row), rows, target.workers), start=1
        ):
            row = rows[number - 1]
            if not same:
                raise DataError(f"{copy.path(row)} differs from its source, which may have changed. Write it anew.")
            if reason:
                bad.append(BadImage(row, copy.paths[row], reason))
            show(number, len(rows))
    people = len(np.unique(copy.labels[copy.labels != UNLABELLED]))
    return Converted(len(copy), people, sum(_sizes(folder)), len(rows), tuple(bad))


def _sizes(folder: Path) -> list[int]:
    """Bytes of every file below a folder."""
    return [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
