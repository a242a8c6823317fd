"""Images decoded once: resized uint8 pixels in one file that is mapped into memory, with the table of their rows."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from reid_cckd.data.images import BadImage, Pixels
from reid_cckd.data.manifest import Manifest
from reid_cckd.data.sources import Numbered, length_of, number_of
from reid_cckd.data.staging import PLAN, read_object, read_plan
from reid_cckd.errors import DataError

FORMAT = 1  # raise it when decoding or the files change: caches are then made anew
PIXELS, ROWS, NAMES, BAD, SUM = "pixels.bin", "rows.npz", "names.json", "bad.jsonl", "checksum.json"
CHUNK = 2**24
HEADER, WIDEST = 1024, 64  # bytes of a column's header, and of its widest row
UNREADABLE = (OSError, ValueError, KeyError, EOFError, BadZipFile, NotImplementedError, zlib.error, MemoryError)


class Packed:
    """A folder of decoded images: row i of ``pixels`` is image i, (H, W, 3) uint8; damaged ones are black.

    ``bad``: the images that could not be decoded. ``size``: (H, W). Reaches workers by fork or by pickling without its
    pixels, which every process maps for itself.

    Raises:
        DataError: the folder is no such folder, is incomplete, or is of another version of the format.
    """

    def __init__(self, folder: Path) -> None:
        plan = read_plan(folder)
        if plan is None or plan.get("kind") != "packed images":
            raise DataError(
                f"{folder} holds no packed images: looked for {folder / PLAN}. Make it with reid-cckd prepare packed."
            )
        if plan.get("format") != FORMAT:
            raise DataError(
                f"{folder} holds packed images of format {plan.get('format')}, this version reads {FORMAT}. Remove the "
                "folder and make it anew."
            )
        self.folder, self.plan = folder, plan
        try:
            self.size: tuple[int, int] = (int(plan["size"][0]), int(plan["size"][1]))
            self.shape = (int(plan["images"]), *self.size, 3)
            if min(self.size) < 1 or self.shape[0] < 0:
                raise ValueError(f"{self.shape[0]} images of {self.size[0]} x {self.size[1]}")
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{folder / PLAN} is damaged: {error}. Remove the folder and make it anew.") from error
        found, expected = max(length_of(folder / PIXELS), 0), math.prod(self.shape)
        if found != expected:
            raise DataError(
                f"{folder / PIXELS} has {found:,} bytes, expected {expected:,} for {self.shape[0]:,} images of "
                f"{self.size[0]} x {self.size[1]}. Remove the folder and make it anew."
            )
        self.bad = read_bad(folder / BAD, self.shape[0])

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "pixels"}

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """(N, H, W, 3), mapped from the file."""
        if not len(self):
            return np.empty(self.shape, dtype=np.uint8)
        return np.memmap(self.folder / PIXELS, dtype=np.uint8, mode="r", shape=self.shape)

    def verify(self) -> None:
        """Read the pixels again.

        Raises:
            DataError: they are not those that were written.
        """
        if checksum(self.folder / PIXELS) != read_object(self.folder / SUM):
            raise DataError(
                f"{self.folder / PIXELS} has changed since it was written. Remove the folder and make it anew."
            )


class PackedRows:
    """Reads ``pixels.bin:17`` of a folder of packed images, at its own size only."""

    def __init__(self, packed: Packed) -> None:
        self.packed = packed
        self._reasons = {image.row: image.reason for image in packed.bad}

    def image_or_reason(self, path: str, size: tuple[int, int] | None = None) -> Pixels | str:
        if size is not None and tuple(size) != self.packed.size:
            raise _other_size(self.packed, size)
        row = number_of(path)
        return self._reasons.get(row) or np.array(self.packed.pixels[row])

    def encoded(self, path: str) -> None:
        return None

    def files(self, paths: Sequence[str]) -> list[Path]:
        return [self.packed.folder / PIXELS]


def read_packed(root: str | os.PathLike[str]) -> Manifest:
    """The table and the images of a folder that `reid-cckd prepare packed` wrote.

    Raises:
        DataError: the folder is none, incomplete, or of another format; an image is asked for in another size.
    """
    folder = Path(root).expanduser()
    packed = Packed(folder)
    try:
        table = _read_table(folder / ROWS, len(packed))
        columns = {name: table[name] for name in ("labels", "cameras", "roles")}
        names = {int(label): str(name) for label, name in (read_object(folder / NAMES) or {}).items()}
        return Manifest(
            str(packed.plan["name"]),
            folder,
            Numbered(PIXELS, np.arange(len(packed))),
            **columns,
            superclasses=table.get("superclasses"),
            source=PackedRows(packed),
            class_names=names,
        )
    except (*UNREADABLE, TypeError, OverflowError) as error:
        raise DataError(f"{folder / ROWS} cannot be read: {error}. Remove the folder and make it anew.") from error


def _read_table(path: Path, rows: int) -> dict[str, Any]:
    """The columns of a `.npz`, none of which may be longer than so many rows can need."""
    with ZipFile(path) as archive:
        for column in archive.infolist():
            if column.file_size > HEADER + WIDEST * rows:
                raise ValueError(f"{column.filename} claims {column.file_size:,} bytes")
    with np.load(path, allow_pickle=False) as table:
        return {name: table[name] for name in table.files}


def checksum(path: Path) -> dict[str, int]:
    """Bytes and CRC-32 of a file."""
    total = crc = 0
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            total, crc = total + len(block), zlib.crc32(block, crc)
    return {"bytes": total, "crc32": crc}


def read_bad(path: Path, total: int) -> list[BadImage]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        images = [BadImage(int(item["row"]), str(item["path"]), str(item["reason"])) for item in _parsed(lines)]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}. Remove the folder and make it anew.") from error
    return [image for image in images if 0 <= image.row < total]


def _parsed(lines: Sequence[str]) -> Iterator[Any]:
    """All lines, but for a last one that was being written when its writer was killed."""
    yield from (json.loads(line) for line in islice(lines, max(len(lines) - 1, 0)))
    for line in lines[-1:]:
        try:
            yield json.loads(line)
        except ValueError:
            return


def _other_size(packed: Packed, size: tuple[int, int]) -> DataError:
    return DataError(
        f"{packed.folder} holds images of {packed.size[0]} x {packed.size[1]}, wanted {size[0]} x {size[1]}: set "
        f"data.image_size: {list(packed.size)}, or pack the images again."
    )
