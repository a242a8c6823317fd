"""Superclasses that a user gives: of each image, or of each class."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reid_cckd.data.manifest import Manifest
from reid_cckd.errors import DataError


def read_superclasses(path: str | Path, manifest: Manifest) -> NDArray[np.int64]:
    """(N,) superclasses of the images of ``manifest``, numbered from 0, from a CSV file with a heading.

    Its columns are ``superclass`` (any text) and ``label`` (a person or class id) or ``path`` (relative to the data
    set's root); further columns and rows of other images are passed over.

    Raises:
        DataError: no such file or columns, two superclasses for one thing, or images without one; names the first.
    """
    key, table = _table(Path(path))
    names = manifest.labels.astype(str).tolist() if key == "label" else list(map(str, manifest.paths))
    missing = sorted({name for name in names if name not in table})
    if missing:
        of = "labels" if key == "label" else "images"
        raise DataError(
            f"{path} gives no superclass to {len(missing)} {of} of {manifest.name}, the first is {missing[0]}."
        )
    return np.unique([table[name] for name in names], return_inverse=True)[1].astype(np.int64)


def _table(path: Path) -> tuple[str, dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Cannot read the superclasses {path}: {error}. Expected a CSV file.") from error
    columns = rows[0].keys() if rows else set()
    key = next((name for name in ("path", "label") if name in columns), None)
    if key is None or "superclass" not in columns:
        found = ", ".join(map(str, columns)) or "nothing"
        raise DataError(f"{path} has the columns {found}; expected label,superclass or path,superclass and a row each.")
    table: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if not row[key] or not row["superclass"]:
            raise DataError(f"{path}:{number}: expected a {key} and its superclass in every row.")
        if table.setdefault(row[key], row["superclass"]) != row["superclass"]:
            one, other = table[row[key]], row["superclass"]
            raise DataError(f"{path}:{number}: {key} {row[key]} is in superclass {one!r} and {other!r}; keep one.")
    return key, table
