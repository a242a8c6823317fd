"""The folder that keeps embeddings: vectors.npy, a memory map; index.npz, its rows; about.json, where it comes from.

names.json, where their data set has names for its labels.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from reid_cckd.errors import DataError
from reid_cckd.files import reserve, write_json

COLUMNS = ("labels", "cameras", "paths", "roles")
NAMES = "names.json"


@dataclass(frozen=True)
class Embeddings:
    """N images in an embedding space.

    ``vectors``: (N, D) float32 or float16, not normalised, possibly a memory map. ``labels``: (N,) whole numbers or
    text. ``cameras``: (N,) int64. ``paths``: (N,) text, relative to the data set's root. ``roles``: (N,) "train",
    "query", "gallery" or what a protocol calls its parts. ``about``: plain values the vectors depend on; ``source``
    in it is the SHA-256 of the checkpoint. ``class_names``: of labels, where their data set has names for them.
    """

    vectors: NDArray[np.floating[Any]]
    labels: NDArray[Any]
    cameras: NDArray[np.int64]
    paths: NDArray[np.str_]
    roles: NDArray[np.str_]
    about: Mapping[str, Any] = field(default_factory=dict)
    class_names: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def source(self) -> str:
        """The SHA-256 of the checkpoint, or nothing."""
        return str(self.about.get("source", ""))

    def take(self, rows: NDArray[np.int64]) -> Embeddings:
        """Rows by number, in that order; a run of neighbours stays a view of the memory map."""
        is_run = len(rows) > 0 and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows)))
        chosen: Any = slice(int(rows[0]), int(rows[-1]) + 1) if is_run else rows
        columns = {name: getattr(self, name)[chosen] for name in ("vectors", *COLUMNS)}
        return replace(self, **columns)

    def select(self, role: str) -> Embeddings:
        """The rows of one role.

        Raises:
            DataError: there are none.
        """
        rows = np.flatnonzero(self.roles == role)
        if not len(rows):
            held = ", ".join(f"{count:,} {name}" for name, count in Counter(self.roles.tolist()).items())
            raise DataError(
                f"These embeddings have no {role} rows; they hold {held or 'nothing'}. Extract them too "
                f"(--roles), or let all images search each other (test --protocol recall)."
            )
        return self.take(rows)

    def joined(self, other: Embeddings) -> Embeddings:
        """These rows, then the other's, which come from the same place."""
        names = ("vectors", *COLUMNS)
        columns: dict[str, Any] = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names}
        return replace(self, **columns, class_names={**other.class_names, **self.class_names})

    def save(self, folder: str | Path) -> None:
        """Write a folder, atomically; one that is there already is refused.

        Raises:
            DataError: the folder exists.
        """
        folder = Path(folder)
        if folder.exists():
            raise DataError(f"{folder} exists already; choose another folder, or delete it.")
        part = part_of(folder)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        np.save(part / "vectors.npy", self.vectors)
        self.finish(folder)

    def finish(self, folder: Path) -> None:
        """Write index and origin beside the vectors that lie in the unfinished folder, and give it its name."""
        part = part_of(folder)
        columns: dict[str, Any] = {name: _packed(getattr(self, name)) for name in COLUMNS}
        np.savez(part / "index.npz", **columns)
        write_json(part / "about.json", dict(self.about))
        if self.class_names:
            write_json(part / NAMES, self.class_names)
        os.replace(part, folder)

    @classmethod
    def load(cls, folder: str | Path) -> Embeddings:
        """Map what `save` or `extract_to` wrote; nothing in it is executed, and the vectors stay on disk.

        Raises:
            DataError: the folder is missing, unfinished or damaged, its columns differ in length, or it names an image
                twice in one role.
        """
        folder = Path(folder)
        try:
            vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
            with np.load(folder / "index.npz", allow_pickle=False) as file:
                columns = {name: _unpacked(file[name]) for name in COLUMNS}
            about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
            names = json.loads((folder / NAMES).read_text(encoding="utf-8")) if (folder / NAMES).exists() else {}
            class_names = {int(label): str(name) for label, name in names.items()}
        except (OSError, ValueError, KeyError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(_unreadable(folder, error)) from error
        _check(folder, vectors, columns)
        return cls(vectors, **columns, about=about, class_names=class_names)


def part_of(folder: Path) -> Path:
    """Where embeddings lie until they are complete."""
    return folder.with_name(folder.name + ".part")


def create_vectors(part: Path, dtype: DTypeLike, shape: tuple[int, int]) -> np.memmap[Any, Any]:
    """A map of a new vectors.npy at its full length: a full disk is an error now, and no bus error in the work."""
    part.mkdir(parents=True, exist_ok=True)
    vectors = np.lib.format.open_memmap(part / "vectors.npy", mode="w+", dtype=dtype, shape=shape)
    with (part / "vectors.npy").open("r+b") as file:
        reserve(file, vectors.offset + vectors.nbytes)
    return vectors


def is_embeddings(path: Path) -> bool:
    """Whether a path is such a folder, complete or not."""
    return path.is_dir() and (path / "vectors.npy").exists()


def _packed(column: NDArray[Any]) -> NDArray[Any]:
    """Text takes a byte a letter in the file, not four."""
    return np.char.encode(column, "utf-8") if column.dtype.kind == "U" else column


def _unpacked(column: NDArray[Any]) -> NDArray[Any]:
    return np.char.decode(column, "utf-8") if column.dtype.kind == "S" else column


def _unreadable(folder: Path, error: Exception) -> str:
    if part_of(folder).exists() and not folder.exists():
        return f"{folder} is unfinished ({part_of(folder).name} is there); run its extraction again to complete it."
    wanted = "a folder with vectors.npy, index.npz and about.json, as `reid-cckd extract` writes it"
    if not is_embeddings(folder):
        return f"There are no embeddings in {folder}. Expected {wanted}."
    return f"Cannot read the embeddings {folder}: {error}. Expected {wanted}."


def _check(folder: Path, vectors: NDArray[Any], columns: Mapping[str, NDArray[Any]]) -> None:
    lengths = {"vectors": len(vectors), **{name: len(column) for name, column in columns.items()}}
    if vectors.ndim != 2 or len(set(lengths.values())) > 1:
        raise DataError(f"{folder}: vectors of shape {vectors.shape} and columns of different lengths {lengths}.")
    seen: set[tuple[str, str]] = set()
    for row in zip(columns["roles"].tolist(), columns["paths"].tolist(), strict=True):
        if row in seen:
            raise DataError(
                f"{folder} names the {row[0]} image {row[1]} twice; it would count twice. Remove it and extract again."
            )
        seen.add(row)
