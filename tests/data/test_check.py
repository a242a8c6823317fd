from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid_cckd.data.check import check_manifest
from reid_cckd.data.layouts import MARKET_STYLE, MSMT17_TREES, read_market1501, read_msmt17
from reid_cckd.data.manifest import ROLES, Manifest
from reid_cckd.data.published import PUBLISHED
from tests.data.trees import MARKET, write_folders, write_msmt17


def test_a_sound_set(tmp_path: Path) -> None:
    lists = {"query": ["0000/0000_000_04_x_0.jpg 0"], "gallery": ["0000/0000_001_05_x_0.jpg 0"]}
    write_msmt17(tmp_path, {"train": ["0000/0000_000_01_x_0.jpg 0"], "val": ["0000/0000_001_01_x_0.jpg 0"], **lists})
    report = check_manifest(read_msmt17(tmp_path))
    assert report.ok
    assert report.bad == report.disguised == report.shared_ids == report.hopeless_queries == ()
    table = report.table()
    assert "2 (32,621)" in table
    assert "1 (11,659)" in table
    assert "-> " not in table


def test_columns_are_aligned(tmp_path: Path) -> None:
    table = check_manifest(read_market1501(write_folders(tmp_path))).table().splitlines()
    head = next(number for number, line in enumerate(table) if line.split()[:1] == ["images"])
    assert len({len(line) for line in table[head : head + 4]}) == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_damaged_and_disguised_images(tmp_path: Path, workers: int) -> None:
    manifest = read_market1501(write_folders(tmp_path))
    manifest.path(0).write_bytes(b"")
    manifest.path(2).write_bytes(manifest.path(2).read_bytes()[:-200])
    Image.new("RGB", (4, 8)).save(manifest.path(1), format="PNG")
    report = check_manifest(manifest, workers=workers)
    assert [(bad.row, bad.path) for bad in report.bad] == [(0, manifest.paths[0]), (2, manifest.paths[2])]
    assert "0 bytes" in report.bad[0].reason
    assert [(image.row, image.reason) for image in report.disguised] == [(1, "holds PNG")]
    assert not report.ok
    assert f"-> 2 of {len(manifest)} images cannot be decoded" in report.table()
    assert manifest.paths[0] in report.table()


def test_a_photograph_of_several_pictures_is_a_jpeg(tmp_path: Path) -> None:
    manifest = read_market1501(write_folders(tmp_path))
    picture = Image.new("RGB", (4, 8))
    picture.save(manifest.path(0), format="MPO", save_all=True, append_images=[picture])
    assert not check_manifest(manifest).disguised


def test_people_in_training_and_in_test(tmp_path: Path) -> None:
    folders = {**MARKET, "query": ["0007_c2s1_000001_00.jpg"]}
    report = check_manifest(read_market1501(write_folders(tmp_path, folders)))
    assert report.shared_ids == (7,)
    assert not report.ok
    assert report.table().splitlines()[-1].strip() == "7"


def test_people_are_called_by_their_names(tmp_path: Path) -> None:
    folders = {**MARKET, "query": ["0007_c2s1_000001_00.jpg"]}
    manifest = replace(read_market1501(write_folders(tmp_path, folders)), class_names={2: "bob", 7: "anna"})
    report = check_manifest(manifest)
    assert report.table().splitlines()[-1].strip() == "anna"
    assert report.to_dict()["class_names"] == {7: "anna"}


def test_queries_without_a_match_across_cameras(tmp_path: Path) -> None:
    folders = {**MARKET, "query": ["0003_c2s1_1.jpg", "0003_c5s1_1.jpg", "0004_c1s1_1.jpg"]}
    report = check_manifest(read_market1501(write_folders(tmp_path, folders)))
    assert report.hopeless_queries == ("query/0003_c5s1_1.jpg", "query/0004_c1s1_1.jpg")
    assert report.ok  # evaluation leaves them out: worth saying, no fault


def test_the_report_is_json(tmp_path: Path) -> None:
    manifest = read_market1501(write_folders(tmp_path))
    manifest.path(0).write_bytes(b"")
    values = json.loads(json.dumps(check_manifest(manifest).to_dict(), allow_nan=False))
    assert values["counts"]["train"] == {"images": 2, "ids": 2, "cameras": 2}
    assert values["published"]["train"]["images"] == 12936
    assert values["bad"][0]["path"] == manifest.paths[0]
    assert values["ok"] is False


def test_a_set_without_published_numbers(tmp_path: Path) -> None:
    manifest = read_market1501(write_folders(tmp_path))
    other = Manifest("mine", manifest.root, manifest.paths, manifest.labels, manifest.cameras, manifest.roles)
    report = check_manifest(other)
    assert report.published is None
    assert report.to_dict()["published"] is None
    assert "no published numbers" in report.table()


def test_a_manifest_without_test_images(tmp_path: Path) -> None:
    train = read_market1501(write_folders(tmp_path)).select("train")
    assert check_manifest(train).ok
    assert check_manifest(train.take(np.array([], dtype=np.int64))).counts["train"].images == 0


def test_every_public_layout_has_published_counts() -> None:
    identification = {tree.name for tree in MSMT17_TREES} | {style.name for style in MARKET_STYLE.values()}
    assert identification <= set(PUBLISHED)
    for name, counts in PUBLISHED.items():
        assert name not in identification or set(counts) == {"train", "query", "gallery"}
        assert set(counts) <= set(ROLES)


def test_a_set_without_cameras_matches_within_its_one(tmp_path: Path) -> None:
    folders = {
        "bounding_box_train": ["0002_c1s1_1.jpg"],
        "query": ["0003_c1s1_1.jpg", "0009_c1s1_1.jpg"],
        "bounding_box_test": ["0003_c1s1_2.jpg"],
    }
    report = check_manifest(read_market1501(write_folders(tmp_path, folders)))
    assert report.hopeless_queries == ("query/0009_c1s1_1.jpg",)
    *_, queries, _, advice = (line for line in report.table().splitlines() if line[:2] in ("->", "ok"))
    assert queries.endswith("queries without a match (left out of evaluation)")
    assert "evaluation.cameras: ignore" in advice
    assert "evaluation.cameras" not in check_manifest(read_market1501(write_folders(tmp_path / "known"))).table()
