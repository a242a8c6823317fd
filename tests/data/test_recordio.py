from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_cckd.data.dataset import ImageDataset, collate
from reid_cckd.data.layouts import LAYOUTS
from reid_cckd.data.pack_writer import write_pack
from reid_cckd.data.recordio import HEADER, MAGIC, MAX_RECORD, BrokenRecordError, Pack, frame, join, pack, unpack
from reid_cckd.errors import DataError
from tests.data.trees import jpeg

LABELS = np.array([2, 0, 1, 1, 0, 2, 2])


def image_of(row: int) -> bytes:
    """A JPEG; that of row 3 is followed by the magic number, twice in a place where records are cut."""
    content = jpeg(value=20 * row)
    return content + b"\0" * (-len(content) % 4) + MAGIC + b"1234" + MAGIC + b"x" if row == 3 else content


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    write_pack(tmp_path / "train.rec", LABELS, image_of)
    return tmp_path / "train.rec"


def message(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        LAYOUTS["recordio"](root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def reference(rec: Path) -> dict[int, tuple[int, list[float], bytes]]:
    """Every record by hand, front to back, from the description of the format."""
    content, found = rec.read_bytes(), {}
    offsets = {int(line.split()[1]): int(line.split()[0]) for line in rec.with_suffix(".idx").read_text().splitlines()}
    place = 0
    while place < len(content):
        key, record, kind = offsets[place], b"", 1
        while kind in (1, 2):
            magic, word = struct.unpack("<II", content[place : place + 8])
            assert magic == 0xCED7230A
            kind, length = word >> 29, word % 2**29
            record += (MAGIC if kind in (2, 3) else b"") + content[place + 8 : place + 8 + length]
            place += 8 + length + (-length) % 4
        flag, label = struct.unpack("<If", record[:8])
        labels = list(struct.unpack(f"<{flag}f", record[24 : 24 + 4 * flag])) if flag else [label]
        found[key] = (flag, labels, record[24 + 4 * flag :])
    return found


@pytest.mark.parametrize("given", ["train.rec", "."])
def test_an_insightface_pack(rec: Path, given: str) -> None:
    manifest = LAYOUTS["recordio"](rec.parent / given)
    assert list(manifest.paths) == [f"train.rec:{key}" for key in range(1, 8)]
    assert manifest.labels.tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert set(manifest.roles.tolist()) == {"train"}
    by_hand = reference(rec)
    assert by_hand[0][1] == [8, 11]
    assert len(by_hand) == 11
    rows = np.argsort(LABELS, kind="stable")
    for row, key in enumerate(range(1, 8)):
        assert manifest.reader.encoded(manifest.paths[row]) == by_hand[key][2] == image_of(int(rows[row]))
        assert manifest.read(row, (6, 4)).shape == (6, 4, 3)
    assert (rec.parent / "property").read_text() == "3,112,112\n"


def test_an_im2rec_pack(tmp_path: Path) -> None:
    write_pack(tmp_path / "mine.rec", LABELS, image_of, kind="im2rec")
    manifest = LAYOUTS["recordio"](tmp_path)
    assert (manifest.name, manifest.labels.tolist()) == ("mine", LABELS.tolist())
    assert manifest.paths[0] == "mine.rec:0"
    assert reference(tmp_path / "mine.rec")[3] == (0, [1.0], image_of(3))


def test_a_record_that_holds_the_magic_is_split(rec: Path) -> None:
    assert rec.read_bytes().count(MAGIC) == 11 + 2
    assert frame(image_of(3))[7] >> 5 == 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([MAGIC, b"\0", b"ab", b"abcd", MAGIC[:2]]), max_size=12).map(b"".join))
def test_framing_can_be_undone(content: bytes) -> None:
    framed = frame(content)
    assert len(framed) % 4 == 0
    assert join(framed) == content
    assert join(framed + frame(b"next")) == content


def test_labels_come_from_identities_and_equal_those_of_every_record(
    rec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    label = Pack.label
    monkeypatch.setattr(Pack, "label", lambda self, key: (asked.append(key), label(self, key))[1])
    labels = LAYOUTS["recordio"](rec).labels.tolist()
    assert sorted(set(asked)) == [1, 2, 3, 4, 5, 7]  # ends of ranges, not every image
    pack = Pack(rec)
    assert [label(pack, key) for key in range(1, 8)] == labels


def test_ranges_that_are_not_those_of_people_are_not_believed(tmp_path: Path) -> None:
    rec = tmp_path / "train.rec"
    contents = [pack([4.0, 5.0], b""), *[pack(float(label), jpeg()) for label in (5, 6, 7)], pack([1.0, 4.0], b"")]
    write_records(rec, contents)
    assert LAYOUTS["recordio"](rec).labels.tolist() == [5, 6, 7]


def write_records(rec: Path, contents: list[bytes]) -> None:
    framed = [frame(content) for content in contents]
    starts = np.cumsum([0, *(len(part) for part in framed)])
    rec.write_bytes(b"".join(framed))
    rec.with_suffix(".idx").write_text("".join(f"{key}\t{starts[key]}\n" for key in range(len(framed))))


def _read_in_child(manifest: Any, queue: Any) -> None:
    queue.put([manifest.read(row).tobytes() for row in range(len(manifest))])


def test_forked_children_and_pickled_copies_read_the_same(rec: Path) -> None:
    manifest = LAYOUTS["recordio"](rec)
    expected = [manifest.read(row).tobytes() for row in range(len(manifest))]  # the descriptor is open when we fork
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_read_in_child, args=(manifest, queue)) for _ in range(3)]
    for child in children:
        child.start()
    assert [queue.get(timeout=30) for _ in children] == [expected] * 3
    for child in children:
        child.join()
    copy = pickle.loads(pickle.dumps(manifest))
    assert [copy.read(row).tobytes() for row in range(len(copy))] == expected
    images = ImageDataset(copy, copy.labels, (6, 4), cache="memory")
    assert collate([images[0]]).images.shape == (1, 3, 6, 4)


def test_a_writer_that_was_killed_continues(rec: Path, tmp_path: Path) -> None:
    whole, index = rec.read_bytes(), rec.with_suffix(".idx").read_bytes()
    for cut in range(0, len(index) + 1, 3):
        for tail in (0, 5):
            rec.write_bytes(whole[: max(len(whole) * cut // len(index) - tail, 0)])
            rec.with_suffix(".idx").write_bytes(index[:cut])
            write_pack(rec, LABELS, image_of)
            assert rec.read_bytes() == whole
            assert rec.with_suffix(".idx").read_bytes() == index


def test_files_that_are_missing_or_many(rec: Path) -> None:
    idx = rec.with_suffix(".idx")
    content = idx.read_bytes()
    idx.unlink()
    assert str(idx) in message(rec)
    idx.write_bytes(content)
    rec.rename(rec.with_name("a.rec"))
    (rec.with_name("b.rec")).write_bytes(b"")
    assert "Expected train.rec or one other .rec" in message(rec.parent)


def test_the_hidden_twin_that_macos_leaves_is_no_pack(tmp_path: Path) -> None:
    write_pack(tmp_path / "mine.rec", LABELS, image_of, kind="im2rec")
    (tmp_path / "._mine.rec").write_bytes(b"\x00\x05\x16\x07")
    assert LAYOUTS["recordio"](tmp_path).name == "mine"


def test_a_truncated_rec(rec: Path) -> None:
    whole = rec.read_bytes()
    rec.write_bytes(whole[:-10])
    assert "is truncated or its end is damaged" in message(rec)
    rec.write_bytes(whole[: len(whole) // 2])
    assert "lie outside" in message(rec)
    rec.write_bytes(b"")
    assert "0 bytes" in message(rec)


@pytest.mark.parametrize(
    ("index", "part"),
    [
        ("0\t0\n1\t4\n", "where no record begins"),
        ("0\t0\n1\t3\n", "lie outside"),
        ("0\t0\n1\t-8\n", "train.idx:2 reads"),
        ("0\t0\nkey\t8\n", "train.idx:2 reads"),
        ("0\t0\n1\n", "train.idx:2 reads"),
        ("0\t0\n1\t8\t9\n", "train.idx:2 reads"),
        ("0\t0\n0\t8\n", "twice"),
        ("0\t0\n1\t0\n", "twice"),
        ("0\t99999999999999999999999\n", "lie outside"),
        ("\n", "holds no keys"),
        ("", "holds no keys"),
    ],
)
def test_an_index_that_does_not_match(rec: Path, index: str, part: str) -> None:
    rec.with_suffix(".idx").write_text(index)
    assert part in message(rec)


def test_an_index_without_all_images(rec: Path) -> None:
    lines = rec.with_suffix(".idx").read_text().splitlines()
    rec.with_suffix(".idx").write_text("\n".join(lines[:3] + lines[4:]))
    assert "keys 1 to 7, train.idx names 6" in message(rec)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"too short", "fewer than its header"),
        (HEADER.pack(2**32 - 1, 0, 0, 0) + b"image", "4,294,967,295 labels"),
        (pack(1.5, b"image"), "label of key 1 is 1.5"),
        (pack(float("nan"), b"image"), "label of key 1 is nan"),
        (pack(-1.0, b"image"), "label of key 1 is -1.0"),
        (pack(2.0**24, b"image"), "label of key 1 is 16777216.0"),
        (pack([], b"image"), None),
    ],
)
def test_records_that_are_no_labelled_images(tmp_path: Path, content: bytes, part: str | None) -> None:
    write_records(tmp_path / "train.rec", [pack(0.0, jpeg()), content, pack(0.0, jpeg())])
    if part:
        assert part in message(tmp_path)
    else:
        assert "not an image" in str(LAYOUTS["recordio"](tmp_path).image_or_reason(1))


@pytest.mark.parametrize("lie", [0, 3, 40, 10_000, 2**29 - 1])
def test_a_record_whose_length_lies(rec: Path, lie: int) -> None:
    manifest = LAYOUTS["recordio"](rec)
    start = int(rec.with_suffix(".idx").read_text().splitlines()[2].split()[1])
    content = bytearray(rec.read_bytes())
    content[start + 4 : start + 8] = struct.pack("<I", lie)
    rec.write_bytes(content)
    assert isinstance(manifest.image_or_reason(1), str)
    assert isinstance(manifest.image_or_reason(2), np.ndarray)


def test_a_huge_record_is_not_read(tmp_path: Path) -> None:
    rec = tmp_path / "train.rec"
    write_records(rec, [pack(0.0, jpeg())])
    content = bytearray(rec.read_bytes())
    content[4:8] = struct.pack("<I", MAX_RECORD + 4)
    rec.write_bytes(content)
    os.truncate(rec, MAX_RECORD + 16)  # a hole in the file
    assert "claims more than" in message(rec)


@pytest.mark.parametrize(("text", "part"), [("3", "expected cl"), ("a,b,c", "expected cl"), ("2\x1c,8,8", "2 cl")])
def test_a_property_of_something_else(rec: Path, text: str, part: str) -> None:
    rec.with_name("property").write_text(text)
    assert part in message(rec)


@pytest.mark.parametrize("numbers", [(float("nan"), 3.0), (1e30, 3.0), (2.5, 3.0), (1.0, 1.0), (-4.0, 3.0)])
def test_a_first_record_that_lies(tmp_path: Path, numbers: tuple[float, float]) -> None:
    write_records(tmp_path / "train.rec", [pack(list(numbers), b""), pack(0.0, jpeg())])
    assert "train.rec" in message(tmp_path)


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=5),
    in_index=st.booleans(),
)
def test_no_damage_ends_in_anything_but_a_data_error(
    changes: list[tuple[int, int]], in_index: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rec = tmp_path_factory.getbasetemp() / "fuzz.rec"
    write_pack_once(rec)
    path = rec.with_suffix(".idx") if in_index else rec
    whole = path.read_bytes()
    damaged = bytearray(whole)
    for place, value in changes:
        damaged[place % len(whole)] = value
    try:
        path.write_bytes(damaged)
        manifest = LAYOUTS["recordio"](rec)
        for row in range(min(len(manifest), 20)):
            assert isinstance(manifest.image_or_reason(row, (4, 4)), (str, np.ndarray))
    except DataError:
        pass
    finally:
        path.write_bytes(whole)


def write_pack_once(rec: Path) -> None:
    if not rec.exists():
        small = [pack([4.0, 6.0], b""), *(pack([0.0, 0.0], jpeg()) for _ in range(3)), pack([1.0, 2.0], b"")]
        write_records(rec, [*small, pack([2.0, 4.0], b"")])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_no_bytes_are_more_than_a_broken_record(content: bytes) -> None:
    for framed in (content, MAGIC + content):
        with contextlib.suppress(BrokenRecordError):
            unpack(join(framed))
