"""The formats that `convert` writes: RecordIO packs, identity folders, packed images."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reid_cckd.data.class_folders import read_identities
from reid_cckd.data.convert import Show, predicted_bytes
from reid_cckd.data.folders import Listing
from reid_cckd.data.images import FORMAT_OF, FORMATS, UNDECODABLE, Pixels, in_threads, upright
from reid_cckd.data.manifest import UNLABELLED, Manifest
from reid_cckd.data.pack_writer import write_pack
from reid_cckd.data.packed import PackedRows, read_packed
from reid_cckd.data.packing import content_of, fill_packed, packed_plan
from reid_cckd.data.packs import read_recordio
from reid_cckd.errors import DataError

Size = tuple[int, int]

QUALITY = 95  # of the JPEG that an image becomes which is resized
REPEATED = 1_000  # packed images that are decoded again to compare them, besides the damaged


@dataclass(frozen=True)
class _Encoded:
    """Image files, one person after the other.

    They go over byte for byte, bare pixels as PNG, and with a ``size`` = (H, W) all that have another as JPEG of
    `QUALITY`. Damaged ones go over as they are, and as empty files where not even bytes are left.

    Raises:
        DataError: an image has no label.
    """

    manifest: Manifest
    size: Size | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        unknown = int((self.manifest.labels == UNLABELLED).sum())
        if unknown or not len(self.manifest):
            raise DataError(
                f"{unknown:,} of {len(self.manifest):,} images of {self.manifest.name} have no label, and this format "
                "keeps images by their labels. Choose roles whose images have one, or pack them: prepare packed."
            )

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """(N,) rows of the manifest in which images are written."""
        return np.argsort(self.manifest.labels, kind="stable")

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """(N,) labels from 0 without gaps, one of each row of the manifest."""
        return self.manifest.contiguous_labels()[0]

    def content(self, row: int) -> bytes:
        """The file that image ``row`` of the manifest becomes."""
        content = self.manifest.reader.encoded(self.manifest.paths[row])
        if content is not None and (self.size is None or _size_of(content) == self.size):
            return content
        pixels = self.manifest.image_or_reason(row, self.size)
        if isinstance(pixels, str):
            return content or b""
        return _file(pixels, "PNG" if self.size is None else "JPEG")

    def columns(self) -> dict[str, Any]:
        return {"labels": self.classes[self.order]}

    def compared(self, copy: Manifest) -> NDArray[np.int64]:
        return np.arange(len(copy))

    def compare(self, copy: Manifest, row: int) -> tuple[bool, str]:
        same = copy.reader.encoded(copy.paths[row]) == self.content(int(self.order[row]))
        decoded = copy.image_or_reason(row)
        return same, decoded if isinstance(decoded, str) else ""

    def _plan(self, kind: str, **more: Any) -> dict[str, Any]:
        size = None if self.size is None else list(self.size)
        return {"kind": kind, "format": 1, "size": size, "quality": QUALITY, **more, **content_of(self.manifest)}


@dataclass(frozen=True)
class RecordIO(_Encoded):
    """A pack of insightface's kind, which has identities and ``property``, or of im2rec's, in the manifest's order."""

    kind: Literal["insightface", "im2rec"] = "insightface"

    @cached_property
    def order(self) -> NDArray[np.int64]:
        return np.arange(len(self.manifest)) if self.kind == "im2rec" else super().order

    def plan(self) -> dict[str, Any]:
        return self._plan("RecordIO pack", style=self.kind)

    def needed(self) -> tuple[int, int]:
        framed = 80 * len(self.manifest)  # frame, header, labels, padding and the line of the index
        return predicted_bytes(len(self.manifest), self.content) + framed, 4

    def fill(self, part: Path, show: Show) -> None:
        size = self.size or _size_of(self.content(0)) or (112, 112)
        options: Any = {"kind": self.kind, "size": size, "workers": self.workers, "progress": show}
        write_pack(part / "train.rec", self.classes, self.content, **options)

    def read(self, folder: Path) -> Manifest:
        return read_recordio(folder)


@dataclass(frozen=True)
class Identities(_Encoded):
    """A folder of each person, named by the label; files are named by their rows, so that their order is kept."""

    def plan(self) -> dict[str, Any]:
        return self._plan("identity folders")

    def needed(self) -> tuple[int, int]:
        count = len(self.manifest)
        return predicted_bytes(count, self.content) + 2048 * count, count + 1  # half a block of the disk each

    def fill(self, part: Path, show: Show) -> None:
        digits, files = len(str(self.manifest.labels.max())), Listing()
        homes = {label: part / f"{label:0{digits}d}" for label in np.unique(self.manifest.labels).tolist()}
        for home in homes.values():
            home.mkdir(exist_ok=True)
        done = {name.partition(".")[0] for home in homes.values() for name in files.names(str(home))}

        def write(row: int) -> None:
            stem = f"{row:08d}"
            if stem not in done:
                _write(homes[int(self.manifest.labels[row])], stem, self.content(row))

        for number, _ in enumerate(in_threads(write, self.order.tolist(), self.workers), start=1):
            show(number, len(self.manifest))

    def read(self, folder: Path) -> Manifest:
        return read_identities(folder)


@dataclass(frozen=True)
class PackedImages:
    """Pixels of one size, with labels, cameras, roles and superclasses; damaged ones stay listed as such."""

    manifest: Manifest
    size: Size
    workers: int | None = None

    def plan(self) -> dict[str, Any]:
        return packed_plan(self.manifest, self.size)

    def needed(self) -> tuple[int, int]:
        return 3 * self.size[0] * self.size[1] * len(self.manifest), 5

    def fill(self, part: Path, show: Show) -> None:
        fill_packed(part, self.manifest, self.size, self.workers, show)

    def read(self, folder: Path) -> Manifest:
        return read_packed(folder)

    def columns(self) -> dict[str, Any]:
        names = ("labels", "cameras", "roles", "superclasses")
        return {name: getattr(self.manifest, name) for name in names}

    def compared(self, copy: Manifest) -> NDArray[np.int64]:
        rows = np.linspace(0, len(copy) - 1, min(REPEATED, len(copy))).astype(np.int64)
        assert isinstance(copy.reader, PackedRows)
        damaged = np.array([image.row for image in copy.reader.packed.bad], dtype=np.int64)
        return np.union1d(rows, damaged)

    def compare(self, copy: Manifest, row: int) -> tuple[bool, str]:
        found, expected = copy.image_or_reason(row), self.manifest.image_or_reason(row, self.size)
        return np.array_equal(found, expected), found if isinstance(found, str) else ""


def _write(home: Path, stem: str, content: bytes) -> None:
    """A file that is whole or not there."""
    part = home / f".{stem}.part"
    part.write_bytes(content)
    os.replace(part, home / f"{stem}{_suffix_of(content)}")


def _suffix_of(content: bytes) -> str:
    """What the name of an image file ends in, by what it holds; ``.jpg`` of damaged ones."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return next((suffix for suffix, kind in FORMAT_OF.items() if kind == image.format), ".jpg")
    except UNDECODABLE:
        return ".jpg"


def _size_of(content: bytes) -> Size | None:
    """(H, W) of an image file as it is decoded; None of damaged ones."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            shown = upright(image)
            return shown.height, shown.width
    except UNDECODABLE:
        return None


def _file(pixels: Pixels, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"quality": QUALITY} if kind == "JPEG" else {}))
    return buffer.getvalue()
