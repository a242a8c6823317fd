"""Every reader under damage: it reads, or names what is wrong, within bounded time and memory.

`FUZZ_EXAMPLES=5000 pytest tests/data/test_fuzz.py` looks further than the few examples of an ordinary run.
"""

from __future__ import annotations

import io
import json
import os
import re
import resource
import signal
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reid_cckd.data import LAYOUTS, Manifest, Numbers, read_superclasses, write_twin
from reid_cckd.data.ijb import read_detection_scores, read_ijb
from reid_cckd.data.images import decode
from reid_cckd.data.megaface import read_feature, read_lst, read_noises, read_template_list, write_feature
from reid_cckd.data.packed import Packed
from reid_cckd.data.packing import write_packed
from reid_cckd.data.pair_lists import read_pair_list
from reid_cckd.errors import UserError
from tests.data.trees import jpeg, write_image, write_msmt17

SMALL = Numbers(ids=4, images_per_id=4, size=(8, 8))
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
MEMORY, SECONDS = 2**30, 20  # of addresses beside what the process has, and of computing, for one example

NUMBERS = [0, 1, 7, 2**29 - 1, 2**31 - 1, 2**32 - 1, 2**62]
LIES = [struct.pack("<I", number % 2**32) for number in NUMBERS] + [struct.pack("<Q", number) for number in NUMBERS]
TEXTS = [
    "\0",
    "\n",
    "\r",
    " ",
    "\t",
    ",",
    '"',
    "-1",
    "nan",
    "1e999",
    "Infinity",
    "9" * 25,
    "²",
    "../../etc/passwd",
    "{",
]
RAW = [b"\xff\xfe", b"\xef\xbb\xbf", b"[" * 20_000, b"\x80\x05", b"\0" * 64]
PIECES = st.sampled_from([*LIES, *(text.encode() for text in TEXTS), *RAW]) | st.binary(min_size=1, max_size=6)
PLACES = st.integers(0, 300) | st.integers(-300, -1) | st.integers(0, 10**6)  # most headers and tables are at an end
CHANGES = st.lists(st.tuples(st.sampled_from(["replace", "insert", "cut"]), PLACES, PIECES), min_size=1, max_size=3)

Changes = list[tuple[str, int, bytes]]


@dataclass(frozen=True)
class Case:
    """How a format is written at a root, which of its files are damaged, and how it is read."""

    write: Callable[[Path], object]
    files: tuple[str, ...]
    read: Callable[[Path], object]


def look_at(manifest: Manifest) -> None:
    """Decode some images."""
    for row in {0, len(manifest) // 2, len(manifest) - 1} if len(manifest) else ():
        assert isinstance(manifest.image_or_reason(row), (str, np.ndarray))


def layout(name: str, *files: str) -> Case:
    return Case(partial(write_twin, name, numbers=SMALL), files, lambda root: look_at(LAYOUTS[name](root)))


def write_pack_of_pixels(root: Path) -> None:
    images = write_twin("identities", root.with_name("identities"), SMALL)
    images.path(3).write_bytes(b"")
    write_packed(images, (8, 8), root, workers=1)


def read_pack_of_pixels(root: Path) -> None:
    look_at(LAYOUTS["packed"](root))
    Packed(root).verify()


def read_ijb_meta(root: Path) -> None:
    read_detection_scores(read_ijb(root / "meta"))


def text_file(name: str, text: str, read: Callable[[Path], object]) -> Case:
    def write(root: Path) -> None:
        for image in ("a.jpg", "b.jpg"):
            write_image(root / image)
        (root / name).write_text(text)

    return Case(write, (name,), lambda root: read(root / name))


META = tuple(f"meta/ijbc_{name}" for name in ("face_tid_mid.txt", "template_pair_label.txt", "name_5pts_score.txt"))
TABLES = tuple(f"meta/ijbc_1N_{name}.csv" for name in ("gallery_G1", "gallery_G2", "probe_mixed"))
PEOPLE = Manifest("two", Path(), ("a", "b"), np.arange(2), np.zeros(2, dtype=np.int64), np.array(["train"] * 2))
CASES = {
    "recordio": layout("recordio", "train.rec", "train.idx", "property"),
    "pairs": layout("pairs", "lfw.bin", "agedb_30.bin"),
    "cifar10": layout("cifar10", "cifar-10-batches-py/test_batch"),
    "cifar100": layout("cifar100", "cifar-100-python/test"),
    "csv": layout("csv", "images.csv"),
    "cub200": layout("cub200", "images.txt", "image_class_labels.txt"),
    "sop": layout("sop", "Ebay_train.txt", "Ebay_test.txt"),
    "inshop": layout("inshop", "Eval/list_eval_partition.txt"),
    "megaface": layout("megaface", "facescrub_lst", "megaface_lst"),
    "ijb": layout("ijb", META[0]),
    "ijb meta": Case(partial(write_twin, "ijb", numbers=SMALL), META + TABLES, read_ijb_meta),
    "msmt17": Case(write_msmt17, ("list_train.txt", "list_query.txt"), lambda root: look_at(LAYOUTS["msmt17"](root))),
    "packed": Case(
        write_pack_of_pixels, ("pixels.bin", "rows.npz", "bad.jsonl", "plan.json", "checksum.json"), read_pack_of_pixels
    ),
    "image list": text_file("x.txt", "a.jpg 0\nb.jpg 1\n", LAYOUTS["image_list"]),
    "lst": text_file("x.lst", "0\t0.0\ta.jpg\n1\t1.0\tb.jpg\n", LAYOUTS["image_list"]),
    "pair list": text_file("pairs.txt", "a.jpg b.jpg 1\na.jpg a.jpg 0\n", read_pair_list),
    "template list": text_file("x.json", '{"path": ["a/1.jpg", "b/2.jpg"], "id": ["a", "b"]}', read_template_list),
    "devkit list": text_file("x_lst", "a/1.jpg\nb/2.jpg\n", read_lst),
    "noise list": text_file("noises.txt", "# of people\na\tb/2.jpg\n", read_noises),
    "superclasses": text_file("x.csv", "label,superclass\n0,a\n1,b\n", lambda path: read_superclasses(path, PEOPLE)),
    "feature": Case(
        lambda root: write_feature(root / "x.bin", np.arange(5.0)),
        ("x.bin",),
        lambda root: read_feature(root / "x.bin"),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def bounded() -> Iterator[None]:
    """An allocation that follows a lie fails, and a loop that does is broken."""
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGVTALRM, too_long)
    resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


def too_long(*_: Any) -> None:
    raise AssertionError(f"more than {SECONDS} s of computing")


def damaged(content: bytes, changes: Changes) -> bytes:
    for how, place, piece in changes:
        at = place % len(content) if content else 0
        rest = {"replace": piece + content[at + len(piece) :], "insert": piece + content[at:], "cut": b""}
        content = content[:at] + rest[how]
    return content


@pytest.mark.parametrize("name", CASES)
def test_no_damage_ends_in_anything_but_a_user_error(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    case, root = CASES[name], tmp_path_factory.mktemp("fuzz") / "set"
    root.mkdir()
    case.write(root)
    case.read(root)
    contents = {file: (root / file).read_bytes() for file in case.files}

    @settings(max_examples=EXAMPLES * min(len(case.files), 4), deadline=None)
    @given(file=st.sampled_from(case.files), changes=CHANGES)
    def look(file: str, changes: Changes) -> None:
        (root / file).write_bytes(damaged(contents[file], changes))
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        message = ""
        try:
            case.read(root)
        except UserError as error:
            message = str(error)
        finally:
            (root / file).write_bytes(contents[file])
        assert "\n" not in message  # one paragraph

    look()


HOSTILE_JSON = [
    "[]",
    "null",
    "5",
    '{"path": 5}',
    '{"path": {"a": 1}, "id": 3}',
    '{"path": ["a"], "id": "xy"}',
    "[" * 10**5,
]


@pytest.mark.parametrize("text", HOSTILE_JSON)
def test_json_of_another_shape(text: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(UserError, match=r"list\.json"):
        read_template_list(tmp_path / "list.json")


@pytest.mark.parametrize(
    "lies",
    [
        {"images": 0, "size": [2**32, 2**32]},  # whose product is 0 in 64 bits
        {"images": 16, "size": [-8, -8]},
        {"images": 1e999, "size": [8, 8]},
        {"images": -16, "size": [-8, 8]},
        {"images": [16], "size": [8, 8]},
        {"images": 16, "size": 64},
    ],
)
def test_packed_images_whose_plan_lies(lies: dict[str, Any], tmp_path: Path) -> None:
    write_pack_of_pixels(tmp_path / "out")
    plan = tmp_path / "out" / "plan.json"
    plan.write_text(json.dumps({**json.loads(plan.read_text()), **lies}))
    if lies["images"] == 0:
        (tmp_path / "out" / "pixels.bin").write_bytes(b"")
    with pytest.raises(UserError, match="out"):
        read_pack_of_pixels(tmp_path / "out")


def test_a_table_of_packed_images_that_expands_is_refused(tmp_path: Path) -> None:
    write_pack_of_pixels(tmp_path / "out")
    table = dict(np.load(tmp_path / "out" / "rows.npz"))
    np.savez_compressed(tmp_path / "out" / "rows.npz", **{**table, "more": np.zeros(10**7)})
    with pytest.raises(UserError, match=r"rows\.npz cannot be read: more\.npy claims 80,000,128 bytes"):
        LAYOUTS["packed"](tmp_path / "out")


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(48 * 3, dtype=np.uint8).reshape(8, 6, 3)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM"])
def test_no_damage_to_an_image_ends_in_anything_but_a_reason(kind: str) -> None:
    whole = encoded(kind)
    assert isinstance(decode(whole), np.ndarray)

    @settings(max_examples=2 * EXAMPLES, deadline=None)
    @given(changes=CHANGES)
    def look(changes: Changes) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        found = decode(damaged(whole, changes), (4, 4))
        assert isinstance(found, str) or found.shape == (4, 4, 3)

    look()


BOMBS = {
    "PNG": (encoded("PNG"), 16, ">II"),
    "BMP": (encoded("BMP"), 18, "<ii"),
    "GIF": (encoded("GIF"), 6, "<HH"),
    "JPEG": (jpeg(), jpeg().index(b"\xff\xc0") + 5, ">HH"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_by_what_it_claims(kind: str) -> None:
    whole, place, form = BOMBS[kind]
    size = struct.pack(form, 30_000, 30_000)
    bomb = whole[:place] + size + whole[place + len(size) :]
    if kind == "PNG":
        bomb = bomb[:29] + struct.pack(">I", zlib.crc32(bomb[12:29])) + bomb[33:]
    assert re.search("30000 x 30000 pixels|exceeds limit of", str(decode(bomb)))


def test_text_that_expands_in_a_png_is_refused(tmp_path: Path) -> None:
    whole = encoded("PNG")
    text = b"x\0\0" + zlib.compress(b"\0" * 2**24)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    assert isinstance(decode(whole[:33] + chunk + whole[33:]), (str, np.ndarray))


def test_a_program_is_no_image() -> None:
    """Pillow would hand PostScript to an interpreter."""
    assert "not an image" in str(decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_a_mislabelled_image_is_read_by_what_it_is(kind: str, tmp_path: Path) -> None:
    for number in range(4):
        write_image(tmp_path / "someone" / f"{number}.jpg")
    (tmp_path / "someone" / "0.jpg").write_bytes(encoded(kind))
    manifest = LAYOUTS["identities"](tmp_path)
    assert manifest.read(0).shape == (8, 6, 3)
