"""Face sets as insightface packs them, and any other images that im2rec packed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from reid_cckd.data.folders import describe, files_in
from reid_cckd.data.images import Pixels, decode
from reid_cckd.data.manifest import Manifest
from reid_cckd.data.recordio import BrokenRecordError, Pack, Record
from reid_cckd.data.sources import Numbered, number_of
from reid_cckd.errors import DataError

EXACT = 2**24  # float32, in which packs store labels and ranges of keys, merges whole numbers beyond


class Records:
    """Reads ``train.rec:17``: the image of key 17."""

    def __init__(self, pack: Pack) -> None:
        self.pack = pack

    def image_or_reason(self, path: str, size: tuple[int, int] | None = None) -> Pixels | str:
        try:
            return decode(self.pack.record(number_of(path)).image, size)
        except BrokenRecordError as error:
            return str(error)

    def encoded(self, path: str) -> bytes:
        try:
            return self.pack.record(number_of(path)).image
        except BrokenRecordError as error:
            raise DataError(f"{self.pack.rec.parent / path}: {error}. Download the pack again.") from error

    def files(self, paths: Sequence[str]) -> list[Path]:
        return [self.pack.rec]


def read_recordio(root: str | os.PathLike[str]) -> Manifest:
    """A `.rec` with its `.idx`, all for training; ``root`` is the `.rec` or a folder with one, or with ``train.rec``.

    insightface's packs begin with a record that says where the images end; labels are then taken from the records of
    the identities, which name the images of each. Packs of im2rec have no such record: every key is an image, whose
    label is read from it. A file ``property`` (classes,height,width) is held against the labels where there is one.

    Raises:
        DataError: files are missing or do not belong together, a label is no whole number, or is beyond ``property``.
    """
    rec = _find(Path(root).expanduser())
    pack = Pack(rec)
    keys, labels = _keys_and_labels(pack)
    _check_property(rec, labels)
    title = rec.parent.name if rec.stem == "train" else rec.stem
    zeros, roles = np.zeros(len(keys), dtype=np.int64), np.full(len(keys), "train")
    return Manifest(title, rec.parent, Numbered(rec.name, keys), labels, zeros, roles, source=Records(pack))


def _find(root: Path) -> Path:
    if root.is_file():
        return root
    packs = [root / name for name in files_in(root, (".rec",))]
    chosen = [rec for rec in packs if rec.name == "train.rec"] or packs
    if len(chosen) == 1:
        return chosen[0]
    raise DataError(
        f"Expected train.rec or one other .rec, with its .idx, at {root}: looked at {describe(root)}. Set the data "
        "root to the .rec you mean."
    )


def _keys_and_labels(pack: Pack) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first = _record(pack, int(pack.keys[0]))
    if pack.keys[0] != 0 or first.flag == 0 or first.image:
        return pack.keys, _scan(pack, pack.keys)
    end, last = _whole(first.labels[0], pack), _whole(first.labels[-1], pack)
    if end > EXACT:
        end = next((key for key in range(end - 2, end + 3) if not _record(pack, key).image), end)
    keys = pack.keys[(pack.keys >= 1) & (pack.keys < end)]
    if len(keys) != end - 1 or not len(keys):
        raise DataError(
            f"{pack.rec} says that its images have the keys 1 to {end - 1:,}, {pack.idx.name} names {len(keys):,} of "
            "them. Restore the pair from one archive."
        )
    if end > EXACT:
        return keys, _scan(pack, keys)
    identities = pack.keys[(pack.keys >= end) & (pack.keys < last)]
    labels = _labels_of_identities(pack, identities, len(keys))
    return keys, _scan(pack, keys) if labels is None else labels


def _labels_of_identities(pack: Pack, identities: NDArray[np.int64], count: int) -> NDArray[np.int64] | None:
    """Labels of keys 1..count from the ranges of their identities; None where these do not cover every image."""
    labels = np.full(count, -1, dtype=np.int64)
    for key in _progress(identities, "read identities"):
        found = _record(pack, key).labels
        if len(found) < 2 or not 1 <= found[0] < found[1] <= count + 1:
            return None
        start, end = int(found[0]), int(found[1])
        label = _label(pack, start)
        if label != _label(pack, end - 1):
            return None  # the ranges are not those of people
        labels[start - 1 : end - 1] = label
    return None if (labels < 0).any() else labels


def _whole(value: Any, pack: Pack) -> int:
    if not np.isfinite(value) or value != int(value):
        raise DataError(f"{pack.rec}: its first record says that the images end at key {value}. Download it again.")
    return int(value)


def _scan(pack: Pack, keys: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.array([_label(pack, key) for key in _progress(keys, "read labels")], dtype=np.int64)


def _progress(keys: NDArray[np.int64], text: str) -> Any:
    return tqdm(keys.tolist(), text, unit="record", delay=1, leave=False, disable=None)


def _record(pack: Pack, key: int) -> Record:
    try:
        return pack.record(key)
    except BrokenRecordError as error:
        raise _broken(pack, key, error) from error


def _label(pack: Pack, key: int) -> int:
    try:
        label = pack.label(key)
    except BrokenRecordError as error:
        raise _broken(pack, key, error) from error
    if not label.is_integer() or not 0 <= label < EXACT:
        raise DataError(f"{pack.rec}: the label of key {key} is {label}, expected a whole number from 0 to 2**24.")
    return int(label)


def _broken(pack: Pack, key: int, error: BrokenRecordError) -> DataError:
    return DataError(f"{pack.rec}: of the record of key {key}, {error}. Download it again.")


def _check_property(rec: Path, labels: NDArray[np.int64]) -> None:
    path = rec.with_name("property")
    if not path.is_file():
        return
    text = path.read_bytes()[:200].decode("ascii", "replace").strip()
    fields = [field.strip() for field in text.split(",")]
    if len(fields) != 3 or not all(field.isdecimal() for field in fields):
        raise DataError(f"{path} reads {text!r}, expected classes,height,width such as 85742,112,112.")
    if len(labels) and labels.max() >= int(fields[0]):
        raise DataError(
            f"{rec} holds a label {labels.max():,}, {path} says that there are {int(fields[0]):,} classes. Restore "
            "both from one archive."
        )
