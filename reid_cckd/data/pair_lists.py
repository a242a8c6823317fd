"""Lists of image pairs as text: two paths and 0 or 1 a line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reid_cckd.errors import DataError


@dataclass(frozen=True)
class PairList:
    """N pairs: the paths of either side and (N,) whether they show one person."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    same: NDArray[np.bool_]


def read_pair_list(path: str | os.PathLike[str]) -> PairList:
    """Read `first second 1` or `first second 0` a line, separated by tabs, or by spaces where no path has any.

    Raises:
        DataError: the file is missing, empty, or a line (with its number) is of another form.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read the pairs {path}: {error}.") from error
    pairs = [_pair(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not pairs:
        raise DataError(f"{path} is empty; expected two paths and 0 or 1 a line.")
    first, second, same = zip(*pairs, strict=True)
    return PairList(first, second, np.array(same))


def _pair(line: str, place: str) -> tuple[str, str, bool]:
    parts = line.strip().split("\t") if "\t" in line else line.split()
    if len(parts) != 3 or parts[2] not in ("0", "1"):
        raise DataError(f"{place}: expected two paths and 0 or 1, separated by tabs or spaces, found {line.strip()!r}.")
    return parts[0], parts[1], parts[2] == "1"
