"""Superclasses from a file: by class or by image, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reid_cckd.data import Manifest, read_superclasses
from reid_cckd.errors import DataError

MANIFEST = Manifest(
    "toy", Path("/data"), ("a/1.jpg", "a/2.jpg", "b/1.jpg"), np.array([4, 4, 9]), np.zeros(3), np.array(["train"] * 3)
)


def read(folder: Path, text: str) -> list[int]:
    (folder / "s.csv").write_text(text, encoding="utf-8", newline="")
    return read_superclasses(folder / "s.csv", MANIFEST).tolist()


def test_by_class_and_by_image(tmp_path: Path) -> None:
    assert read(tmp_path, "label,superclass\n9,bird\n4,fish\n77,whale\n") == [1, 1, 0]
    assert read(tmp_path, "path,comment,superclass\na/1.jpg,x,5\nb/1.jpg,y,5\na/2.jpg,,3\n") == [1, 0, 1]


def test_as_a_spreadsheet_writes_it(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufefflabel, superclass\r\n9, bird\r\n4, fish\r\n") == [1, 1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,superclass\n4,fish\n", "no superclass to 1 labels of toy, the first is 9"),
        ("path,superclass\na/1.jpg,1\n", "no superclass to 2 images of toy, the first is a/2.jpg"),
        ("label,superclass\n4,fish\n9,bird\n4,bird\n", r"s\.csv:4: label 4 is in superclass 'fish' and 'bird'"),
        ("label,superclass\n4,fish\n9\n", r"s\.csv:3: expected a label"),
        ("label,group\n4,fish\n", "columns label, group; expected label,superclass"),
        ("", "columns nothing"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        read_superclasses("nowhere.csv", MANIFEST)
