"""CIFAR-10 and CIFAR-100 from their official python pickles, without running what is in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reid_cckd.data.class_folders import read_class_folders
from reid_cckd.data.folders import Tree, find_tree
from reid_cckd.data.images import Pixels, resize
from reid_cckd.data.manifest import Manifest
from reid_cckd.data.safe_pickle import load_pickle
from reid_cckd.data.sources import files_of, number_of
from reid_cckd.errors import DataError

SIDE = 32


@dataclass(frozen=True)
class Cifar:
    """One of the two: its folder, the pickles of each role, and the keys of its labels."""

    name: str
    home: str
    batches: dict[str, tuple[str, ...]]
    fine: bytes
    coarse: bytes | None
    classes: int
    meta: tuple[str, bytes]  # the pickle with the names of the classes, and their key


CIFAR10 = Cifar(
    "CIFAR-10",
    "cifar-10-batches-py",
    {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)},
    b"labels",
    None,
    10,
    ("batches.meta", b"label_names"),
)
CIFAR100 = Cifar(
    "CIFAR-100",
    "cifar-100-python",
    {"train": ("train",), "test": ("test",)},
    b"fine_labels",
    b"coarse_labels",
    100,
    ("meta", b"fine_label_names"),
)


def read_cifar(root: str | os.PathLike[str], *, kind: Cifar) -> Manifest:
    """The images of the official pickles: roles train and test; CIFAR-100's 20 coarse labels are superclasses.

    ``root`` is the unpacked folder or the one above it, or holds the same images as files: ``train/CLASS/*`` and
    ``test/CLASS/*``. Classes have names where batches.meta, of CIFAR-100 meta, lies with the batches.

    Raises:
        DataError: a batch is missing, damaged, or holds something else than images and labels.
    """
    base = Path(root).expanduser()
    if (base / "train").is_dir() and not (base / kind.home).is_dir():
        return read_class_folders(base, name=kind.name)
    home = _find(base, kind)
    parts = [(role, file) for role, files in kind.batches.items() for file in files]
    source = Batches(home, kind)
    contents = [source.batch(file) for _, file in parts]
    counts = [len(content["pixels"]) for content in contents]
    paths = [f"{file}:{row}" for (_, file), count in zip(parts, counts, strict=True) for row in range(count)]
    return Manifest(
        kind.name,
        home,
        tuple(paths),
        np.concatenate([content["labels"] for content in contents]),
        np.zeros(len(paths), dtype=np.int64),
        np.repeat([role for role, _ in parts], counts),
        superclasses=np.concatenate([content["superclasses"] for content in contents]) if kind.coarse else None,
        source=source,
        class_names=_class_names(home, kind),
    )


class Batches:
    """Reads ``data_batch_1:17``: image 17 of a pickle, which a process reads once."""

    def __init__(self, home: Path, kind: Cifar) -> None:
        self.home, self.kind = home, kind
        self._open: dict[str, dict[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"home": self.home, "kind": self.kind, "_open": {}}  # a spawned worker reads the files itself

    def batch(self, file: str) -> dict[str, Any]:
        """``pixels`` (N, 32, 32, 3) uint8, ``labels`` and ``superclasses`` (N,) of one pickle."""
        if file not in self._open:
            self._open[file] = _read_batch(self.home / file, self.kind)
        return self._open[file]

    def image_or_reason(self, path: str, size: tuple[int, int] | None = None) -> Pixels | str:
        return resize(self.batch(path.rpartition(":")[0])["pixels"][number_of(path)], size)

    def encoded(self, path: str) -> None:
        return None

    def files(self, paths: Sequence[str]) -> list[Path]:
        return files_of(self.home, paths)


def _find(root: Path, kind: Cifar) -> Path:
    first = kind.batches["train"][0]
    if (root / first).is_file():
        return root
    home, _ = find_tree(root, ("",), (Tree(kind.name, (kind.home,)),), f"{kind.name} (python version)")
    return home / kind.home


def _read_batch(path: Path, kind: Cifar) -> dict[str, Any]:
    content = load_pickle(path)
    pixels = content.get(b"data") if isinstance(content, dict) else None
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3 * SIDE * SIDE,):
        raise DataError(f"{path} holds no images: expected `data`, N x {3 * SIDE * SIDE} of uint8. {_advice(kind)}")
    labels = _labels(content, kind.fine, len(pixels), kind.classes, path, kind)
    coarse = _labels(content, kind.coarse, len(pixels), 20, path, kind) if kind.coarse else None
    images = pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return {"pixels": images, "labels": labels, "superclasses": coarse}


def _labels(content: dict[Any, Any], key: bytes, count: int, classes: int, path: Path, kind: Cifar) -> Any:
    found = content.get(key)
    values = list(found) if isinstance(found, (list, np.ndarray)) else []
    sound = all(isinstance(label, (int, np.integer)) and 0 <= label < classes for label in values)
    if len(values) != count or not sound:
        raise DataError(
            f"{path}: expected `{key.decode()}`, {count:,} numbers from 0 to {classes - 1}, one for each image. "
            f"{_advice(kind)}"
        )
    return np.array(values, dtype=np.int64)


def _class_names(home: Path, kind: Cifar) -> dict[int, str]:
    """Of the labels; none where the file that names them is not there."""
    path, key = home / kind.meta[0], kind.meta[1]
    if not path.is_file():
        return {}
    content = load_pickle(path)
    names = content.get(key) if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names) or len(names) != kind.classes:
        raise DataError(f"{path}: expected `{key.decode()}`, the names of {kind.classes} classes. {_advice(kind)}")
    return {label: name.decode("utf-8", "replace") for label, name in enumerate(names)}


def _advice(kind: Cifar) -> str:
    return f"Unpack the python version of {kind.name} again."
