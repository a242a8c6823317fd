from __future__ import annotations

from pathlib import Path

import pytest

from reid_cckd.data.check import check_manifest
from reid_cckd.data.layouts import LAYOUTS
from reid_cckd.errors import DataError
from tests.data.trees import write_image

TREE = ["train/cat/1.JPEG", "train/cat/2.jpg", "train/ant/more/1.png", "train/ant/notes.txt"]


def write(root: Path, paths: list[str]) -> Path:
    for path in paths:
        if path.endswith(".txt"):
            (root / path).write_text("not an image")
        else:
            write_image(root / path)
    return root


def message(root: Path, layout: str = "class_folders") -> str:
    with pytest.raises(DataError) as caught:
        LAYOUTS[layout](root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("held_back", ["val", "test"])
def test_labels_are_classes_in_order_of_name(tmp_path: Path, held_back: str) -> None:
    manifest = LAYOUTS["class_folders"](write(tmp_path, [*TREE, f"{held_back}/cat/9.jpg"]))
    assert manifest.paths == ("train/ant/more/1.png", "train/cat/1.JPEG", "train/cat/2.jpg", f"{held_back}/cat/9.jpg")
    assert manifest.labels.tolist() == [0, 1, 1, 1]
    assert manifest.roles.tolist() == ["train"] * 3 + ["test"]
    assert manifest.read(1).shape == (8, 4, 3)


def test_with_both_held_back_folders_val_is_val(tmp_path: Path) -> None:
    manifest = LAYOUTS["class_folders"](write(tmp_path, [*TREE, "val/cat/1.jpg", "test/ant/1.jpg"]))
    assert manifest.roles.tolist()[3:] == ["val", "test"]


@pytest.mark.parametrize("home", [".", "ILSVRC/Data/CLS-LOC"])
def test_imagenet_in_its_homes(tmp_path: Path, home: str) -> None:
    write(tmp_path / home, ["train/n01440764/n01440764_18.JPEG", "val/n01440764/ILSVRC2012_val_00000293.JPEG"])
    assert LAYOUTS["imagenet"](tmp_path).name == "ImageNet-1k"


def test_identity_folders_are_for_training(tmp_path: Path) -> None:
    manifest = LAYOUTS["identities"](write(tmp_path, ["m.0b/2.jpg", "m.0b/1.jpg", "m.0a/7.jpg", ".hidden/1.jpg"]))
    assert manifest.paths == ("m.0a/7.jpg", "m.0b/1.jpg", "m.0b/2.jpg")
    assert (manifest.labels.tolist(), set(manifest.roles.tolist())) == ([0, 1, 1], {"train"})
    assert manifest.class_names == {0: "m.0a", 1: "m.0b"}


def test_flat_validation_images(tmp_path: Path) -> None:
    text = message(write(tmp_path, [*TREE, "val/ILSVRC2012_val_00000001.JPEG"]))
    assert f"{tmp_path / 'val'} holds 1 images that are in no class folder" in text
    assert "ILSVRC2012_val_00000001.JPEG" in text


def test_every_format_that_is_decoded_is_found(tmp_path: Path) -> None:
    suffixes = ("jpg", "jpeg", "tif", "tiff", "ppm", "pgm", "png", "bmp", "webp", "gif")
    names = [f"{number}.{suffix}" for number, suffix in enumerate(suffixes)]
    manifest = LAYOUTS["identities"](write(tmp_path, [f"someone/{name}" for name in names]))
    assert manifest.paths == tuple(f"someone/{name}" for name in names)
    assert not check_manifest(manifest).disguised


def test_a_class_that_is_not_trained_on(tmp_path: Path) -> None:
    assert "1 classes that" in (text := message(write(tmp_path, [*TREE, "val/cow/1.jpg"])))
    assert "cow" in text


def test_an_empty_class(tmp_path: Path) -> None:
    write(tmp_path, [*TREE, "val/cat/1.jpg"])
    (tmp_path / "train" / "bee").mkdir()
    assert "1 of 3 class folders" in (text := message(tmp_path))
    assert "bee" in text


def test_no_held_back_folder_and_no_classes(tmp_path: Path) -> None:
    text = message(write(tmp_path / "a", TREE))
    assert "train/ + val/" in text
    assert "train/ + test/" in text
    (tmp_path / "b" / "train").mkdir(parents=True)
    (tmp_path / "b" / "val").mkdir()
    assert "No class folder in" in message(tmp_path / "b")
    assert "which is not there" in message(tmp_path / "c", "identities")


def test_what_macos_and_windows_leave_behind_is_no_image_and_no_class(tmp_path: Path) -> None:
    root = write(tmp_path, [*TREE, "val/cat/9.jpg"])
    left = ["train/._cat.jpg", "train/cat/._1.JPEG", "train/cat/Thumbs.db", "train/__MACOSX/cat/._1.JPEG", "._x.jpg"]
    for path in left:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"\x00\x05\x16\x07")
    assert LAYOUTS["class_folders"](root).paths == (
        "train/ant/more/1.png",
        "train/cat/1.JPEG",
        "train/cat/2.jpg",
        "val/cat/9.jpg",
    )
    assert len(LAYOUTS["identities"](root / "train")) == 3
