"""RecordIO, the container of mxnet: records of a `.rec` by the offsets of its `.idx`, without mxnet.

A record is framed by a magic number, three bits that say whether it is whole or a part, and 29 bits of length, padded
to four bytes. A record that holds the magic number itself is cut there into parts; joining them puts it back.
"""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reid_cckd.errors import DataError

MAGIC = struct.pack("<I", 0xCED7230A)
MAX_RECORD = 2**26  # bytes: no photograph is larger, and a lie is not allocated
WHOLE, FIRST, MIDDLE, LAST = range(4)
HEADER = struct.Struct("<IfQQ")  # flag, label, two ids; with flag > 0, that many float32 labels follow
SAMPLED = 64  # records whose frame is looked at when a pack is opened


class BrokenRecordError(ValueError):
    """What is wrong with a record, in a few words."""


class Record(NamedTuple):
    """A record of an image: its labels, one unless the writer gave more, and the bytes of its file."""

    flag: int
    labels: NDArray[np.float32]
    image: bytes


class Pack:
    """A `.rec` read at the offsets of its `.idx`; one descriptor serves all threads and forked workers.

    ``keys``: (N,) int64 ascending.

    Raises:
        DataError: a file is missing or no index, or the index does not belong to the records.
    """

    def __init__(self, rec: Path) -> None:
        self.rec, self.idx = rec, rec.with_suffix(".idx")
        self._lock, self._descriptor = threading.Lock(), -1
        self._size = _size(self.rec)
        self.keys, self._starts = _read_index(self.idx, self._size)
        order = np.argsort(self._starts)
        ends = np.empty_like(self._starts)
        ends[order] = np.append(self._starts[order][1:], self._size)
        self._ends = ends
        self._check_frames()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_descriptor": -1}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            os.close(self._descriptor)

    def record(self, key: int) -> Record:
        """The record of a key.

        Raises:
            BrokenRecordError: there is none, or it is cut off, longer than its place, or not framed as it should be.
        """
        place = self._place(key)
        start, end = int(self._starts[place]), int(self._ends[place])
        if end - start > MAX_RECORD and self._frame_length(start) > MAX_RECORD:
            raise BrokenRecordError(f"the record claims more than {MAX_RECORD:,} bytes")
        return unpack(join(self._bytes(start, min(end - start, MAX_RECORD + 64))))

    def label(self, key: int) -> float:
        """The first label of a record, reading no image where the record is whole."""
        head = self._bytes(int(self._starts[self._place(key)]), 8 + HEADER.size + 4)
        if len(head) < 36 or head[:4] != MAGIC or head[7] >> 5 != WHOLE:
            return float(self.record(key).labels[0])
        length, flag, label, first = struct.unpack("<4xIIf16xf", head)
        if length < HEADER.size + 4 * flag:
            return float(self.record(key).labels[0])
        return float(first if flag else label)

    def _place(self, key: int) -> int:
        place = int(np.searchsorted(self.keys, key))
        if place == len(self.keys) or self.keys[place] != key:
            raise BrokenRecordError(f"the index has no key {key}")
        return place

    def _frame_length(self, start: int) -> int:
        head = self._bytes(start, 8)
        return int(struct.unpack_from("<I", head, 4)[0] & (2**29 - 1)) if len(head) == 8 else 0

    def _bytes(self, start: int, count: int) -> bytes:
        return os.pread(self._open(), count, start)

    def _open(self) -> int:
        with self._lock:
            if self._descriptor < 0:
                self._descriptor = os.open(self.rec, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            return self._descriptor

    def _check_frames(self) -> None:
        sample = np.unique(np.linspace(0, len(self.keys) - 1, SAMPLED).astype(int))
        for place in sample.tolist():
            if self._bytes(int(self._starts[place]), 4) != MAGIC:
                raise DataError(
                    f"{self.idx} does not belong to {self.rec}: key {self.keys[place]} points to byte "
                    f"{self._starts[place]:,}, where no record begins. Restore the pair from one archive."
                )
        try:
            last = int(np.argmax(self._starts))
            self.record(int(self.keys[last]))
        except BrokenRecordError as error:
            raise DataError(
                f"{self.rec} is truncated or its end is damaged: of its last record (key {self.keys[last]} at byte "
                f"{self._starts[last]:,}) {error}. Download it again."
            ) from error


def join(framed: bytes) -> bytes:
    """The content of the record at the beginning of ``framed``, its parts joined.

    Raises:
        BrokenRecordError: a part is cut off, or parts do not follow each other as they should.
    """
    parts: list[bytes] = []
    place = 0
    while True:
        if framed[place : place + 4] != MAGIC or len(framed) < place + 8:
            raise BrokenRecordError(
                "it is cut off" if place + 8 > len(framed) else "a part does not begin with the magic"
            )
        word = struct.unpack_from("<I", framed, place + 4)[0]
        kind, length = word >> 29, word & (2**29 - 1)
        if place + 8 + length > len(framed):
            raise BrokenRecordError(f"it claims {length:,} bytes where {len(framed) - place - 8:,} are left")
        if kind not in ((MIDDLE, LAST) if parts else (WHOLE, FIRST)):
            raise BrokenRecordError(f"its parts are out of order (flag {kind})")
        parts.append(framed[place + 8 : place + 8 + length])
        place += 8 + (length + 3) // 4 * 4
        if kind in (WHOLE, LAST):
            break
    if framed[place : place + 4] not in (b"", MAGIC):
        raise BrokenRecordError("its length is not where the next record begins")
    return MAGIC.join(parts)


def frame(content: bytes) -> bytes:
    """``content`` as a record: cut into parts at each magic number that lies on a multiple of four bytes."""
    cuts, found = [], content.find(MAGIC)
    while found >= 0:
        if found % 4 == 0:
            cuts.append(found)
        found = content.find(MAGIC, found + 1 + (found % 4 == 0) * 3)
    starts, ends = [0, *(cut + 4 for cut in cuts)], [*cuts, len(content)]
    kinds = [FIRST, *[MIDDLE] * (len(cuts) - 1), LAST] if cuts else [WHOLE]
    framed = bytearray()
    for kind, start, end in zip(kinds, starts, ends, strict=True):
        framed += (
            MAGIC + struct.pack("<I", kind << 29 | end - start) + content[start:end] + b"\0" * (-(end - start) % 4)
        )
    return bytes(framed)


def unpack(content: bytes) -> Record:
    """Labels and image of a record.

    Raises:
        BrokenRecordError: it is shorter than its header or its labels.
    """
    if len(content) < HEADER.size:
        raise BrokenRecordError(f"it holds {len(content)} bytes, fewer than its header")
    flag, label, _, _ = HEADER.unpack_from(content)
    start = HEADER.size + 4 * flag
    if start > len(content):
        raise BrokenRecordError(f"it claims {flag:,} labels in {len(content)} bytes")
    labels = np.frombuffer(content[HEADER.size : start], "<f4") if flag else np.array([label], dtype=np.float32)
    return Record(flag, labels, content[start:])


def pack(labels: float | list[float], image: bytes, key: int = 0) -> bytes:
    """The content of a record: one label in the header (flag 0), or a list of them behind it (flag > 0)."""
    if isinstance(labels, list):
        return HEADER.pack(len(labels), 0.0, key, 0) + struct.pack(f"<{len(labels)}f", *labels) + image
    return HEADER.pack(0, labels, key, 0) + image


def _size(rec: Path) -> int:
    try:
        return rec.stat().st_size
    except OSError as error:
        raise DataError(f"{rec} cannot be read: {error.strerror}. Unpack the archive again.") from error


def _read_index(idx: Path, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys ascending and the offset of each."""
    try:
        content = idx.read_bytes()
    except OSError as error:
        raise DataError(f"{idx} cannot be read: {error.strerror}. It lies beside the .rec in the archive.") from error
    if content.translate(None, b"0123456789\t\r\n "):
        _blame_line(idx, content)
    lines = sum(1 for line in content.splitlines() if line.strip())
    numbers = np.fromstring(content.decode("ascii"), dtype=np.int64, sep=" ")
    if len(numbers) != 2 * lines or not lines:
        _blame_line(idx, content)
    keys, starts = numbers[0::2], numbers[1::2]
    order = np.argsort(keys, kind="stable")
    keys, starts = keys[order], starts[order]
    if (keys[1:] == keys[:-1]).any() or len(np.unique(starts)) < len(starts):
        raise DataError(f"{idx} names a key or an offset twice. Restore it from the archive.")
    if (outside := (starts < 0) | (starts % 4 != 0) | (starts >= size)).any():
        row = int(np.flatnonzero(outside)[0])
        raise DataError(
            f"{idx} does not belong to its .rec of {size:,} bytes, or that is truncated: {int(outside.sum()):,} of "
            f"{lines:,} offsets, such as {starts[row]:,} of key {keys[row]}, lie outside. Download both again."
        )
    return keys, starts


def _blame_line(idx: Path, content: bytes) -> None:
    for number, line in enumerate(content.splitlines(), start=1):
        fields = line.split()
        if fields and (len(fields) != 2 or not all(field.isdigit() for field in fields)):
            raise DataError(f"{idx}:{number} reads {line[:80]!r}, expected a key, a tab and an offset.")
    raise DataError(f"{idx} holds no keys. Restore it from the archive.")
