"""Images decoded once: resized uint8 pixels in one file that is mapped into memory, with the table of their rows."""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from reid_cckd.data.images import BadImage, Pixels, in_threads
from reid_cckd.data.manifest import Manifest
from reid_cckd.data.sources import Numbered, number_of, stamp_of
from reid_cckd.data.staging import PLAN, need_space, read_plan, staged
from reid_cckd.errors import DataError
from reid_cckd.files import write_json

FORMAT = 1  # raise it when decoding or the files change: caches are then made anew
PIXELS, ROWS, BAD, SUM = "pixels.bin", "rows.npz", "bad.jsonl", "checksum.json"
CHUNK = 2**24


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
                f"{folder} holds no packed images: looked for {folder / PLAN}. Make it with `prepare packed`."
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
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise DataError(f"{folder / PLAN} is damaged: {error}. Remove the folder and make it anew.") from error
        found = (folder / PIXELS).stat().st_size if (folder / PIXELS).is_file() else 0
        if found != int(np.prod(self.shape)):
            raise DataError(
                f"{folder / PIXELS} has {found:,} bytes, expected {int(np.prod(self.shape)):,} for {self.shape[0]:,} "
                f"images of {self.size[0]} x {self.size[1]}. Remove the folder and make it anew."
            )
        self.bad = _read_bad(folder / BAD, self.shape[0])

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
        expected = json.loads((self.folder / SUM).read_text(encoding="utf-8"))
        if checksum(self.folder / PIXELS) != expected:
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
    """The table and the images of a folder that `prepare packed` wrote.

    Raises:
        DataError: the folder is none, incomplete, or of another format; an image is asked for in another size.
    """
    folder = Path(root).expanduser()
    packed = Packed(folder)
    try:
        with np.load(folder / ROWS, allow_pickle=False) as rows:
            table = {name: rows[name] for name in rows.files}
        columns = {name: table[name] for name in ("labels", "cameras", "roles")}
        return Manifest(
            str(packed.plan["name"]),
            folder,
            Numbered(PIXELS, np.arange(len(packed))),
            **columns,
            superclasses=table.get("superclasses"),
            source=PackedRows(packed),
        )
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(f"{folder / ROWS} cannot be read: {error}. Remove the folder and make it anew.") from error


def write_packed(
    manifest: Manifest, size: tuple[int, int], folder: Path, *, workers: int | None = None, replace: bool = False
) -> Packed:
    """Decode every image of ``manifest`` once into ``folder``, or leave it as it is when that has been done.

    Continues where a killed call stopped. The folder belongs to the images' paths, sizes in bytes and times of change:
    with ``replace``, one of other content makes way. Damaged images are listed, not refused.

    Raises:
        DataError: ``folder`` holds something else. UserError: no space.
    """
    plan = _plan(manifest, size)
    with staged(folder, plan, replace=replace) as part:
        if part is not None:
            have = (part / PIXELS).stat().st_size if (part / PIXELS).exists() else 0
            need_space(folder, len(manifest) * 3 * size[0] * size[1] - have)
            _write_pixels(part, manifest, size, workers)
            _write_rows(part / ROWS, manifest)
            write_json(part / SUM, checksum(part / PIXELS))
    return Packed(folder)


def cached(manifest: Manifest, size: tuple[int, int], cache_dir: Path | None = None) -> Packed:
    """The packed images of ``manifest``, below ``cache_dir`` or ``.packed`` beside the data; made anew when stale.

    Raises:
        DataError: the folder of that name was made with other parameters. UserError: no space, or a read-only folder.
    """
    names = hashlib.sha256(_names(manifest)).hexdigest()[:12]
    title = re.sub(r"[^A-Za-z0-9.]+", "_", manifest.name)
    base = manifest.root / ".packed" if cache_dir is None else cache_dir
    folder = base / f"{title}-{names}-{size[0]}x{size[1]}"
    before, plan = read_plan(folder), _plan(manifest, size)
    if before is not None:
        other = {key: before.get(key) for key in plan if key != "content" and before.get(key) != plan[key]}
        if other:
            raise DataError(
                f"{folder} was made with other parameters ({other}; wanted "
                f"{ {key: plan[key] for key in other} }). Remove it, or set another data.cache_dir."
            )
        if before != plan:
            print(f"{folder}: the images have changed since; decoding them again.")
    try:
        return write_packed(manifest, size, folder, replace=True)
    except PermissionError as error:
        raise DataError(f"{base} cannot be written: {error.strerror}. Set data.cache_dir.") from error


def check_size(packed: Packed, size: tuple[int, int]) -> None:
    """Raises DataError where packed images are of another size than a run asks for."""
    if tuple(size) != packed.size:
        raise _other_size(packed, size)


def checksum(path: Path) -> dict[str, int]:
    """Bytes and CRC-32 of a file."""
    total = crc = 0
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            total, crc = total + len(block), zlib.crc32(block, crc)
    return {"bytes": total, "crc32": crc}


def _plan(manifest: Manifest, size: tuple[int, int]) -> dict[str, Any]:
    content = hashlib.sha256(_names(manifest))
    content.update(stamp_of(manifest.reader.files(manifest.paths)).encode())
    for column in (manifest.labels, manifest.cameras, manifest.roles, manifest.superclasses):
        content.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
    return {
        "kind": "packed images",
        "format": FORMAT,
        "name": manifest.name,
        "size": [int(size[0]), int(size[1])],
        "images": len(manifest),
        "content": content.hexdigest(),
    }


def _names(manifest: Manifest) -> bytes:
    paths = manifest.paths
    if isinstance(paths, Numbered):
        return paths.prefix.encode() + b"\0" + paths.numbers.tobytes()
    return "\0".join(paths).encode("utf-8", "surrogateescape")


def _write_pixels(part: Path, manifest: Manifest, size: tuple[int, int], workers: int | None) -> None:
    total, stride = len(manifest), 3 * size[0] * size[1]
    done = ((part / PIXELS).stat().st_size if (part / PIXELS).exists() else 0) // stride
    bad = [image for image in _read_bad(part / BAD, total) if image.row < done]
    black = np.zeros((*size, 3), dtype=np.uint8)
    decoded = in_threads(lambda row: manifest.image_or_reason(row, size), range(done, total), workers)
    bar = tqdm(decoded, f"pack {manifest.name}", total, initial=done, unit="image", delay=1, leave=False, disable=None)
    with (part / BAD).open("w", encoding="utf-8") as faults, (part / PIXELS).open("ab") as pixels:
        pixels.truncate(done * stride)
        faults.writelines(_line(image) for image in bad)
        for row, image in enumerate(bar, start=done):
            if isinstance(image, str):
                faults.write(_line(BadImage(row, manifest.paths[row], image)))
                faults.flush()  # before its row: what is in the file of pixels has been judged
            pixels.write((black if isinstance(image, str) else image).tobytes())
        pixels.flush()
        os.fsync(pixels.fileno())


def _write_rows(path: Path, manifest: Manifest) -> None:
    columns: dict[str, Any] = {"labels": manifest.labels, "cameras": manifest.cameras, "roles": manifest.roles}
    if manifest.superclasses is not None:
        columns["superclasses"] = manifest.superclasses
    with path.open("wb") as file:
        np.savez_compressed(file, **columns)


def _line(image: BadImage) -> str:
    return json.dumps(image._asdict()) + "\n"


def _read_bad(path: Path, total: int) -> list[BadImage]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        images = [BadImage(int(item["row"]), str(item["path"]), str(item["reason"])) for item in _parsed(lines)]
    except (OSError, ValueError, KeyError, TypeError) as error:
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
