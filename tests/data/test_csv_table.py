from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_cckd.data.csv_table import read_csv
from reid_cckd.data.layouts import LAYOUTS
from reid_cckd.data.manifest import Manifest
from reid_cckd.errors import DataError
from tests.data.trees import write_image

IMAGES = ("a.jpg", "b/c.jpg", "d, e.jpg", "f.jpg")


def write(root: Path, text: str) -> Path:
    for image in IMAGES:
        write_image(root / image)
    (root / "mine.csv").write_text(text, encoding="utf-8")
    return root / "mine.csv"


def read(root: Path, text: str) -> Manifest:
    return LAYOUTS["csv"](write(root, text))


def message(root: Path, text: str) -> str:
    with pytest.raises(DataError) as caught:
        read(root, text)
    assert "\n" not in str(caught.value)
    assert "mine.csv" in str(caught.value)
    return str(caught.value)


def test_all_columns(tmp_path: Path) -> None:
    text = 'path,label,split,camera,superclass\na.jpg,7,train,1,x\nb/c.jpg,,train,2,y\n"d, e.jpg",9,query,-3,x\n'
    manifest = read(tmp_path, "\ufeff" + text + "\n f.jpg , 9 ,gallery,0,x\r\n")
    assert manifest.name == "mine"
    assert manifest.paths == IMAGES
    assert manifest.labels.tolist() == [7, -1, 9, 9]
    assert manifest.cameras.tolist() == [1, 2, -3, 0]
    assert manifest.roles.tolist() == ["train", "train", "query", "gallery"]
    assert manifest.superclasses is not None
    assert manifest.superclasses.tolist() == [0, 1, 0, 0]
    assert manifest.read(2).shape == (8, 4, 3)
    assert LAYOUTS["csv"](tmp_path).paths == manifest.paths


def test_names_as_labels_and_columns_in_any_order(tmp_path: Path) -> None:
    manifest = read(tmp_path, "split,path,label\ntrain,a.jpg,wren\ntest,b/c.jpg,crow\ntrain,f.jpg,10\n")
    assert manifest.labels.tolist() == [2, 1, 0]
    assert manifest.class_names == {0: "10", 1: "crow", 2: "wren"}
    assert not read(tmp_path, "split,path,label\ntrain,a.jpg,7\n").class_names
    assert manifest.cameras.tolist() == [0, 0, 0]
    assert manifest.superclasses is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("path,lable,split\n", "mine.csv:1 has a column 'lable', expected path, label, split"),
        ("path,lable,split\n", "Did you mean 'label'?"),
        ("path,label\na.jpg,1\n", "mine.csv:1 lacks the column 'split'"),
        ("path,label,label,split\n", "'label' twice"),
        ("", "lacks the column 'path'"),
        ("path,label,split\n", "lists no image"),
        ("path,label,split\na.jpg,1\n", "mine.csv:2 has 2 fields, expected 3"),
        ("path,label,split\na.jpg,1,train,x\n", "mine.csv:2 has 4 fields"),
        ("path,label,split\na.jpg,1,trian\n", "line 2, column split: 'trian' is none of"),
        ("path,label,split\na.jpg,1,trian\n", "Did you mean 'train'?"),
        ("path,label,split\na.jpg,,query\n", "line 2, column label: is empty, which only training"),
        ("path,label,split\na.jpg,-1,train\n", "line 2, column label: -1 is negative; leave"),
        ("path,label,split\n,1,train\n", "line 2, column path: is empty"),
        ("path,label,split\na.jpg,1,train\na.jpg,2,query\n", "line 3, column path: a.jpg is already on line 2"),
        ("path,label,split\ngone.jpg,1,train\n", "line 2, column path: there is no file"),
        ("path,label,split\na\0.jpg,1,train\n", "mine.csv"),
        ("path,label,split,camera\na.jpg,1,train,left\n", "line 2, column camera: 'left' is no whole number"),
        ("path,label,split,camera\na.jpg,1,train,\n", "line 2, column camera: '' is no whole number"),
        ("path,label,split,superclass\na.jpg,1,train,\n", "line 2, column superclass: is empty"),
        ('path,label,split\n"a.jpg,1,train\n', "cannot be read as CSV"),
        ("path,label,split\n" + "gone.jpg,1,x\n" * 20, "has 40 faults"),
    ],
)
def test_file_line_and_column_are_named(tmp_path: Path, text: str, part: str) -> None:
    assert part in message(tmp_path, text)


def test_other_bytes_than_utf_8(tmp_path: Path) -> None:
    write(tmp_path, "").write_bytes(b"path,label,split\n\xff\xfe.jpg,1,train\n")
    with pytest.raises(DataError, match="as CSV in UTF-8"):
        read_csv(tmp_path)


def test_the_hidden_twin_that_macos_leaves_is_no_table(tmp_path: Path) -> None:
    write(tmp_path, "path,label,split\na.jpg,1,train\n")
    (tmp_path / "._mine.csv").write_bytes(b"\x00\x05\x16\x07")
    assert len(LAYOUTS["csv"](tmp_path)) == 1


def test_no_csv_or_two(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected a CSV file, .* which is empty"):
        read_csv(tmp_path)
    (tmp_path / "a.csv").touch()
    (tmp_path / "b.csv").touch()
    with pytest.raises(DataError, match=r"holds a\.csv, b\.csv"):
        read_csv(tmp_path)


FIELDS = st.sampled_from(
    ["a.jpg", "b/c.jpg", "1", "-1", "", "train", "query", "9" * 30, "²", "x", "\0", '"', "\r", "../a"]
)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.lists(FIELDS, min_size=2, max_size=5).map(",".join), max_size=4), raw=st.binary(max_size=30))
def test_no_text_ends_in_anything_but_a_data_error(
    rows: list[str], raw: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp() / "csv"
    file = root / "mine.csv"
    if not file.exists():
        write(root, "")
    for content in ("\n".join(["path,label,split,camera", *rows]).encode(), b"path,label,split\n" + raw, raw):
        file.write_bytes(content)
        try:
            manifest = read_csv(file)
            assert manifest.labels.dtype == np.int64
            assert set(manifest.paths) <= {*IMAGES, "../a"}
        except DataError:
            pass
