"""The public meta files of IJB-B and IJB-C: templates, pairs, galleries and probes."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reid_cckd.data.lists import list_lines, number_in, number_table
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
    detection: Path  # the file of detection scores, if it is there


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
    present = [table for table in tables if table.exists()]
    if present and len(present) < len(tables):
        lost = next(table for table in tables if table not in present)
        raise DataError(
            f"{lost} is missing, and {present[0].name} is there. Unpack the lists of 1:N again, or remove all."
        )
    listed = [_subjects(table) for table in present]
    known = np.unique(faces.templates)
    wanted = [*pairs[:2], *(part.templates for part in listed)]
    for file, templates in zip([folder / f"{name}_template_pair_label.txt"] * 2 + tables, wanted, strict=False):
        strangers = np.setdiff1d(templates, known)
        if len(strangers):
            raise DataError(f"{file}: template {strangers[0]} and {len(strangers) - 1:,} more have no face.")
    return IJB(
        name, faces, pairs, tuple(listed[:2]), listed[2] if listed else None, folder / f"{name}_name_5pts_score.txt"
    )


def read_detection_scores(ijb: IJB) -> NDArray[np.float64]:
    """(N,) how sure the detector was of each face: the last of the numbers beside its name.

    Raises:
        DataError: no such file, a line that is not a name, ten coordinates and a score above 0, or a face without one.
    """
    scores: dict[str, float] = {}
    for where, (name, *_, score) in list_lines(ijb.detection, 12):
        try:
            scores[name] = float(score)
        except ValueError:
            scores[name] = np.nan
        if not 0 < scores[name] < np.inf:
            raise DataError(f"{where}: expected a name, ten coordinates and a score above 0, not {score!r}.")
    missing = [path for path in ijb.faces.paths if path not in scores]
    if missing:
        raise DataError(f"{ijb.detection} has no score of {missing[0]} and {len(missing) - 1:,} more faces.")
    return np.array([scores[path] for path in ijb.faces.paths])


def _faces(path: Path) -> Faces:
    rows = [
        (name, number_in(where, first), number_in(where, second))
        for where, (name, first, second) in list_lines(path, 3)
    ]
    names, templates, media = zip(*rows, strict=True)
    return Faces(names, np.array(templates, dtype=np.int64), np.array(media, dtype=np.int64))


def _pairs(path: Path) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    table = number_table(path, 3)
    if not np.isin(table[:, 2], (0, 1)).all():
        raise DataError(f"{path}: expected two templates and 0 or 1 a line.")
    return table[:, 0], table[:, 1], table[:, 2] == 1


def _subjects(path: Path) -> Subjects:
    """The person of each template, from a table of images with TEMPLATE_ID and SUBJECT_ID first.

    Its first line is a heading, unless that begins with a number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
        rows = rows[0 if rows and rows[0][0].isdecimal() else 1 :]
        people = {int(row[0]): int(row[1]) for row in rows}
        if torn := [row for row in rows if people[int(row[0])] != int(row[1])]:
            raise DataError(
                f"{path}: template {torn[0][0]} shows two people, {torn[0][1]} and {people[int(torn[0][0])]}."
            )
        return Subjects(np.array(list(people), dtype=np.int64), np.array(list(people.values()), dtype=np.int64))
    except (OSError, csv.Error, ValueError, IndexError, OverflowError) as error:
        raise DataError(f"{path}: expected a template and a person first in every line ({error}).") from error
