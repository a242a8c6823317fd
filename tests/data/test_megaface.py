"""Files of the MegaFace devkit, of IJB and of pair lists: what is written is read, what is damaged is named."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid_cckd.data import megaface
from reid_cckd.data.ijb import read_ijb
from reid_cckd.data.pair_lists import read_pair_list
from reid_cckd.errors import DataError


def test_a_feature_is_a_header_and_floats(tmp_path: Path) -> None:
    vector = np.array([1.5, -2, 3e-8], dtype=np.float32)
    megaface.write_feature(tmp_path / "a" / "x_r100.bin", vector)
    content = (tmp_path / "a" / "x_r100.bin").read_bytes()
    assert content == struct.pack("<4i3f", 3, 1, 4, 5, *vector.tolist())
    found = megaface.read_feature(tmp_path / "a" / "x_r100.bin")
    np.testing.assert_array_equal(found, vector)
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:10],
        lambda content: b"",
        lambda content: struct.pack("<4i", 3, 1, 8, 6) + content[16:],
        lambda content: struct.pack("<4i", -3, -1, 4, 5) + content[16:],
        lambda content: struct.pack("<4i", 2**30, 2**30, 4, 5) + content[16:],
    ],
)
def test_damaged_features_are_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "x.bin"
    megaface.write_feature(path, np.ones(3, np.float32))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"x\.bin .*no devkit feature"):
        megaface.read_feature(path)


def test_lists(tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text('{"path": ["Ann/1.png", "Bob/2.png"], "id": ["Ann", "Bob"]}')
    listed = megaface.TemplateList(("Ann/1.png", "Bob/2.png"), ("Ann", "Bob"))
    assert megaface.read_template_list(tmp_path / "l.json") == listed
    (tmp_path / "d.json_10_1").write_text('{"path": ["1/a/b.jpg"]}')
    assert megaface.read_template_list(megaface.distractor_list(tmp_path / "d.json", 10, 1)).ids == ()
    (tmp_path / "facescrub_lst").write_text("facescrub/Ann Lee/1.png\n\nBob/2.png\n")
    assert megaface.read_lst(tmp_path / "facescrub_lst").ids == ("Ann_Lee", "Bob")
    (tmp_path / "noises").write_text("# a comment\nAnn 1.png\n7\tx/y/z.jpg\n")
    assert megaface.read_noises(tmp_path / "noises") == {"Ann_1.png", "x/y/z.jpg"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "no devkit list"),
        ("[1]", "no devkit list"),
        ('{"path": ["a"], "id": ["1", "2"]}', "found 1 and 2"),
        ('{"path": []}', "found 0 and 0"),
        ('{"path": ["a", "b", "a"]}', "names a twice"),
    ],
)
def test_damaged_lists_are_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "l.json").write_text(content)
    with pytest.raises(DataError, match=words):
        megaface.read_template_list(tmp_path / "l.json")


def test_other_unusable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x80")
    for name, words in [("empty", "empty|names no image"), ("gone", "No such file"), ("bytes", "UTF-8")]:
        for read in (megaface.read_lst, megaface.read_noises):
            with pytest.raises(DataError, match=words):
                read(tmp_path / name)
    with pytest.raises(DataError, match=r"2 of 3 images have no row, the first 'b\.jpg'; there is 'a\.jpg'"):
        megaface.rows_of(["a.jpg", "b.jpg", "c.jpg"], ["a.jpg"], "list")
    assert megaface.rows_of(["./x y/1.jpg"], ["q", "x_y/1.jpg"], "list").tolist() == [1]


def test_paths_are_found_below_a_folder_that_all_lie_in() -> None:
    held = ["top/in/A/1.jpg", "top/in/A/2.jpg"]
    for wanted in (["A/2.jpg"], ["in/A/2.jpg"], ["top/in/A/2.jpg"], ["2.jpg"]):
        assert megaface.rows_of(wanted, held, "list").tolist() == [1]
    for wanted in (["A/2.jpg", "in/A/1.jpg"], ["B/2.jpg"]):  # another folder for each, or none
        with pytest.raises(DataError, match="1 of"):
            megaface.rows_of(wanted, held, "list")
    with pytest.raises(DataError, match="1 of 1 images"):
        megaface.rows_of(["2.jpg"], ["a/1.jpg", "b/2.jpg"], "list")  # which folder is meant?


def test_noises_are_found_by_file_name_or_path(tmp_path: Path) -> None:
    held = ["mf/1/a/x y.jpg", "mf/2/b/2.jpg", "mf/2/c/2.jpg"]
    noises = tmp_path / "noises"
    for text, wanted in [("1/a/x_y.jpg\nz/z.jpg", [True, False, False]), ("mf/2/c/2.jpg", [False, False, True])]:
        noises.write_text(text)
        assert megaface.named_in(noises, held).tolist() == wanted
    noises.write_text("2.jpg\n")
    assert megaface.named_in(noises, held).tolist() == [False, True, True]
    noises.write_text("b/2.jpg\n")
    with pytest.raises(DataError, match=r"names none of the 3 images: it has 'b/2\.jpg', they 'mf/1/a/x_y\.jpg'"):
        megaface.named_in(noises, held)


def test_results_begin_at_rank_0_as_the_devkits_do(tmp_path: Path) -> None:
    megaface.write_result(tmp_path / "cmc.json", {10: 0.9, 1: 0.5}, {1e-6: 0.4, 1e-4: 0.6})
    content = json.loads((tmp_path / "cmc.json").read_text())
    assert content == {"cmc": [[0, 9], [0.5, 0.9]], "roc": [[1e-6, 1e-4], [0.4, 0.6]]}


def write_ijb(folder: Path, name: str = "ijbc") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}_face_tid_mid.txt").write_text("1.jpg 1 10\n2.jpg 1 11\n3.jpg 2 12\n4.jpg 3 13\n5.jpg 4 13\n")
    (folder / f"{name}_template_pair_label.txt").write_text("1 3 1\n2 4 0\n1 4 0\n")
    halves = ("G1", "G2") if name == "ijbc" else ("S1", "S2")
    head = "TEMPLATE_ID,SUBJECT_ID,FILENAME,FACE_X\n"
    (folder / f"{name}_1N_gallery_{halves[0]}.csv").write_text(head + "1,7,img/1.jpg,3\n1,7,img/2.jpg,3\n")
    (folder / f"{name}_1N_gallery_{halves[1]}.csv").write_text(head + "2,8,img/3.jpg,3\n")
    (folder / f"{name}_1N_probe_mixed.csv").write_text(head + '3,7,"img/4,4.jpg",3\n4,8,img/5.jpg,3\n')
    return folder


@pytest.mark.parametrize("name", ["ijbb", "ijbc"])
def test_ijb_meta(tmp_path: Path, name: str) -> None:
    ijb = read_ijb(write_ijb(tmp_path, name))
    assert ijb.faces.paths == ("1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg")
    assert (ijb.faces.templates.tolist(), ijb.faces.media.tolist()) == ([1, 1, 2, 3, 4], [10, 11, 12, 13, 13])
    assert [part.tolist() for part in ijb.pairs] == [[1, 2, 1], [3, 4, 4], [True, False, False]]
    assert [(part.templates.tolist(), part.people.tolist()) for part in ijb.galleries] == [([1], [7]), ([2], [8])]
    assert ijb.probes is not None
    assert ijb.probes.people.tolist() == [7, 8]
    for table in tmp_path.glob("*_1N_*.csv"):
        table.unlink()
    assert read_ijb(tmp_path).galleries == ()


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("ijbc_face_tid_mid.txt", "1.jpg 1\n", "face_tid_mid.txt:1 reads .* expected 3 columns"),
        ("ijbc_face_tid_mid.txt", "1.jpg 1 x\n", "face_tid_mid.txt:1: 'x' is no label"),
        ("ijbc_template_pair_label.txt", "1 3 1\n2 4 0 0\n", "pair_label.txt:2 reads"),
        ("ijbc_template_pair_label.txt", "1 3 1\n2 4 é\n", "pair_label.txt:2: 'é' is no label"),
        ("ijbc_template_pair_label.txt", "", "lists no image"),
        ("ijbc_face_tid_mid.txt", None, "expected ijbb_face_tid_mid.txt or"),
        ("ijbc_template_pair_label.txt", "1 3 2\n", "0 or 1"),
        ("ijbc_template_pair_label.txt", "1 99 1\n", "template 99"),
        ("ijbc_template_pair_label.txt", None, "Cannot read"),
        ("ijbc_1N_gallery_G2.csv", "head\n99,8,x\n", "template 99"),
        ("ijbc_1N_gallery_G1.csv", "head\nx,8\n", "a template and a person"),
    ],
)
def test_damaged_ijb_meta_is_refused(tmp_path: Path, file: str, content: Any, words: str) -> None:
    write_ijb(tmp_path)
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=words):
        read_ijb(tmp_path)


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_name(tmp_path: Path) -> None:
    def written(text: str) -> Path:
        (tmp_path / "list").write_bytes(f"\ufeff{text}\r\n".encode())
        return tmp_path / "list"

    assert megaface.read_lst(written("Ann/1.png")).paths == ("Ann/1.png",)
    assert megaface.read_noises(written("Ann/1.png")) == {"Ann/1.png"}
    assert megaface.read_template_list(written('{"path": ["Ann/1.png"]}')).paths == ("Ann/1.png",)
    assert read_pair_list(written("a.png b.png 1")).first == ("a.png",)


def test_pair_lists(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("a/1.jpg a/2.jpg 1\n\na b/1.jpg\tc d/2.jpg\t0\n")
    found = read_pair_list(tmp_path / "pairs.txt")
    assert (found.first, found.second) == (("a/1.jpg", "a b/1.jpg"), ("a/2.jpg", "c d/2.jpg"))
    assert found.same.tolist() == [True, False]
    for content, words in [("a b 1\na b 2\n", ":2: expected two paths"), ("\n", "empty"), ("a b\n", ":1:")]:
        (tmp_path / "pairs.txt").write_text(content)
        with pytest.raises(DataError, match=words):
            read_pair_list(tmp_path / "pairs.txt")
    with pytest.raises(DataError, match="Cannot read"):
        read_pair_list(tmp_path / "gone.txt")


def test_ijb_lists_of_one_to_many_are_all_there_or_none(tmp_path: Path) -> None:
    (write_ijb(tmp_path) / "ijbc_1N_gallery_G2.csv").unlink()
    with pytest.raises(DataError, match=r"gallery_G2\.csv is missing, and ijbc_1N_gallery_G1\.csv is there"):
        read_ijb(tmp_path)


def test_ijb_subjects_need_no_heading_and_one_person_a_template(tmp_path: Path) -> None:
    table = write_ijb(tmp_path) / "ijbc_1N_gallery_G1.csv"
    table.write_text("2,9,img/3.jpg,3\r\n1,7,img/1.jpg,3\r\n\r\n", encoding="utf-8-sig")
    assert read_ijb(tmp_path).galleries[0].templates.tolist() == [2, 1]
    table.write_text("head\n1,7,img/1.jpg,3\n1,8,img/2.jpg,3\n")
    with pytest.raises(DataError, match=r"gallery_G1\.csv: template 1 shows two people, 7 and 8"):
        read_ijb(tmp_path)


def test_of_paths_that_lists_may_mix_up_the_one_spelled_alike_is_taken() -> None:
    held = ["faces/a b.jpg", "faces/a_b.jpg", "faces/c d.jpg"]
    assert megaface.rows_of(["a b.jpg", "a_b.jpg", "c_d.jpg"], held, "list").tolist() == [0, 1, 2]
    assert megaface.rows_of(["faces\\a b.jpg", "faces/a b.jpg"], held[:1], "list").tolist() == [0, 0]
