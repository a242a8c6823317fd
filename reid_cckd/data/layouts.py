"""Data sets as they lie on disk: one reader per layout, each returning a manifest.

To add a data set that names its files like Market-1501, add a row to ``MARKET_STYLE``; for another layout, write a
function and add it to ``LAYOUTS``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from reid_cckd.data.cifar import CIFAR10, CIFAR100, read_cifar
from reid_cckd.data.class_folders import read_class_folders, read_identities
from reid_cckd.data.csv_table import read_csv
from reid_cckd.data.face_trees import read_ijb_images, read_megaface_images
from reid_cckd.data.folders import SHOWN, Listing, Tree, describe, files_in, find_tree
from reid_cckd.data.images import SUFFIXES
from reid_cckd.data.lists import read_cub200, read_image_list, read_inshop, read_sop
from reid_cckd.data.manifest import Manifest, concatenate
from reid_cckd.data.packed import read_packed
from reid_cckd.data.packs import read_recordio
from reid_cckd.data.pairs import read_pair_images
from reid_cckd.errors import DataError, did_you_mean

PERSON_CAMERA = re.compile(r"(-?\d+)_c(\d+)")  # 0002_c1s1_000451_03.jpg, VeRi's 0002_c002_00030600_0.jpg
MSMT17_CAMERA = re.compile(r"[^_]+_[^_]+_(\d+)(?:_|\.)")  # the base name: folders above it may hold underscores too
MSMT17_REPACK = re.compile(r"(-?\d+)_(?:c|\d+_)(\d+)")  # a repack keeps MSMT17's names or takes Market-1501's
JUNK = -1  # Market-1501's detections that are neither a person of the set nor a distractor

Image = tuple[str, int, int]  # relative path, person, camera
Reader = Callable[..., Manifest]

MARKET_FOLDERS = ("bounding_box_train", "query", "bounding_box_test")


@dataclass(frozen=True)
class MarketStyle:
    """A data set whose file names carry person and camera, one folder for each of train, query and gallery."""

    name: str
    homes: tuple[str, ...]
    folders: tuple[str, str, str] = MARKET_FOLDERS


MARKET_STYLE = {
    "market1501": MarketStyle("Market-1501", ("", "Market-1501-v15.09.15", "Market-1501", "market1501")),
    "dukemtmc": MarketStyle("DukeMTMC-reID", ("", "DukeMTMC-reID", "dukemtmc-reid")),
    "cuhk03_detected": MarketStyle("CUHK03-np detected", ("", "detected", "cuhk03-np/detected")),
    "cuhk03_labeled": MarketStyle("CUHK03-np labeled", ("", "labeled", "cuhk03-np/labeled")),
    "veri776": MarketStyle("VeRi-776", ("", "VeRi", "VeRi-776"), ("image_train", "image_query", "image_test")),
}

MSMT17_HOMES = ("", "MSMT17_V1", "MSMT17_V2", "MSMT17")
MSMT17_LISTS = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt")
MSMT17_TREES = (
    Tree("MSMT17_V1", ("train", "test")),
    Tree("MSMT17_V2", ("mask_train_v2", "mask_test_v2")),
    Tree("MSMT17", MARKET_FOLDERS),
)


def read_msmt17(root: str | os.PathLike[str], *, use_val: bool = True, name: str | None = None) -> Manifest:
    """MSMT17: V1, V2 (masked faces), or the repack into Market-1501's folders without lists.

    ``root`` is the folder itself or the one above MSMT17_V1, MSMT17_V2 or MSMT17. The training set is list_train and,
    with ``use_val``, list_val (the 32,621 images of the paper). Ids of test people start at 0 again on disk; here they
    continue after the training ids, so that one number is one person.

    Raises:
        DataError: nothing of this kind at ``root``, a list or an image is missing, a split is empty, a path is listed
            twice, or a name carries no camera.
    """
    home, tree = find_tree(root, MSMT17_HOMES, MSMT17_TREES, "MSMT17")
    title = name or tree.name
    if tree.folders == MARKET_FOLDERS:
        return _separate_test_ids(_read_folders(home, title, MARKET_FOLDERS, MSMT17_REPACK))
    return _separate_test_ids(_read_lists(home, title, tree.folders, use_val))


def read_market_style(root: str | os.PathLike[str], *, style: MarketStyle, name: str | None = None) -> Manifest:
    """Market-1501 and the data sets named like it; id -1 (junk) is dropped, id 0 (distractors) stays.

    Raises:
        DataError: the folders are not at ``root``, one is empty, or a file name carries no person and camera.
    """
    home, _ = find_tree(root, style.homes, (Tree(style.name, style.folders),), style.name)
    return _read_folders(home, name or style.name, style.folders, PERSON_CAMERA)


read_market1501: Reader = partial(read_market_style, style=MARKET_STYLE["market1501"])

LAYOUTS: dict[str, Reader] = {
    "msmt17": read_msmt17,
    "synthetic": partial(read_msmt17, name="synthetic pedestrians"),
    **{key: partial(read_market_style, style=style) for key, style in MARKET_STYLE.items()},
    "cifar10": partial(read_cifar, kind=CIFAR10),
    "cifar100": partial(read_cifar, kind=CIFAR100),
    "imagenet": partial(read_class_folders, name="ImageNet-1k", homes=("", "ILSVRC/Data/CLS-LOC", "imagenet")),
    "class_folders": read_class_folders,
    "identities": read_identities,
    "recordio": read_recordio,
    "pairs": read_pair_images,
    "packed": read_packed,
    "csv": read_csv,
    "image_list": read_image_list,
    "cub200": read_cub200,
    "sop": read_sop,
    "inshop": read_inshop,
    "megaface": read_megaface_images,
    "ijb": read_ijb_images,
}


def _read_lists(home: Path, title: str, folders: tuple[str, ...], use_val: bool) -> Manifest:
    train, test = folders
    lists = [("train", train, "list_train.txt"), ("train", train, "list_val.txt")][: 1 + use_val]
    lists += [("query", test, "list_query.txt"), ("gallery", test, "list_gallery.txt")]
    files, seen = Listing(), dict[str, str]()
    return concatenate(
        title, home, [(role, _read_list(home, folder, name, files, seen)) for role, folder, name in lists]
    )


def _read_list(home: Path, folder: str, name: str, files: Listing, seen: dict[str, str]) -> list[Image]:
    """The images of one list file; ``seen`` remembers across lists on which line each path stood."""
    images: list[Image] = []
    missing: list[str] = []
    source, base = str(home / name), str(home)
    for number, line in enumerate(_lines(home, name), start=1):
        if not line.strip():
            continue
        where = f"{source}:{number}"
        path, label = _path_and_id(line, where)
        path = f"{folder}/{path}"
        if path in seen:
            raise DataError(f"{where} lists {path} again, after {seen[path]}. Remove one of the two lines.")
        seen[path] = where
        if f"{base}/{path}" not in files:
            missing.append(f"line {number}: {path}")
        images.append((path, label, _msmt17_camera(path, where)))
    if missing:
        raise DataError(_missing_files(home, name, missing, len(images)))
    if not images:
        raise DataError(f"{home / name} lists no image, so that split would be empty. Restore it from the archive.")
    return images


def _lines(home: Path, name: str) -> list[str]:
    try:
        return (home / name).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        names = [entry.name for entry in home.iterdir() if entry.name not in MSMT17_LISTS]
        spare = " (or leave the validation images out: data.use_val: false)" if name == "list_val.txt" else ""
        raise DataError(
            f"{name} is missing: looked for {home / name}; looked at {describe(home)}.{did_you_mean(name, names)} "
            f"The lists come with the images; unpack the whole archive again{spare}."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{home / name} cannot be read as text: {error}. Restore it from the archive.") from error


def _path_and_id(line: str, where: str) -> tuple[str, int]:
    path, _, label = line.strip().rpartition(" ")
    if not path or not label.isdecimal():
        raise DataError(f"{where} reads {line.strip()!r}, expected a relative path, one space and a person id.")
    return path.strip(), int(label)


def _msmt17_camera(path: str, where: str) -> int:
    if match := MSMT17_CAMERA.match(path.rpartition("/")[2]):
        return int(match[1])
    raise DataError(
        f"{where} names {path}, whose camera cannot be read: expected PERSON_IMAGE_CAMERA_... with the camera number "
        "in the third field of the file name, such as 0000_000_01_0303morning_0008_0.jpg. Rename it or remove the line."
    )


def _missing_files(home: Path, name: str, missing: list[str], total: int) -> str:
    path = missing[0].partition(": ")[2]
    folder, shown = (home / path).parent, "; ".join(missing[:3])
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return (
        f"{home / name} lists {len(missing):,} of {total:,} images that are not on disk: {shown}{more}. "
        f"Looked for the first in {describe(folder)}. The images were not unpacked completely, or a list of another "
        "version lies beside them; unpack the archive again."
    )


def _read_folders(home: Path, title: str, folders: tuple[str, ...], pattern: re.Pattern[str]) -> Manifest:
    parts = zip(("train", "query", "gallery"), folders, strict=True)
    return concatenate(title, home, [(role, _read_folder(home, folder, pattern)) for role, folder in parts])


def _read_folder(home: Path, folder: str, pattern: re.Pattern[str]) -> list[Image]:
    names = files_in(home / folder)
    matches = [(name, pattern.match(name)) for name in names]
    if unreadable := [name for name, match in matches if match is None]:
        raise DataError(
            f"{home / folder} holds {len(unreadable):,} of {len(names):,} images whose person or camera cannot be "
            f"read: {', '.join(unreadable[:SHOWN])}. Expected PERSON_cCAMERA..., such as 0002_c1s1_000451_03.jpg. "
            "Rename or remove them."
        )
    images = [(f"{folder}/{name}", int(match[1]), int(match[2])) for name, match in matches if match]
    images = [image for image in images if image[1] != JUNK]
    if not images:
        raise DataError(
            f"No image in {home / folder}, so that split would be empty: looked for {', '.join(SUFFIXES)} files of "
            f"people other than {JUNK}; looked at {describe(home / folder)}. Unpack the archive again."
        )
    return images


def _separate_test_ids(manifest: Manifest) -> Manifest:
    """Let the ids of test people continue after those of training people, who are others by MSMT17's construction."""
    train = manifest.roles == "train"
    first_free = int(manifest.labels[train].max()) + 1
    labels = np.where(train, manifest.labels, manifest.labels + first_free)
    return Manifest(manifest.name, manifest.root, manifest.paths, labels, manifest.cameras, manifest.roles)
