"""Your own images by a CSV: path, label, split, and if you like camera and superclass."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reid_cckd.data.folders import Listing, describe, files_in
from reid_cckd.data.manifest import ROLES, UNLABELLED, Manifest
from reid_cckd.errors import DataError, did_you_mean

REQUIRED, OPTIONAL = ("path", "label", "split"), ("camera", "superclass")
FAULTS = 5  # named in one message
LARGEST = 2**62

Row = dict[str, str]


def read_csv(root: str | os.PathLike[str]) -> Manifest:
    """The images of a CSV file with the columns path, label, split and maybe camera and superclass.

    ``root`` is the file or a folder with one CSV in it; paths are relative to its folder. ``split`` is one of train,
    val, test, query and gallery. Labels are whole numbers, kept as they are, or else names, numbered in their
    alphabetical order; the same holds for superclasses. An empty label in training is an unlabelled image (label -1):
    losses that compare with the teacher use it, losses that need labels refuse it.

    Raises:
        DataError: names the file, the lines and the columns at fault, or the images that are missing.
    """
    file = _find(Path(root).expanduser())
    lines, rows = _rows(file)
    faults = list(_faults(file, lines, rows))
    if faults:
        more = f"; and {len(faults) - FAULTS:,} more" if len(faults) > FAULTS else ""
        raise DataError(f"{file} has {len(faults):,} faults: {'; '.join(faults[:FAULTS])}{more}.")
    superclasses = _numbers([row["superclass"] for row in rows])[0] if "superclass" in rows[0] else None
    labels, class_names = _numbers([row["label"] for row in rows])
    return Manifest(
        file.stem,
        file.parent,
        tuple(row["path"] for row in rows),
        labels,
        np.array([int(row.get("camera", 0)) for row in rows]),
        np.array([row["split"] for row in rows]),
        superclasses=superclasses,
        class_names=class_names,
    )


def _find(root: Path) -> Path:
    if root.is_file():
        return root
    files = [root / name for name in files_in(root, (".csv",))]
    if len(files) == 1:
        return files[0]
    raise DataError(f"Expected a CSV file, or a folder with one, at {describe(root)}. Set the data root to the file.")


def _rows(file: Path) -> tuple[list[int], list[Row]]:
    """Line numbers and fields of a CSV whose columns are right."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True)
            columns = [column.strip() for column in next(reader, [])]
            _check_columns(file, columns)
            lines, rows = [], []
            for fields in reader:
                if not any(field.strip() for field in fields):
                    continue
                if len(fields) != len(columns):
                    raise DataError(
                        f"{file}:{reader.line_num} has {len(fields)} fields, expected {len(columns)}: "
                        f"{','.join(columns)}. A comma in a path needs quotes around the path."
                    )
                lines.append(reader.line_num)
                rows.append({column: field.strip() for column, field in zip(columns, fields, strict=True)})
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as CSV in UTF-8: {error}. Save it anew.") from error
    if not rows:
        raise DataError(f"{file} lists no image below its line of columns.")
    return lines, rows


def _check_columns(file: Path, columns: Sequence[str]) -> None:
    known = (*REQUIRED, *OPTIONAL)
    for column in columns:
        if column not in known:
            raise DataError(
                f"{file}:1 has a column {column!r}, expected {', '.join(REQUIRED)} and, if you like, "
                f"{', '.join(OPTIONAL)}.{did_you_mean(column, known)}"
            )
        if columns.count(column) > 1:
            raise DataError(f"{file}:1 has the column {column!r} twice.")
    if missing := [column for column in REQUIRED if column not in columns]:
        raise DataError(f"{file}:1 lacks the column {missing[0]!r}: its first line reads {','.join(columns)!r}.")


def _faults(file: Path, lines: Sequence[int], rows: Sequence[Row]) -> Iterator[str]:
    files, seen = Listing(), dict[str, int]()
    for line, row in zip(lines, rows, strict=True):
        for column, fault in _faults_of(row).items():
            yield f"line {line}, column {column}: {fault}"
        path = row["path"]
        if path in seen:
            yield f"line {line}, column path: {path} is already on line {seen[path]}"
        elif path and (file.parent / path).as_posix() not in files:
            yield f"line {line}, column path: there is no file {file.parent / path}"
        seen[path] = line


def _faults_of(row: Mapping[str, str]) -> dict[str, str]:
    """What is wrong with single fields of a row."""
    faults = {}
    if not row["path"] or "\0" in row["path"]:
        faults["path"] = "is empty" if not row["path"] else "is no path"
    if row["split"] not in ROLES:
        faults["split"] = f"{row['split']!r} is none of {', '.join(ROLES)}{did_you_mean(row['split'], ROLES)}"
    elif not row["label"] and row["split"] != "train":
        faults["label"] = "is empty, which only training images may be"
    if "camera" in row and not _is_number(row["camera"]):
        faults["camera"] = f"{row['camera']!r} is no whole number"
    if row.get("superclass") == "":
        faults["superclass"] = "is empty"
    for column in ("label", "superclass"):
        if _is_number(row.get(column, "")) and int(row[column]) < 0:
            faults[column] = f"{row[column]} is negative; leave the label of an unlabelled image empty"
    return faults


def _is_number(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and len(digits) < 19 and int(digits) < LARGEST


def _numbers(texts: Sequence[str]) -> tuple[NDArray[np.int64], dict[int, str]]:
    """Whole numbers as they are; otherwise the place of each name in their alphabetical order, and the names by place.

    Empty texts are -1.
    """
    names = sorted({text for text in texts if text})
    if all(_is_number(name) for name in names):
        return np.array([int(text) if text else UNLABELLED for text in texts], dtype=np.int64), {}
    number = {name: place for place, name in enumerate(names)} | {"": UNLABELLED}
    return np.array([number[text] for text in texts], dtype=np.int64), dict(enumerate(names))
