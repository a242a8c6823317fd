"""Twins of CIFAR's official pickles, byte for byte of the kind that Python 2 wrote."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from reid_cckd.data.cifar import SIDE, Cifar
from reid_cckd.data.synthetic.patterns import pattern
from reid_cckd.files import atomic_path


def write_cifar(root: Path, kind: Cifar, *, images_per_batch: int = 200, seed: int = 0) -> None:
    """Every pickle of ``kind`` below ``root``: batches of ``images_per_batch`` images, and the names of the classes."""
    for number, file in enumerate(file for files in kind.batches.values() for file in files):
        rng = np.random.default_rng([seed, number])
        labels = rng.permutation(np.arange(images_per_batch) % kind.classes)
        pixels = np.stack([pattern(label, rng, (SIDE, SIDE)) for label in labels.tolist()])
        content: dict[bytes, Any] = {
            b"batch_label": file.encode(),
            kind.fine: labels.tolist(),
            b"data": pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1),
            b"filenames": [f"{label}_s_{row:06d}.png".encode() for row, label in enumerate(labels.tolist())],
        }
        if kind.coarse:
            content[kind.coarse] = (labels % 20).tolist()
        with atomic_path(root / kind.home / file) as temporary:
            temporary.write_bytes(python2_pickle(content))
    file, key = kind.meta
    with atomic_path(root / kind.home / file) as temporary:
        temporary.write_bytes(python2_pickle({key: [f"kind {label}".encode() for label in range(kind.classes)]}))


def python2_pickle(value: Any) -> bytes:
    """Protocol 2 with byte strings as Python 2 wrote them."""
    buffer = io.BytesIO()
    _Python2(buffer, protocol=2).dump(value)
    return buffer.getvalue()


class _Python2(pickle._Pickler):
    dispatch: ClassVar[dict[type, Callable[..., None]]] = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)  # type: ignore
        self.memoize(value)  # type: ignore

    dispatch[bytes] = save_bytes
