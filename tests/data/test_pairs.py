from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_cckd.data.layouts import LAYOUTS
from reid_cckd.data.pairs import read_pairs
from reid_cckd.data.synthetic.pickles import python2_pickle
from reid_cckd.errors import DataError
from tests.data.trees import jpeg

IMAGES = [jpeg(value=20 * number) for number in range(6)]
SAME = [True, False, True]


def as_arrays(images: list[bytes]) -> list[Any]:
    return [np.frombuffer(image, np.uint8) for image in images]


@pytest.mark.parametrize(
    "content",
    [
        python2_pickle((IMAGES, SAME)),
        pickle.dumps((IMAGES, SAME)),
        pickle.dumps([as_arrays(IMAGES), np.array(SAME)]),
        pickle.dumps((as_arrays(IMAGES), [np.bool_(value) for value in SAME]), protocol=2),
    ],
    ids=["python 2", "python 3", "arrays", "numpy 1"],
)
def test_images_2i_and_2i_plus_1_form_pair_i(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lfw.bin").write_bytes(content)
    pairs = read_pairs(tmp_path / "lfw.bin")
    assert pairs.same.tolist() == SAME
    assert pairs.manifest.name == "lfw"
    assert list(pairs.manifest.paths) == [f"lfw.bin:{row}" for row in range(6)]
    assert [pairs.manifest.reader.encoded(path) for path in pairs.manifest.paths] == IMAGES
    assert (set(pairs.manifest.roles.tolist()), set(pairs.manifest.labels.tolist())) == ({"test"}, {-1})
    copy = pickle.dumps(pairs.manifest)
    assert len(copy) < 2000  # spawned workers read the file themselves
    np.testing.assert_array_equal(pickle.loads(copy).read(3), pairs.manifest.read(3))


def test_a_folder_of_them(tmp_path: Path) -> None:
    for name in ("lfw", "agedb_30"):
        (tmp_path / f"{name}.bin").write_bytes(pickle.dumps((IMAGES, SAME)))
    manifest = LAYOUTS["pairs"](tmp_path)
    assert manifest.paths[5:7] == ("agedb_30.bin:5", "lfw.bin:0")
    assert len(LAYOUTS["pairs"](tmp_path / "lfw.bin")) == 6
    assert manifest.image_or_reason(11, (4, 4)) is not None
    with pytest.raises(DataError, match=r"No \.bin of face pairs at .* is not there"):
        LAYOUTS["pairs"](tmp_path / "gone")


def test_the_hidden_twin_that_macos_leaves_is_no_file_of_pairs(tmp_path: Path) -> None:
    (tmp_path / "lfw.bin").write_bytes(pickle.dumps((IMAGES, SAME)))
    (tmp_path / "._lfw.bin").write_bytes(b"\x00\x05\x16\x07")
    assert len(LAYOUTS["pairs"](tmp_path)) == 6


def test_a_damaged_image_is_found_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "lfw.bin").write_bytes(pickle.dumps(([b"", *IMAGES[1:]], SAME)))
    manifest = read_pairs(tmp_path / "lfw.bin").manifest
    assert manifest.image_or_reason(0) == "it is empty (0 bytes)"


@pytest.mark.parametrize(
    "content",
    [(IMAGES, SAME[:2]), (IMAGES[:5], SAME), ([], []), {b"a": 1}, [1, 2], (["text"] * 6, SAME), (IMAGES, [2, 0, 1]), 5],
    ids=str,
)
def test_something_else_is_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "lfw.bin").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=r"lfw\.bin"):
        read_pairs(tmp_path / "lfw.bin")


@pytest.mark.parametrize("how", ["missing", "truncated", "hostile"])
def test_damaged_files_are_named(tmp_path: Path, how: str) -> None:
    content = {"truncated": pickle.dumps((IMAGES, SAME))[:-30], "hostile": b"cos\nsystem\n(S'touch ran'\ntR."}
    if how in content:
        (tmp_path / "lfw.bin").write_bytes(content[how])
    with pytest.raises(DataError, match=r"lfw\.bin"):
        read_pairs(tmp_path / "lfw.bin")


@settings(max_examples=100, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_no_damage_ends_in_anything_but_a_data_error(
    changes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.bin"
    damaged = bytearray(pickle.dumps((IMAGES[:2], SAME[:1]), protocol=2))
    for place, value in changes:
        damaged[place % len(damaged)] = value
    path.write_bytes(damaged)
    try:
        manifest = read_pairs(path).manifest
        assert all(isinstance(manifest.image_or_reason(row), (str, np.ndarray)) for row in range(len(manifest)))
    except DataError:
        pass
