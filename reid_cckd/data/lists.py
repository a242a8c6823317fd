"""Data sets that come with list files of their own: CUB-200-2011, Stanford Online Products, In-shop, image lists."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from reid_cckd.data.folders import Listing, Tree, describe, find_tree
from reid_cckd.data.manifest import Manifest
from reid_cckd.errors import DataError, did_you_mean

Line = tuple[str, list[str]]  # file:number, fields
Entry = tuple[str, int, str, int]  # path, label, role, superclass

INSHOP_LISTS = ("list_eval_partition.txt", "Eval/list_eval_partition.txt")
CUB_TRAIN_CLASSES = 100  # the first hundred are trained on, the others retrieved (Song et al., CVPR 2016)


def read_cub200(root: str | os.PathLike[str]) -> Manifest:
    """CUB-200-2011 as metric learning splits it: classes 1-100 train, 101-200 of role "test".

    Raises:
        DataError: a list or an image is missing, or a line is no pair of number and value.
    """
    home, _ = find_tree(root, ("", "CUB_200_2011"), (Tree("CUB-200-2011", ("images",)),), "CUB-200-2011")
    labels = {number: (where, label) for where, (number, label) in list_lines(home / "image_class_labels.txt", 2)}
    entries = []
    for where, (number, path) in list_lines(home / "images.txt", 2):
        if number not in labels:
            raise DataError(f"{where} has the image {number}, which image_class_labels.txt does not label.")
        label = number_in(*labels[number])
        entries.append((f"images/{path}", label, "train" if label <= CUB_TRAIN_CLASSES else "test", 0))
    manifest = _manifest("CUB-200-2011", home, entries, home / "images.txt", superclasses=False)
    return replace(manifest, class_names={label: path.split("/")[1] for path, label, *_ in entries})


def read_sop(root: str | os.PathLike[str]) -> Manifest:
    """Stanford Online Products: Ebay_train.txt and Ebay_test.txt (role "test"); its 12 kinds are superclasses.

    Raises:
        DataError: a list or an image is missing, or a line has other columns.
    """
    home = _home(root, ("", "Stanford_Online_Products"), "Ebay_train.txt", "Stanford Online Products")
    entries = [
        (path, number_in(where, label), role, number_in(where, kind))
        for role in ("train", "test")
        for where, (_, label, kind, path) in list_lines(home / f"Ebay_{role}.txt", 4, skip=1)
    ]
    return _manifest("Stanford Online Products", home, entries, home / "Ebay_*.txt", superclasses=True)


def read_inshop(root: str | os.PathLike[str]) -> Manifest:
    """In-shop Clothes Retrieval of DeepFashion: list_eval_partition.txt, images beside it or in Img/.

    Raises:
        DataError: the list or an image is missing, or a line has other columns.
    """
    home = _home(root, ("", "In-shop", "Inshop", "In-shop Clothes Retrieval Benchmark"), INSHOP_LISTS, "In-shop")
    file = next(home / name for name in INSHOP_LISTS if (home / name).is_file())
    prefix = "Img/" if (home / "Img").is_dir() else ""
    entries = []
    for where, (path, item, role) in list_lines(file, 3, skip=2):
        if role not in ("train", "query", "gallery"):
            raise DataError(f"{where}: the third column reads {role!r}, expected train, query or gallery.")
        entries.append((f"{prefix}{path}", number_in(where, item.removeprefix("id_")), role, 0))
    return _manifest("In-shop", home, entries, file, superclasses=False)


def read_image_list(root: str | os.PathLike[str]) -> Manifest:
    """A text file of images to train on; ``root`` is the file, paths are relative to its folder.

    A line is a path, a space or a tab, and a label, or the three columns between tabs of `.lst` files: number, label,
    path (im2rec) or flag, path, label (insightface).

    Raises:
        DataError: no such file, a line that is none of these, or an image that is missing.
    """
    file = Path(root).expanduser()
    if not file.is_file():
        raise DataError(f"Expected a text file with a path and a label a line, at {describe(file)}.")
    entries = [(*_path_and_label(where, fields[0]), "train", 0) for where, fields in list_lines(file, 1)]
    return _manifest(file.stem, file.parent, entries, file, superclasses=False)


def _path_and_label(where: str, line: str) -> tuple[str, int]:
    if "\t" in line:
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) == 2 and columns[0] and _is_label(columns[1]):
            return _plain(columns[0]), number_in(where, columns[1])
        if len(columns) == 3 and _is_label(columns[1]) != _is_label(columns[2]):
            path, label = columns[1:] if _is_label(columns[2]) else columns[:0:-1]
            return _plain(path), number_in(where, label)
        raise DataError(
            f"{where} reads {line!r}, expected path and label, number, label and path, or flag, path and label."
        )
    path, _, label = line.rpartition(" ")
    if not path:
        raise DataError(f"{where} reads {line!r}, expected a path, a space and a label.")
    return _plain(path.strip()), number_in(where, label)


def _plain(path: str) -> str:
    """One spelling for ``./a.jpg`` and ``a.jpg``."""
    return PurePosixPath(path).as_posix()


def _home(root: str | os.PathLike[str], homes: Sequence[str], files: str | tuple[str, ...], title: str) -> Path:
    base, names = Path(root).expanduser(), (files,) if isinstance(files, str) else files
    for home in homes:
        if any((base / home / name).is_file() for name in names):
            return base / home
    entries = [entry.name for entry in base.iterdir()] if base.is_dir() else []
    raise DataError(
        f"No {title} at {base}: looked for {' or '.join(names)}; looked at {describe(base)}."
        f"{did_you_mean(names[0], entries)} Set the data root to the folder that holds it."
    )


def check_present(home: Path, paths: Sequence[str], listed: Path, files: Listing) -> None:
    """Raises DataError where images that a list names are not on disk."""
    if missing := [path for path in paths if (home / path).as_posix() not in files]:
        raise DataError(
            f"{listed} lists {len(missing):,} of {len(paths):,} images that are not on disk, such as "
            f"{home / missing[0]}. Looked for it in {describe((home / missing[0]).parent)}. Unpack the archive "
            "again, or correct the list."
        )


def list_lines(file: Path, columns: int, skip: int = 0) -> Iterator[Line]:
    """Where each line of a list stands, and its ``columns`` fields; one column is the whole line.

    Raises:
        DataError: the list is no text, holds no line, or one of other columns.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as text: {error}. Unpack the archive again.") from error
    if not any(line.strip() for line in lines[skip:]):
        raise DataError(f"{file} lists no image. Unpack the archive again.")
    for number, line in enumerate(lines, start=1):
        if number <= skip or not line.strip():
            continue
        fields = line.split() if columns > 1 else [line.strip()]
        if len(fields) != columns:
            raise DataError(f"{file}:{number} reads {line[:80]!r}, expected {columns} columns.")
        yield f"{file}:{number}", fields


def number_table(file: Path, columns: int) -> NDArray[np.int64]:
    """(N, columns) whole numbers of a list of millions of lines.

    Parsed by `numpy.fromstring` from digits alone: `numpy.loadtxt` ends the process on some text that is no number.

    Raises:
        DataError: the file cannot be read, is empty, or a line holds something else; the line is named.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read {file}: {error.strerror}. Unpack the archive again.") from error
    if not content.translate(None, b"0123456789 \t\r\n"):
        lines = content.count(b"\n") + (not content.endswith(b"\n"))
        numbers = np.fromstring(content.decode("ascii"), dtype=np.int64, sep=" ")
        if len(numbers) and len(numbers) == columns * lines:
            return numbers.reshape(-1, columns)
    rows = [[number_in(where, field) for field in fields] for where, fields in list_lines(file, columns)]
    return np.array(rows, dtype=np.int64)


def _is_label(text: str) -> bool:
    whole, _, fraction = text.partition(".")
    return whole.isascii() and whole.isdecimal() and len(whole) < 19 and not fraction.strip("0")


def number_in(where: str, text: str) -> int:
    if not _is_label(text):
        raise DataError(f"{where}: {text!r} is no label, expected a whole number from 0.")
    return int(text.partition(".")[0])


def _manifest(title: str, home: Path, entries: Sequence[Entry], source: Path, *, superclasses: bool) -> Manifest:
    """The table of ``entries``, all of which must be on disk."""
    check_present(home, [path for path, *_ in entries], source, Listing())
    seen = set[str]()
    for path, *_ in entries:
        if path in seen:
            raise DataError(f"{source} lists {path} twice. Unpack the archive again, or remove one of the two lines.")
        seen.add(path)
    paths, labels, roles, kinds = zip(*entries, strict=True)
    zeros = np.zeros(len(paths), dtype=np.int64)
    kind = np.array(kinds) if superclasses else None
    return Manifest(title, home, paths, np.array(labels), zeros, np.array(roles), superclasses=kind)
