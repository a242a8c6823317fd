"""Every way in which a data set lies on disk, and every way in which it lies there wrongly."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from reid_cckd.data.layouts import LAYOUTS, MARKET_STYLE, read_market1501, read_msmt17
from reid_cckd.data.manifest import Manifest
from reid_cckd.errors import DataError
from tests.data.trees import MARKET, MSMT17, write_folders, write_image, write_msmt17


def message(root: Path | str, dataset: str = "msmt17") -> str:
    """The error of reading ``root``: one paragraph."""
    with pytest.raises(DataError) as caught:
        LAYOUTS[dataset](root)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("home", [".", "MSMT17_V1", "MSMT17"])
def test_msmt17_v1(tmp_path: Path, home: str) -> None:
    write_msmt17(tmp_path / home)
    manifest = read_msmt17(tmp_path)
    assert manifest.name == "MSMT17_V1"
    assert manifest.roles.tolist() == ["train"] * 3 + ["query"] + ["gallery"] * 2
    assert manifest.cameras.tolist() == [1, 2, 3, 4, 15, 20]
    assert manifest.labels.tolist() == [0, 1, 0, 2, 2, 3]  # test ids continue after the training ids
    assert manifest.paths[0] == "train/0000/0000_000_01_0303morning_0008_0.jpg"
    assert all(manifest.path(row).is_file() for row in range(len(manifest)))


def test_msmt17_v2_and_without_validation_images(tmp_path: Path) -> None:
    write_msmt17(tmp_path / "MSMT17_V2", folders=("mask_train_v2", "mask_test_v2"))
    assert read_msmt17(tmp_path).name == "MSMT17_V2"
    assert read_msmt17(tmp_path, use_val=False).counts()["train"].images == 2


def test_msmt17_repack_without_lists(tmp_path: Path) -> None:
    folders = {**MARKET, "query": ["0003_000_02_0303morning_0001_0.jpg"], "bounding_box_test": ["0003_c5s1_1.jpg"]}
    manifest = read_msmt17(write_folders(tmp_path, folders))
    assert manifest.cameras.tolist() == [1, 3, 2, 5]
    assert manifest.labels.tolist() == [2, 7, 11, 11]


@pytest.mark.parametrize("home", [".", "Market-1501-v15.09.15"])
def test_market1501_drops_junk_and_keeps_distractors(tmp_path: Path, home: str) -> None:
    manifest = read_market1501(write_folders(tmp_path / home).parent if home != "." else write_folders(tmp_path))
    assert manifest.labels.tolist() == [2, 7, 3, 0, 3]
    assert manifest.cameras.tolist() == [1, 3, 2, 6, 5]


def test_what_macos_and_windows_leave_beside_images_is_passed_over(tmp_path: Path) -> None:
    write_folders(tmp_path)
    for name in ("._0002_c1s1_000451_03.jpg", ".DS_Store", "Thumbs.db"):
        (tmp_path / "bounding_box_train" / name).write_bytes(b"\x00\x05\x16\x07")
    assert read_market1501(tmp_path).counts()["train"].images == 2


@pytest.mark.parametrize("dataset", sorted(MARKET_STYLE))
def test_every_row_of_the_table_reads_each_of_its_homes(tmp_path: Path, dataset: str) -> None:
    style = MARKET_STYLE[dataset]
    for number, home in enumerate(style.homes):
        root = tmp_path / str(number)
        write_folders(root / home, {folder: ["0005_c012_7.jpg"] for folder in style.folders})
        manifest = LAYOUTS[dataset](root)
        assert (manifest.name, manifest.cameras.tolist(), set(manifest.labels)) == (style.name, [12] * 3, {5})


def test_an_underscore_or_a_space_in_a_folder_does_not_move_the_camera(tmp_path: Path) -> None:
    lists = {**MSMT17, "train": ["a_b_99_c d/0000_000_07_x_0.jpg 0"]}
    assert read_msmt17(write_msmt17(tmp_path, lists)).cameras[0] == 7


def test_blank_lines_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    write_msmt17(tmp_path)
    lists = tmp_path / "list_query.txt"
    lists.write_bytes(b"\xef\xbb\xbf" + lists.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert len(read_msmt17(tmp_path).select("query")) == 1


def test_wrong_root_says_what_was_looked_for_and_found(tmp_path: Path) -> None:
    write_image(tmp_path / "data" / "holiday.jpg")
    text = message(tmp_path / "data")
    for part in (
        "train/ + test/",
        "mask_train_v2/",
        "bounding_box_train/",
        "MSMT17_V1",
        "holiday.jpg",
        "datasets/README",
    ):
        assert part in text


def test_missing_root_points_to_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "msmt17").mkdir()
    text = message(tmp_path / "msmt71")
    assert "is not there" in text
    assert "Did you mean 'msmt17/'?" in text
    assert str(tmp_path) in message(tmp_path / "no" / "such" / "place").partition("The nearest folder")[2]


def test_a_file_as_root_is_named_a_file(tmp_path: Path) -> None:
    assert "which is a file" in message(write_image(tmp_path / "x.jpg"))


@pytest.mark.parametrize("given", ["MSMT17_V1/train", ".", "MSMT17_V1/extra"])
def test_a_root_beside_the_right_one_is_told_where_that_is(tmp_path: Path, given: str) -> None:
    home = write_msmt17(tmp_path / "unpacked" / "MSMT17_V1")
    (home / "extra").mkdir()
    root = tmp_path if given == "." else tmp_path / "unpacked" / given
    assert f"It seems to be at {home}." in message(root)


def test_a_misspelt_folder_is_pointed_out(tmp_path: Path) -> None:
    write_msmt17(tmp_path, folders=("trian", "test"))
    assert "Did you mean 'trian/'?" in message(tmp_path)


def test_two_versions_side_by_side_are_not_mixed(tmp_path: Path) -> None:
    write_msmt17(tmp_path / "MSMT17_V1")
    write_msmt17(tmp_path / "MSMT17_V2", folders=("mask_train_v2", "mask_test_v2"))
    text = message(tmp_path)
    assert "more than one" in text
    assert str(tmp_path / "MSMT17_V1") in text


def test_a_link_beside_its_folder_is_no_second_version(tmp_path: Path) -> None:
    write_folders(tmp_path / "Market-1501-v15.09.15")
    (tmp_path / "Market-1501").symlink_to("Market-1501-v15.09.15")
    assert len(read_market1501(tmp_path)) == 5


@pytest.mark.parametrize("name", ["train", "val", "query", "gallery"])
def test_missing_list(tmp_path: Path, name: str) -> None:
    write_msmt17(tmp_path)
    (tmp_path / f"list_{name}.txt").rename(tmp_path / f"lists_{name}.txt")
    text = message(tmp_path)
    assert f"list_{name}.txt is missing" in text
    assert f"Did you mean 'lists_{name}.txt'?" in text
    assert ("use_val: false" in text) == (name == "val")


def test_a_list_that_is_not_needed_may_be_missing(tmp_path: Path) -> None:
    write_msmt17(tmp_path)
    (tmp_path / "list_val.txt").unlink()
    assert read_msmt17(tmp_path, use_val=False).counts()["train"].images == 2


@pytest.mark.parametrize("name", ["train", "query", "gallery"])
def test_empty_list(tmp_path: Path, name: str) -> None:
    write_msmt17(tmp_path)
    (tmp_path / f"list_{name}.txt").write_text("\n")
    assert f"list_{name}.txt lists no image" in message(tmp_path)


@pytest.mark.parametrize("folder", sorted(MARKET))
def test_empty_folder(tmp_path: Path, folder: str) -> None:
    write_folders(tmp_path)
    shutil.rmtree(tmp_path / folder)
    (tmp_path / folder).mkdir()
    text = message(tmp_path, "market1501")
    assert f"No image in {tmp_path / folder}" in text
    assert "which is empty" in text


def test_a_gallery_of_junk_alone_is_empty(tmp_path: Path) -> None:
    write_folders(tmp_path, {**MARKET, "bounding_box_test": ["-1_c1s1_000004_00.jpg"]})
    assert "people other than -1" in message(tmp_path, "market1501")


def test_missing_files_are_named_with_list_and_line(tmp_path: Path) -> None:
    write_msmt17(tmp_path)
    (tmp_path / "test" / MSMT17["gallery"][1].split()[0]).unlink()
    text = message(tmp_path)
    assert "list_gallery.txt lists 1 of 2 images that are not on disk" in text
    assert f"line 2: test/{MSMT17['gallery'][1].split()[0]}" in text
    shutil.rmtree(tmp_path / "train" / "0000")
    assert "which is not there" in message(tmp_path)


def test_a_path_listed_twice_is_shown_with_both_lines(tmp_path: Path) -> None:
    write_msmt17(tmp_path, {**MSMT17, "gallery": [*MSMT17["gallery"], *MSMT17["query"]]})
    text = message(tmp_path)
    assert "list_gallery.txt:3 lists test/0000/0000_000_04" in text
    assert "list_query.txt:1" in text


@pytest.mark.parametrize("line", ["0000/portrait.jpg 0", "0000/0000_000_morning_0.jpg 0", "0000/0000_000.jpg 0"])
def test_unparsable_camera(tmp_path: Path, line: str) -> None:
    write_msmt17(tmp_path, {**MSMT17, "query": [line]})
    text = message(tmp_path)
    assert f"list_query.txt:1 names test/{line.split()[0]}, whose camera cannot be read" in text
    assert "third field" in text


def test_unparsable_names_in_folders(tmp_path: Path) -> None:
    write_folders(tmp_path, {**MARKET, "query": ["portrait.jpg", "0003_c2s1_000001_00.jpg"]})
    text = message(tmp_path, "market1501")
    assert "1 of 2 images" in text
    assert "portrait.jpg" in text


@pytest.mark.parametrize("line", ["0000/0000_000_04_x.jpg", "0000/0000_000_04_x.jpg zero", "0"])
def test_a_line_that_is_no_path_and_id(tmp_path: Path, line: str) -> None:
    write_msmt17(tmp_path)
    (tmp_path / "list_query.txt").write_text(f"{line}\n")
    text = message(tmp_path)
    assert "list_query.txt:1" in text
    assert repr(line) in text


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    write_msmt17(tmp_path)
    (tmp_path / "list_query.txt").write_bytes(b"\xff\xfe\x00\x80")
    assert "cannot be read as text" in message(tmp_path)


def test_a_large_set_is_read_without_asking_for_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 hard links; one question per folder, so that 126,441 images take about a second."""
    lists: dict[str, list[str]] = {name: [] for name in MSMT17}
    source = write_image(tmp_path / "source.jpg")
    for person in range(200):
        folder = tmp_path / "train" / f"{person:04d}"
        folder.mkdir(parents=True)
        for image in range(100):
            name = f"{person:04d}_{image:03d}_01_x.jpg"
            os.link(source, folder / name)
            lists["train"].append(f"{person:04d}/{name} {person}")
    write_msmt17(tmp_path, {**MSMT17, "train": MSMT17["train"][:0]})
    (tmp_path / "list_train.txt").write_text("\n".join(lists["train"]))
    asked: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: (asked.append(str(folder)), scandir(folder))[1])
    start = time.process_time()
    manifest = read_msmt17(tmp_path)
    assert time.process_time() - start < 2
    assert len(asked) <= 203
    assert isinstance(manifest, Manifest)
    assert manifest.counts()["train"].ids == 200
    assert manifest.labels.dtype == np.int64
