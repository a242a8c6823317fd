"""Images sorted into one folder per class: ImageNet, CIFAR as images, your own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from reid_cckd.data.folders import SHOWN, Listing, Tree, describe, files_in, find_tree, folders_of, images_below
from reid_cckd.data.images import SUFFIXES
from reid_cckd.data.manifest import Manifest
from reid_cckd.errors import DataError

Found = dict[str, list[str]]  # class -> paths

HELD_BACK = ("val", "test")


def read_class_folders(
    root: str | os.PathLike[str], *, name: str = "class folders", homes: tuple[str, ...] = ("",)
) -> Manifest:
    """``train/CLASS/*`` with ``val/CLASS/*``, ``test/CLASS/*`` or both; labels are classes in the order of their names.

    The held-back folder is of role "test", which a classifier is scored on, whatever it is called (ImageNet calls it
    val); with both, ``val`` is of role "val". Folders inside a class folder are read too.

    Raises:
        DataError: the folders are not there, one holds images outside class folders, a class is empty, or a class is
            held back that is not trained on.
    """
    trees = [Tree(name, ("train", part)) for part in HELD_BACK]
    home = _find(root, homes, trees, name)
    present = [part for part in HELD_BACK if (home / part).is_dir()]
    roles = {"train": "train", **{part: part for part in present}} | ({"val": "test"} if present == ["val"] else {})
    found = {part: _classes(home, part) for part in roles}
    names = sorted(found["train"])
    for part in present:
        if strangers := sorted(found[part].keys() - found["train"].keys()):
            raise DataError(
                f"{home / part} holds {len(strangers):,} classes that {home / 'train'} does not hold: "
                f"{', '.join(strangers[:SHOWN])}. A classifier cannot name what it was not trained on; remove "
                "or rename them."
            )
    number = {label: index for index, label in enumerate(names)}
    rows = [
        (path, number[label], roles[part])
        for part, classes in found.items()
        for label in sorted(classes)
        for path in classes[label]
    ]
    paths, labels, kinds = zip(*rows, strict=True)
    zeros, class_names = np.zeros(len(rows), dtype=np.int64), dict(enumerate(names))
    return Manifest(name, home, paths, np.array(labels), zeros, np.array(kinds), class_names=class_names)


def read_identities(root: str | os.PathLike[str]) -> Manifest:
    """``PERSON/*`` without any split, as face sets are unpacked: all for training.

    Raises:
        DataError: no folder with images is there, images lie outside folders, or a folder is empty.
    """
    home = Path(root).expanduser()
    if not home.is_dir():
        raise DataError(f"No identity folders at {describe(home)}. Set the data root to the folder of people.")
    classes = _classes(home, "")
    names = dict(enumerate(sorted(classes)))
    paths, labels = zip(*((path, number) for number, label in names.items() for path in classes[label]), strict=True)
    zeros, roles = np.zeros(len(paths), dtype=np.int64), np.full(len(paths), "train")
    return Manifest("identity folders", home, paths, np.array(labels), zeros, roles, class_names=names)


def _find(root: str | os.PathLike[str], homes: tuple[str, ...], trees: list[Tree], name: str) -> Path:
    base = Path(root).expanduser()
    places = [base / home for home in homes if any(tree.is_in(base / home) for tree in trees)]
    return places[0] if len(places) == 1 else find_tree(root, homes, trees, name)[0]


def _classes(home: Path, part: str) -> Found:
    folder = home / part
    listing = Listing()
    if loose := files_in(folder, files=listing):
        raise DataError(
            f"{folder} holds {len(loose):,} images that are in no class folder, such as {loose[0]}. Sort them into "
            "one folder for each class (ImageNet's validation images are unpacked flat; its readers publish a script)."
        )
    prefix = f"{part}/" if part else ""
    classes = {label: sorted(images_below(folder / label, f"{prefix}{label}", listing)) for label in folders_of(folder)}
    if not classes:
        raise DataError(f"No class folder in {describe(folder)}. Unpack the archive again.")
    if empty := [label for label, paths in sorted(classes.items()) if not paths]:
        raise DataError(
            f"{len(empty):,} of {len(classes):,} class folders in {folder} hold no image ({', '.join(SUFFIXES)}): "
            f"{', '.join(empty[:SHOWN])}. Restore their images, or remove the folders."
        )
    return classes
