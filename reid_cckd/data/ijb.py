"""The public meta files of IJB-B and IJB-C: templates, pairs, galleries and probes."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_cckd.errors import DataError

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Faces:
    """Images and the (N,) template and medium (photo, or video) of each."""

    paths: tuple[str, ...]
    templates: Ints
    media: Ints


@dataclass(frozen=True)
class Subjects:
    """(T,) templates and the person on each."""

    templates: Ints
    people: Ints


@dataclass(frozen=True)
class IJB:
    """``pairs``: (first template, second template, same person), (P,) each. The two galleries share no person."""

    name: str
    faces: Faces
    pairs: tuple[Ints, Ints, NDArray[np.bool_]]
    galleries: tuple[Subjects, ...]  # none where the 1:N files are not there
    probes: Subjects | None


def read_ijb(meta: str | os.PathLike[str]) -> IJB:
    """Read the meta folder of IJB-B or IJB-C.

    Files: NAME_face_tid_mid.txt, NAME_template_pair_label.txt and, of 1:N, NAME_1N_gallery_G1.csv and G2 (IJB-C) or
    S1 and S2 (IJB-B) and NAME_1N_probe_mixed.csv, NAME being ijbb or ijbc.

    Raises:
        DataError: a file is missing or damaged, or a pair, gallery or probe names a template without a face.
    """
    folder = Path(meta)
    found = sorted(folder.glob("ijb[bc]_face_tid_mid.txt"))
    if len(found) != 1:
        held = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) if folder.is_dir() else "no such folder"
        raise DataError(f"{folder}: expected ijbb_face_tid_mid.txt or ijbc_face_tid_mid.txt there, found {held}.")
    name = found[0].name[:4]
    faces = _faces(found[0])
    pairs = _pairs(folder / f"{name}_template_pair_label.txt")
    halves = ("G1", "G2") if name == "ijbc" else ("S1", "S2")
    tables = [folder / f"{name}_1N_gallery_{half}.csv" for half in halves] + [folder / f"{name}_1N_probe_mixed.csv"]
    listed = [_subjects(table) for table in tables] if all(table.exists() for table in tables) else []
    known = np.unique(faces.templates)
    wanted = [*pairs[:2], *(part.templates for part in listed)]
    for file, templates in zip([folder / f"{name}_template_pair_label.txt"] * 2 + tables, wanted, strict=False):
        strangers = np.setdiff1d(templates, known)
        if len(strangers):
            raise DataError(f"{file}: template {strangers[0]} and {len(strangers) - 1:,} more have no face.")
    return IJB(name, faces, pairs, tuple(listed[:2]), listed[2] if listed else None)


def _faces(path: Path) -> Faces:
    table = _table(path, {"names": ("path", "template", "medium"), "formats": ("U64", "i8", "i8")})
    return Faces(tuple(table["path"].tolist()), table["template"], table["medium"])


def _pairs(path: Path) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    table = _table(path, np.dtype(np.int64))
    if table.ndim != 2 or table.shape[1] != 3 or not np.isin(table[:, 2], (0, 1)).all():
        raise DataError(f"{path}: expected two templates and 0 or 1 a line.")
    return table[:, 0], table[:, 1], table[:, 2] == 1


def _subjects(path: Path) -> Subjects:
    """The person of each template, from a table of images with TEMPLATE_ID and SUBJECT_ID first."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    try:
        people = {int(row[0]): int(row[1]) for row in rows if row}
    except (ValueError, IndexError) as error:
        raise DataError(f"{path}: expected a template and a person first in every line ({error}).") from error
    return Subjects(np.array(list(people)), np.array(list(people.values())))


def _table(path: Path, dtype: Any) -> NDArray[Any]:
    try:
        table = np.loadtxt(path, dtype=dtype, ndmin=1 if isinstance(dtype, dict) else 2)
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read {path}: {error}.") from error
    if not len(table):
        raise DataError(f"{path} is empty.")
    return table
