from __future__ import annotations

import errno
import json
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from reid_cckd.data import packing
from reid_cckd.data.dataset import ImageDataset, collate
from reid_cckd.data.images import DamagedImageError
from reid_cckd.data.layouts import LAYOUTS
from reid_cckd.data.manifest import Manifest
from reid_cckd.data.packed import PIXELS, Packed
from reid_cckd.data.packing import cached, write_packed
from reid_cckd.errors import DataError, UserError
from tests.data.trees import write_image

SIZE = (16, 8)
N = 10


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    paths = tuple(f"{i}.png" for i in range(N))
    for i, path in enumerate(paths):
        write_image(tmp_path / "set" / path, value=10 * i, size=(20, 12))
    labels, roles = np.arange(N) // 2 + 7, np.array(["train"] * N)
    return Manifest("my set", tmp_path / "set", paths, labels, np.arange(N) % 3, roles, superclasses=np.arange(N) // 5)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Rows that were decoded."""
    rows: list[int] = []
    original = Manifest.image_or_reason

    def spy(self: Manifest, row: int, size: tuple[int, int] | None = None) -> Any:
        rows.append(row)
        return original(self, row, size)

    monkeypatch.setattr(Manifest, "image_or_reason", spy)
    return rows


def dataset(manifest: Manifest, **options: Any) -> ImageDataset:
    return ImageDataset(manifest, manifest.contiguous_labels()[0], SIZE, **options)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_cache_changes_nothing(manifest: Manifest, workers: int) -> None:
    images = dataset(manifest, cache="packed")
    batch = next(iter(DataLoader(images, batch_size=N, collate_fn=collate, num_workers=workers)))
    plain = collate([dataset(manifest)[row] for row in range(N)])
    assert torch.equal(batch.images, plain.images)
    assert torch.equal(batch.labels, plain.labels)
    copy = pickle.dumps(images._packed)  # what a spawned worker gets
    assert len(copy) < 1000
    np.testing.assert_array_equal(pickle.loads(copy).pixels, plain.images.permute(0, 2, 3, 1).numpy())


def test_everything_is_decoded_once_for_all_runs(manifest: Manifest, decoded: list[int]) -> None:
    for _ in range(3):
        dataset(manifest, cache="packed")
    assert sorted(decoded) == list(range(N))
    assert [path.name.split("-")[0] for path in (manifest.root / ".packed").glob("[!.]*")] == ["my_set"]


def test_sizes_and_parts_have_caches_of_their_own(manifest: Manifest, tmp_path: Path) -> None:
    for part, size in [(manifest, SIZE), (manifest, (8, 8)), (manifest.take(np.arange(4)), SIZE)]:
        assert len(cached(part, size, tmp_path / "cache")) == len(part)
    assert len(list((tmp_path / "cache").glob("[!.]*"))) == 3


def test_a_stale_cache_is_made_anew(manifest: Manifest, decoded: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    dataset(manifest, cache="packed")
    write_image(manifest.path(4), value=150, size=(20, 12))
    os.utime(manifest.path(4), ns=(1, 1))
    images = dataset(manifest, cache="packed")
    assert len(decoded) == 2 * N
    assert "have changed" in capsys.readouterr().out
    assert torch.equal(images[4][0], dataset(manifest)[4][0])
    assert len(list((manifest.root / ".packed").glob("[!.]*"))) == 1


def test_damaged_images_are_reported_as_without_a_cache(manifest: Manifest) -> None:
    manifest.path(3).write_bytes(b"")
    for _ in range(2):  # when it is made and when it is there
        with pytest.raises(DamagedImageError, match=r"1 of 10 images .*3\.png: the file is empty"):
            dataset(manifest, cache="packed")
        images = dataset(manifest, cache="packed", on_bad_image="skip")
        assert [bad.row for bad in images.bad] == [3]
        plain = dataset(manifest, on_bad_image="skip")
        assert all(torch.equal(images[row][0], plain[row][0]) for row in range(N - 1))


def test_a_killed_call_continues(manifest: Manifest, tmp_path: Path, decoded: list[int], monkeypatch: Any) -> None:
    manifest.path(1).write_bytes(b"")
    original = packing.in_threads

    def dies_after(rows: int) -> Any:
        def killed(*arguments: Any) -> Iterator[Any]:
            for number, image in enumerate(original(*arguments)):
                if number == rows:
                    raise KeyboardInterrupt
                yield image

        return killed

    for rows in (0, 4, 3):
        monkeypatch.setattr(packing, "in_threads", dies_after(rows))
        with pytest.raises(KeyboardInterrupt):
            write_packed(manifest, SIZE, tmp_path / "out", workers=1)
        assert not (tmp_path / "out").exists()
    monkeypatch.setattr(packing, "in_threads", original)
    decoded.clear()
    whole = write_packed(manifest, SIZE, tmp_path / "out")
    assert sorted(decoded) == [7, 8, 9]
    assert [bad.row for bad in whole.bad] == [1]
    again = write_packed(manifest, SIZE, tmp_path / "fresh")
    np.testing.assert_array_equal(whole.pixels, again.pixels)
    whole.verify()


def test_half_a_row_is_cut_off(manifest: Manifest, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(packing, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_packed(manifest, SIZE, tmp_path / "out")
    monkeypatch.undo()
    os.truncate(tmp_path / ".out.part" / PIXELS, 3 * 16 * 8 * 4 + 17)
    whole = write_packed(manifest, SIZE, tmp_path / "out")
    np.testing.assert_array_equal(whole.pixels[5], manifest.read(5, SIZE))


def test_no_space_left_loses_nothing(manifest: Manifest, tmp_path: Path, monkeypatch: Any) -> None:
    def full(path: Path, value: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packing, "write_json", full)
    with pytest.raises(UserError, match=r"No space left to write .*out\. What is written is kept"):
        write_packed(manifest, SIZE, tmp_path / "out")
    assert (tmp_path / ".out.part" / PIXELS).stat().st_size == N * 3 * 16 * 8
    monkeypatch.setattr("reid_cckd.data.staging.shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(UserError, match=r"needs 0\.0 GB and 0\.0 GB are free"):
        write_packed(manifest, SIZE, tmp_path / "other")


def test_nothing_else_is_written_over(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match=r"letter\.txt: it is not what would be written"):
        write_packed(manifest, SIZE, tmp_path / "mine", replace=True)
    write_packed(manifest, SIZE, tmp_path / "out")
    with pytest.raises(DataError, match="it is not what would be written"):
        write_packed(manifest, (4, 4), tmp_path / "out")
    assert Packed(tmp_path / "out").size == SIZE


def test_packed_images_are_a_layout(manifest: Manifest, tmp_path: Path) -> None:
    manifest.path(2).write_bytes(b"")
    manifest = replace(manifest, class_names={1: "anna", 2: "b\udc80b"})  # of folders, whose names are not always text
    write_packed(manifest, SIZE, tmp_path / "out")
    table = LAYOUTS["packed"](tmp_path / "out")
    assert (table.name, list(table.paths)[9]) == ("my set", "pixels.bin:9")
    for column in ("labels", "cameras", "roles", "superclasses"):
        assert getattr(table, column).tolist() == getattr(manifest, column).tolist()
    assert table.class_names == manifest.class_names
    np.testing.assert_array_equal(table.read(5, SIZE), manifest.read(5, SIZE))
    assert table.image_or_reason(2) == "the file is empty (0 bytes)"
    with pytest.raises(DataError, match=r"holds images of 16 x 8, wanted 4 x 4: set data.image_size: \[16, 8\]"):
        table.read(0, (4, 4))


def test_other_parameters_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    folder = cached(manifest, SIZE, tmp_path / "cache").folder
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps({**plan, "size": [4, 4]}))
    with pytest.raises(DataError, match=r"was made with other parameters .*'size': \[4, 4\].* data\.cache_dir"):
        cached(manifest, SIZE, tmp_path / "cache")
    (folder / "plan.json").write_text(json.dumps({**plan, "format": 99}))
    with pytest.raises(DataError, match="format 99"):
        LAYOUTS["packed"](folder)
    (folder / "plan.json").unlink()
    with pytest.raises(DataError, match=r"nothing is written over it\. .* set data\.cache_dir\."):
        cached(manifest, SIZE, tmp_path / "cache")


@pytest.mark.parametrize("how", ["truncated", "plan", "rows", "bad", "gone"])
def test_a_damaged_folder_is_named(manifest: Manifest, tmp_path: Path, how: str) -> None:
    folder = tmp_path / "out"
    write_packed(manifest, SIZE, folder)
    damage = {"truncated": PIXELS, "plan": "plan.json", "rows": "rows.npz", "bad": "bad.jsonl"}
    if how == "gone":
        folder.rename(tmp_path / "elsewhere")
    else:
        content = (folder / damage[how]).read_bytes()
        (folder / damage[how]).write_bytes(content[:-7] if how != "bad" else b'{"row": "x"}\n' * 2)
    with pytest.raises(DataError, match=str(folder)):
        LAYOUTS["packed"](folder)


def test_changed_pixels_are_found(manifest: Manifest, tmp_path: Path) -> None:
    whole = write_packed(manifest, SIZE, tmp_path / "out")
    content = bytearray((tmp_path / "out" / PIXELS).read_bytes())
    content[1000] ^= 1
    (tmp_path / "out" / PIXELS).write_bytes(content)
    with pytest.raises(DataError, match="has changed since it was written"):
        whole.verify()
