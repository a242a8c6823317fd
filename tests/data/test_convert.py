"""Packs, identity folders and packed images made of other formats: equal to their source, or not there."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reid_cckd.data import LAYOUTS, Manifest, Numbers, write_twin
from reid_cckd.data.convert import Converted, Target, convert
from reid_cckd.data.targets import Identities, PackedImages, RecordIO
from reid_cckd.errors import DataError, UserError
from tests.data.trees import write_image

PEOPLE = [4, 2, 4, 9, 2, 2, 9]
MAKE: dict[str, Callable[[Manifest], Target]] = {
    "recordio": lambda manifest: RecordIO(manifest, workers=1),
    "identities": lambda manifest: Identities(manifest, workers=1),
    "packed": lambda manifest: PackedImages(manifest, (8, 4), workers=1),
}


@contextlib.contextmanager
def silent(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda done, total: None


def made(target: Target, folder: Path) -> Converted:
    return convert(target, folder, silent)


@pytest.fixture
def source(tmp_path: Path) -> Manifest:
    """A JPEG and six PNGs of three people that are not in their order."""
    paths = tuple(f"{i}.{'jpg' if i == 3 else 'png'}" for i in range(len(PEOPLE)))
    for i, path in enumerate(paths):
        write_image(tmp_path / "source" / path, value=20 * i)
    zeros = np.zeros(len(PEOPLE), dtype=np.int64)
    return Manifest("crops", tmp_path / "source", paths, np.array(PEOPLE), zeros, np.array(["train"] * len(PEOPLE)))


def files_of(manifest: Manifest) -> list[bytes | None]:
    return [manifest.reader.encoded(path) for path in manifest.paths]


def test_a_pack_through_folders_is_the_same_pack(tmp_path: Path) -> None:
    twin = write_twin("recordio", tmp_path / "twin", Numbers(ids=4, images_per_id=5, size=(16, 16)))
    made(Identities(twin, workers=2), tmp_path / "folders")
    folders = LAYOUTS["identities"](tmp_path / "folders")
    assert (folders.labels.tolist(), files_of(folders)) == (twin.labels.tolist(), files_of(twin))
    made(RecordIO(folders, (16, 16), workers=2), tmp_path / "pack")
    for name in ("train.rec", "train.idx", "property"):
        assert (tmp_path / "pack" / name).read_bytes() == (tmp_path / "twin" / name).read_bytes()


@pytest.mark.parametrize("layout", MAKE)
def test_every_format_holds_what_its_source_holds(source: Manifest, tmp_path: Path, layout: str) -> None:
    found = made(MAKE[layout](source), tmp_path / "out")
    copy = LAYOUTS[layout](tmp_path / "out")
    assert (found.images, found.people, found.compared, found.bad) == (7, 3, 7, ())
    assert found.bytes == sum(file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file())
    if layout == "packed":
        assert copy.labels.tolist() == PEOPLE
        assert all(np.array_equal(copy.read(row), source.read(row, (8, 4))) for row in range(7))
    else:
        assert copy.labels.tolist() == [0, 0, 0, 1, 1, 2, 2]
        assert files_of(copy) == [files_of(source)[row] for row in (1, 4, 5, 0, 2, 3, 6)]


def test_a_pack_of_im2rec_keeps_the_order(source: Manifest, tmp_path: Path) -> None:
    made(RecordIO(source, kind="im2rec"), tmp_path / "out")
    copy = LAYOUTS["recordio"](tmp_path / "out")
    assert copy.labels.tolist() == [1, 0, 1, 2, 0, 0, 2]
    assert files_of(copy) == files_of(source)


def test_pixels_without_files_become_png_and_only_other_sizes_are_encoded_anew(
    source: Manifest, tmp_path: Path
) -> None:
    made(PackedImages(source, (8, 4)), tmp_path / "packed")
    packed = LAYOUTS["packed"](tmp_path / "packed")
    made(Identities(packed), tmp_path / "out")
    copy = LAYOUTS["identities"](tmp_path / "out")
    assert {Path(path).suffix for path in copy.paths} == {".png"}
    assert np.array_equal(copy.read(0), packed.read(1))
    large = write_image(source.root / "0.png", size=(16, 12)).read_bytes()
    made(RecordIO(source, (8, 4)), tmp_path / "small")
    resized = LAYOUTS["recordio"](tmp_path / "small")
    assert {resized.read(row).shape for row in range(7)} == {(8, 4, 3)}
    assert large not in files_of(resized)
    assert files_of(resized)[:3] == [files_of(source)[row] for row in (1, 4, 5)]
    assert (tmp_path / "small" / "property").read_text() == "3,8,4\n"


@pytest.mark.parametrize("layout", MAKE)
def test_damaged_images_go_over_as_they_are(source: Manifest, tmp_path: Path, layout: str) -> None:
    source.path(2).write_bytes(b"no image")
    source.path(5).write_bytes(b"")
    found = made(MAKE[layout](source), tmp_path / "out")
    copy = LAYOUTS[layout](tmp_path / "out")
    assert sorted(bad.row for bad in found.bad) == ([2, 5] if layout == "packed" else [2, 4])
    assert {bad.reason for bad in found.bad} == {copy.image_or_reason(bad.row) for bad in found.bad}
    assert sorted("empty" in bad.reason for bad in found.bad) == [False, True]


def die_after(contents: int, target: Target, folder: Path) -> None:
    """Kill this process when so many images have been read."""
    read, count = Manifest.reader.fget, [0]  # type: ignore[attr-defined]

    def reader(self: Manifest) -> Any:
        count[0] += 1
        if count[0] > contents:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self)

    Manifest.reader = property(reader)  # type: ignore[assignment, method-assign]
    made(target, folder)


@pytest.mark.parametrize("layout", MAKE)
def test_a_killed_process_is_continued_to_the_same_bytes(source: Manifest, tmp_path: Path, layout: str) -> None:
    source.path(1).write_bytes(b"")
    out, target = tmp_path / "out", MAKE[layout](source)
    for contents in (4, 6, 14) if layout == "packed" else (4, 11, 12, 14, 20):  # in predicting, writing, comparing
        child = multiprocessing.get_context("fork").Process(target=die_after, args=(contents, target, out))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert not out.exists()
    assert (tmp_path / ".out.part").exists()
    made(target, out)
    made(target, tmp_path / "fresh")
    assert tree(out) == tree(tmp_path / "fresh")
    assert not (tmp_path / ".out.part").exists()


def test_unfinished_work_of_another_plan_is_not_dropped_in_silence(
    source: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (3, PackedImages(source, (8, 4), workers=1), tmp_path / "out")
    child = multiprocessing.get_context("fork").Process(target=die_after, args=arguments)
    child.start()
    child.join()
    made(PackedImages(source, (8, 4)), tmp_path / "out")
    assert "unfinished" not in capsys.readouterr().out
    shutil.move(tmp_path / "out", tmp_path / ".other.part")
    made(PackedImages(source, (4, 4)), tmp_path / "other")
    told = capsys.readouterr().out
    assert f"{tmp_path / '.other.part'} holds unfinished work that was begun otherwise (size)" in told


@pytest.mark.parametrize("layout", [*MAKE, "im2rec"])
def test_progress_ends_where_the_work_ends(source: Manifest, tmp_path: Path, layout: str) -> None:
    seen: list[tuple[str, int, int]] = []

    @contextlib.contextmanager
    def told(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: seen.append((title, done, total))

    convert(RecordIO(source, kind="im2rec") if layout == "im2rec" else MAKE[layout](source), tmp_path / "out", told)
    written = [done for title, done, _ in seen if title == "write"]
    assert written == sorted(written)
    assert (written[-1], seen[-1]) == (len(PEOPLE), ("compare", len(PEOPLE), len(PEOPLE)))
    assert {total for _, _, total in seen} == {len(PEOPLE)}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_there_is_not_written_again(source: Manifest, tmp_path: Path) -> None:
    made(Identities(source), tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    made(Identities(source), tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    with pytest.raises(DataError, match="nothing is written over it"):
        made(RecordIO(source), tmp_path / "out")


def test_every_damaged_image_is_told_also_where_few_are_compared(
    source: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reid_cckd.data.targets.REPEATED", 2)
    source.path(2).write_bytes(b"no image")
    source.path(5).write_bytes(b"")
    found = made(PackedImages(source, (8, 4)), tmp_path / "out")
    assert (found.compared, [bad.row for bad in found.bad]) == (4, [2, 5])


@pytest.mark.parametrize("layout", ["recordio", "identities"])
def test_a_source_that_is_gone_for_a_while_costs_nothing(source: Manifest, tmp_path: Path, layout: str) -> None:
    out, target = tmp_path / "out", MAKE[layout](source)
    fill = type(target).fill

    class Unplugged(type(target)):  # type: ignore[misc]
        def fill(self, part: Path, show: Any) -> None:
            fill(self, part, show)
            source.root.rename(tmp_path / "away")

    with pytest.raises(DataError, match="cannot be read: No such file"):
        made(Unplugged(source, workers=1), out)
    written = {path for path in (tmp_path / ".out.part").rglob("*") if path.suffix in (".rec", ".jpg", ".png")}
    assert len(written) == (1 if layout == "recordio" else len(PEOPLE))
    (tmp_path / "away").rename(source.root)
    assert made(target, out).compared == len(PEOPLE)


@pytest.mark.parametrize("layout", MAKE)
def test_a_difference_is_found_and_nothing_is_left(source: Manifest, tmp_path: Path, layout: str) -> None:
    out, target = tmp_path / "out", MAKE[layout](source)
    fill = type(target).fill

    class Forged(type(target)):  # type: ignore[misc]
        def fill(self, part: Path, show: Any) -> None:
            fill(self, part, show)
            shutil.copy(self.manifest.path(3), self.manifest.path(1))  # the source changes meanwhile

    forged = Forged(source, **({"size": (8, 4)} if layout == "packed" else {}), workers=1)
    with pytest.raises(DataError, match="differs from its source"):
        made(forged, out)
    assert list(tmp_path.glob("*out*")) == [tmp_path / ".out.lock"]


def test_labels_that_were_not_kept_are_found(source: Manifest, tmp_path: Path) -> None:
    made(PackedImages(source, (8, 4)), tmp_path / "out")
    rows = dict(np.load(tmp_path / "out" / "rows.npz"))
    rows["labels"][2] += 1
    np.savez(tmp_path / "out" / "rows.npz", **rows)
    with pytest.raises(DataError, match="the labels that were read back differ"):
        made(PackedImages(source, (8, 4)), tmp_path / "out")


@pytest.mark.parametrize("layout", MAKE)
def test_no_space_is_said_before_anything_is_written(
    source: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr("reid_cckd.data.staging.shutil.disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"out needs 0\.0 GB and 0\.0 GB are free there"):
        made(MAKE[layout](source), tmp_path / "out")
    assert [path.name for path in (tmp_path / ".out.part").iterdir()] == ["plan.json"]


def test_a_disk_without_places_for_files_is_named(source: Manifest, tmp_path: Path, monkeypatch: Any) -> None:
    disk = type(
        "Disk",
        (),
        {"f_files": 100, "f_favail": 5, "f_bavail": 1000, "f_frsize": 4096, "f_blocks": 1000, "f_bfree": 1000},
    )
    monkeypatch.setattr("reid_cckd.data.staging.os.statvfs", lambda _: disk)
    with pytest.raises(UserError, match="needs 7 files and its disk has places for 5 more"):
        made(Identities(source), tmp_path / "out")
    made(RecordIO(source), tmp_path / "pack")


def test_a_disk_that_fills_up_loses_nothing(source: Manifest, tmp_path: Path, monkeypatch: Any) -> None:
    written: list[Path] = []
    write_bytes = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        written.append(self)
        if len(written) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"No space left to write .*out\. What is written is kept"):
        made(Identities(source, workers=1), tmp_path / "out")
    made(Identities(source, workers=1), tmp_path / "out")
    assert len({path.name for path in written}) == 7
    assert len(written) == 8  # one of them twice


def test_images_without_labels_are_refused(source: Manifest) -> None:
    unknown = Manifest("x", source.root, source.paths, np.array([-1, *PEOPLE[1:]]), source.cameras, source.roles)
    with pytest.raises(DataError, match="1 of 7 images of x have no label"):
        RecordIO(unknown)


def test_files_are_called_what_they_hold(tmp_path: Path) -> None:
    """A pack may hold PNG or WebP; its folders must not hold them called JPEG."""
    names = ("a.jpg", "b.png", "c.jpg", "d.jpg")
    for name, kind in zip(names, ("PNG", "JPEG", "WEBP", "TIFF"), strict=True):
        Image.new("RGB", (4, 4)).save(tmp_path / name, kind)
    roles, zeros = np.array(["train"] * 4), np.zeros(4, dtype=np.int64)
    made(Identities(Manifest("x", tmp_path, names, zeros, zeros, roles)), tmp_path / "out")
    written = [Path(path).suffix for path in LAYOUTS["identities"](tmp_path / "out").paths]
    assert written == [".png", ".jpg", ".webp", ".tif"]
