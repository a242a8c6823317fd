"""CUB, SOP, In-shop, image lists, MegaFace and IJB: list files that are right, and wrong in every way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_cckd.data.face_trees import read_megaface_images
from reid_cckd.data.layouts import LAYOUTS
from reid_cckd.data.manifest import Manifest
from reid_cckd.data.synthetic.twins import Numbers, write_twin
from reid_cckd.errors import DataError
from tests.data.trees import write_image

SMALL = Numbers(ids=4, images_per_id=4, size=(8, 8))
LISTS = {
    "cub200": "images.txt",
    "sop": "Ebay_train.txt",
    "inshop": "Eval/list_eval_partition.txt",
    "megaface": "facescrub_lst",
    "ijb": "meta/ijbc_face_tid_mid.txt",
}


def message(name: str, root: Path) -> str:
    with pytest.raises(DataError) as caught:
        LAYOUTS[name](root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _folders(manifest: Manifest) -> set[str]:
    return {Path(path).parent.name for path in manifest.paths}


def test_cub200_trains_on_the_first_hundred_classes(tmp_path: Path) -> None:
    manifest = write_twin("cub200", tmp_path / "CUB_200_2011", SMALL)
    assert sorted(set(manifest.select("train").labels.tolist())) == [1, 2]
    assert min(manifest.select("test").labels.tolist()) == 103
    assert len(LAYOUTS["cub200"](tmp_path)) == 16
    assert {manifest.class_names[label] for label in manifest.labels.tolist()} == _folders(manifest)


def test_sop_has_superclasses(tmp_path: Path) -> None:
    manifest = write_twin("sop", tmp_path, SMALL)
    assert manifest.superclasses is not None
    assert (manifest.labels.tolist()[::4], manifest.superclasses.tolist()[::4]) == ([1, 2, 3, 4], [1, 2, 3, 1])
    assert manifest.counts()["test"].ids == 2


def test_inshop_has_query_and_gallery(tmp_path: Path) -> None:
    manifest = write_twin("inshop", tmp_path, SMALL)
    assert (manifest.counts()["query"].ids, manifest.counts()["gallery"].images) == (2, 4)
    assert manifest.paths[0].startswith("Img/img/")
    write_twin("inshop", tmp_path / "above" / "In-shop Clothes Retrieval Benchmark", SMALL)  # as its archive is called
    assert len(LAYOUTS["inshop"](tmp_path / "above")) == len(manifest)


def test_megaface_with_and_without_lists(tmp_path: Path) -> None:
    listed = write_twin("megaface", tmp_path, SMALL)
    for name in ("facescrub_lst", "megaface_lst"):
        (tmp_path / name).unlink()
    walked = read_megaface_images(tmp_path)
    assert sorted(walked.paths) == sorted(listed.paths)
    assert set(walked.select("gallery").labels.tolist()) == {-1}
    assert walked.select("query").labels.tolist() == [0] * 4 + [1] * 4
    assert set(walked.class_names.values()) == _folders(walked.select("query"))


def test_ijb_rows_are_templates_and_media(tmp_path: Path) -> None:
    manifest = write_twin("ijb", tmp_path, SMALL)
    assert manifest.labels.tolist()[:4] == [1, 2, 1, 2]
    assert manifest.cameras.tolist()[:4] == [1000, 2001, 1000, 2000]
    (tmp_path / "meta" / "ijbb_face_tid_mid.txt").write_text("")
    assert "expected ijbb_face_tid_mid.txt or" in message("ijb", tmp_path)


@pytest.mark.parametrize(
    "lines",
    ["a.jpg 3\nb c.jpg 0", "5\t3\ta.jpg\n6\t0\tb c.jpg", "1\ta.jpg\t3\n1\tb c.jpg\t0.0", "a.jpg\t3\n./b c.jpg\t0"],
)
def test_image_lists(tmp_path: Path, lines: str) -> None:
    for name in ("a.jpg", "b c.jpg"):
        write_image(tmp_path / name)
    (tmp_path / "train.lst").write_text(lines)
    manifest = LAYOUTS["image_list"](tmp_path / "train.lst")
    assert (manifest.paths, manifest.labels.tolist()) == (("a.jpg", "b c.jpg"), [3, 0])
    assert set(manifest.roles.tolist()) == {"train"}


@pytest.mark.parametrize("line", ["a.jpg", "a.jpg x", "a.jpg -1", "a.jpg 0.5", "1\t2\t3", "a\tb", "1\ta.jpg\tb.jpg"])
def test_a_line_that_is_no_image_and_label(tmp_path: Path, line: str) -> None:
    write_image(tmp_path / "a.jpg")
    (tmp_path / "train.lst").write_text(f"a.jpg 1\n{line}\n")
    assert "train.lst:2" in message("image_list", tmp_path / "train.lst")
    assert "which is not there" in message("image_list", tmp_path / "gone.lst")


def test_one_image_in_two_spellings_is_listed_twice(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    (tmp_path / "train.lst").write_text("a.jpg 1\n./a.jpg 2\n")
    assert "lists a.jpg twice" in message("image_list", tmp_path / "train.lst")


@pytest.fixture(params=sorted(LISTS))
def twin(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, Path]:
    write_twin(request.param, tmp_path, SMALL)
    return request.param, tmp_path, tmp_path / LISTS[request.param]


def test_missing_images_are_counted(twin: tuple[str, Path, Path]) -> None:
    name, root, file = twin
    victim = LAYOUTS[name](root).path(0)
    victim.unlink()
    text = message(name, root)
    assert "1 of " in text
    assert str(victim) in text
    assert file.name[:4] in text


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_text("\n"),
    "no text": lambda file: file.write_bytes(b"\xff\xfe\x00"),
    "another line": lambda file: file.write_text(file.read_text() + "one two three four five six\n"),
    "no number": lambda file: file.write_text(file.read_text().replace("1", "x")),
}


@pytest.mark.parametrize("how", sorted(DAMAGE))
def test_damaged_lists_are_named(twin: tuple[str, Path, Path], how: str) -> None:
    name, root, file = twin
    DAMAGE[how](file)
    assert file.name in message(name, root)


@pytest.mark.parametrize("name", sorted(LISTS))
def test_nothing_there(name: str, tmp_path: Path) -> None:
    assert f"at {tmp_path}" in message(name, tmp_path)


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(sorted(LISTS)), lines=st.lists(st.text(max_size=20), max_size=4), keep=st.integers(0, 200))
def test_no_list_ends_in_anything_but_a_data_error(
    name: str, lines: list[str], keep: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp() / "lists" / name
    write_twin(name, root, SMALL)
    file = root / LISTS[name]
    whole = file.read_bytes()
    file.write_bytes(whole[:keep] + "\n".join(lines).encode("utf-8", "surrogatepass"))
    try:
        assert len(LAYOUTS[name](root))
    except DataError:
        pass
    finally:
        file.write_bytes(whole)
