from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reid_cckd.data.check import check_manifest
from reid_cckd.data.images import read_image
from reid_cckd.data.layouts import LAYOUTS, read_msmt17
from reid_cckd.data.synthetic import ensure_pedestrians, write_pedestrians
from reid_cckd.data.synthetic.writer import MARKER
from reid_cckd.errors import DataError

SMALL: dict[str, Any] = {
    "train_ids": 3,
    "test_ids": 3,
    "images_per_id": 7,
    "cameras": 4,
    "size": (32, 16),
    "workers": 1,
}


def digest(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_it_is_a_sound_msmt17(tmp_path: Path) -> None:
    manifest = write_pedestrians(tmp_path / "set", **SMALL)
    counts = manifest.counts()
    assert counts["train"][:2] == (21, 3)
    assert counts["query"].images + counts["gallery"].images == 21
    assert read_image(manifest.path(0)).shape == (32, 16, 3)
    report = check_manifest(manifest)
    assert report.ok
    assert not report.hopeless_queries
    assert manifest.paths == read_msmt17(tmp_path / "set").paths
    assert LAYOUTS["synthetic"](tmp_path / "set").name == manifest.name == "synthetic pedestrians"


def test_one_query_of_each_person_and_camera(tmp_path: Path) -> None:
    query = write_pedestrians(tmp_path / "set", **SMALL).select("query")
    seen = list(zip(query.labels.tolist(), query.cameras.tolist(), strict=True))
    assert len(seen) == len(set(seen))


def test_the_same_bytes_from_one_process_and_from_two(tmp_path: Path) -> None:
    write_pedestrians(tmp_path / "one", **SMALL)
    write_pedestrians(tmp_path / "two", **{**SMALL, "workers": 2})
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_another_seed_draws_other_people_and_places(tmp_path: Path) -> None:
    one = write_pedestrians(tmp_path / "one", **SMALL)
    two = write_pedestrians(tmp_path / "two", **SMALL, seed=1)
    assert not np.array_equal(read_image(one.path(0)), read_image(two.path(0)))


def test_ensure_leaves_a_matching_set_alone_and_writes_over_no_other(tmp_path: Path) -> None:
    root = tmp_path / "set"
    first = ensure_pedestrians(root, **SMALL)
    stamp = first.path(0).stat().st_mtime_ns
    assert ensure_pedestrians(root, **SMALL).paths == first.paths
    assert first.path(0).stat().st_mtime_ns == stamp
    before = digest(root)
    for make in (ensure_pedestrians, write_pedestrians):
        with pytest.raises(DataError, match=r"of other numbers \(train_ids=3, seed=0; wanted train_ids=4, seed=1\)"):
            make(root, **{**SMALL, "train_ids": 4, "seed": 1})
    assert digest(root) == before
    assert not list(tmp_path.glob(".set.part*"))


def test_a_set_of_an_older_revision_is_made_anew(tmp_path: Path) -> None:
    old = tmp_path / "set"
    ensure_pedestrians(old, **SMALL)
    marker = json.loads((old / MARKER).read_text())
    (old / MARKER).write_text(json.dumps({**marker, "revision": 0}))
    ensure_pedestrians(old, **SMALL)
    assert json.loads((old / MARKER).read_text()) == marker


@pytest.mark.parametrize("how", ["marker", "image", "list"])
def test_a_damaged_set_is_made_anew(tmp_path: Path, how: str) -> None:
    root = tmp_path / "set"
    first = ensure_pedestrians(root, **SMALL)
    whole = digest(root)
    if how == "marker":
        (root / MARKER).write_text("{")
    elif how == "image":
        first.path(4).unlink()
    else:
        (root / "list_query.txt").unlink()
    ensure_pedestrians(root, **SMALL)
    assert digest(root) == whole


def test_a_killed_run_leaves_nothing_that_looks_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "set"
    with monkeypatch.context() as patch:
        patch.setattr("reid_cckd.data.synthetic.writer.write_json", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ensure_pedestrians(root, **SMALL)
    assert not root.exists()
    assert ensure_pedestrians(root, **SMALL).counts()["train"].images == 21
    assert sorted(path.name for path in tmp_path.iterdir()) == [".set.lock", "set"]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_data_of_others_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="nothing of yours is deleted") as caught:
        write_pedestrians(tmp_path, **SMALL)
    assert "thesis.txt" in str(caught.value)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert len(write_pedestrians(tmp_path, **SMALL)) == 42
    assert json.loads((tmp_path / MARKER).read_text())["train_ids"] == 3


@pytest.mark.parametrize(
    "option", [{"train_ids": 0}, {"test_ids": 0}, {"images_per_id": 3}, {"cameras": 1}, {"size": (8, 8)}]
)
def test_sets_that_cannot_be_evaluated_are_refused(tmp_path: Path, option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        write_pedestrians(tmp_path / "set", **{**SMALL, **option})
    assert not (tmp_path / "set").exists()
