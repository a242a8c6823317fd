"""Writing packed images: once for all runs, continued after a kill, made anew when the images have changed."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from reid_cckd.data.images import BadImage, in_threads
from reid_cckd.data.manifest import Manifest
from reid_cckd.data.packed import BAD, FORMAT, NAMES, PIXELS, ROWS, SUM, Packed, checksum, read_bad
from reid_cckd.data.sources import Numbered, length_of, stamp_of
from reid_cckd.data.staging import need_space, read_plan, staged
from reid_cckd.errors import DataError, UserError
from reid_cckd.files import atomic_path, remove_unfinished, write_json

Show = Callable[[int, int], object]  # of (done, total)


def write_packed(
    manifest: Manifest, size: tuple[int, int], folder: Path, *, workers: int | None = None, replace: bool = False
) -> Packed:
    """Decode every image of ``manifest`` once into ``folder``, or leave it as it is when that has been done.

    Continues where a killed call stopped. The folder belongs to the images' paths, sizes in bytes and times of change:
    with ``replace``, one of other content makes way. Damaged images are listed, not refused.

    Raises:
        DataError: ``folder`` holds something else. UserError: no space.
    """
    with staged(folder, packed_plan(manifest, size), replace=replace) as part:
        if part is not None:
            stride, have = 3 * size[0] * size[1], max(length_of(part / PIXELS), 0)
            need_space(folder, len(manifest) * stride - have)
            options: dict[str, Any] = {"unit": "image", "delay": 1, "leave": False, "disable": None}
            with tqdm(desc=f"pack {manifest.name}", total=len(manifest), initial=have // stride, **options) as bar:
                fill_packed(part, manifest, size, workers, lambda done, _: bar.update(done - bar.n))
    return Packed(folder)


def fill_packed(part: Path, manifest: Manifest, size: tuple[int, int], workers: int | None, show: Show) -> None:
    """Write the files of packed images into ``part``, or what a killed call left out."""
    _write_pixels(part, manifest, size, workers, show)
    _write_rows(part / ROWS, manifest)
    if manifest.class_names:
        write_json(part / NAMES, manifest.class_names)
    write_json(part / SUM, checksum(part / PIXELS))


def cached(manifest: Manifest, size: tuple[int, int], cache_dir: Path | None = None) -> Packed:
    """The packed images of ``manifest``, below ``cache_dir`` or ``.packed`` beside the data; made anew when stale.

    Raises:
        DataError: the folder of that name was made with other parameters. UserError: no space, or a read-only folder.
    """
    names = hashlib.sha256(_names(manifest)).hexdigest()[:12]
    title = re.sub(r"[^A-Za-z0-9.]+", "_", manifest.name)
    base = manifest.root / ".packed" if cache_dir is None else cache_dir
    folder = base / f"{title}-{names}-{size[0]}x{size[1]}"
    before, plan = read_plan(folder), packed_plan(manifest, size)
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
    except UserError as error:
        raise type(error)(f"{error} To choose another folder set data.cache_dir.") from error


def packed_plan(manifest: Manifest, size: tuple[int, int]) -> dict[str, Any]:
    """What packed images are made from."""
    return {
        "kind": "packed images",
        "format": FORMAT,
        "size": [int(size[0]), int(size[1])],
        **content_of(manifest),
    }


def content_of(manifest: Manifest) -> dict[str, Any]:
    """What tells a manifest from another: its columns, and the lengths and times of change of its files."""
    content = hashlib.sha256(_names(manifest))
    content.update(stamp_of(manifest.reader.files(manifest.paths)).encode())
    for column in (manifest.labels, manifest.cameras, manifest.roles, manifest.superclasses):
        content.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
    return {"name": manifest.name, "images": len(manifest), "content": content.hexdigest()}


def _names(manifest: Manifest) -> bytes:
    paths = manifest.paths
    if isinstance(paths, Numbered):
        return paths.prefix.encode() + b"\0" + paths.numbers.tobytes()
    return "\0".join(paths).encode("utf-8", "surrogateescape")


def _write_pixels(part: Path, manifest: Manifest, size: tuple[int, int], workers: int | None, show: Show) -> None:
    total, stride = len(manifest), 3 * size[0] * size[1]
    done = max(length_of(part / PIXELS), 0) // stride
    bad = [image for image in read_bad(part / BAD, total) if image.row < done]
    black = np.zeros((*size, 3), dtype=np.uint8)
    decoded = in_threads(lambda row: manifest.image_or_reason(row, size), range(done, total), workers)
    remove_unfinished(part)
    with atomic_path(part / BAD) as kept:
        kept.write_text("".join(map(_line, bad)), encoding="utf-8")
    with (part / BAD).open("a", encoding="utf-8") as faults, (part / PIXELS).open("ab") as pixels:
        pixels.truncate(done * stride)
        for row, image in enumerate(decoded, start=done):
            if isinstance(image, str):
                faults.write(_line(BadImage(row, manifest.paths[row], image)))
                faults.flush()  # before its row: what is in the file of pixels has been judged
            pixels.write((black if isinstance(image, str) else image).tobytes())
            show(row + 1, total)
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
