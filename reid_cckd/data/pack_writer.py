"""Writing packs: insightface's kind, with header and identities, and im2rec's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reid_cckd.data.images import in_threads
from reid_cckd.data.recordio import frame, pack

Content = tuple[int, bytes]  # key, record
Read = Callable[[int], bytes]


def write_pack(
    rec: Path,
    labels: NDArray[np.int64],
    read: Read,
    *,
    kind: Literal["insightface", "im2rec"] = "insightface",
    size: tuple[int, int] = (112, 112),
    workers: int | None = 1,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> None:
    """Write ``rec``, its `.idx` and, for insightface, ``property``; continues where a killed call stopped.

    ``labels``: (N,) from 0. ``read(row)`` gives the encoded image of a row, in ``workers`` threads. In insightface's
    kind images stand in the order of their labels, so that an identity is a range of keys.
    """
    rec.parent.mkdir(parents=True, exist_ok=True)
    idx = rec.with_suffix(".idx")
    done, end = _resume(rec, idx)
    write = _insightface if kind == "insightface" else _im2rec
    first = 1 if kind == "insightface" else 0  # key of the first image
    with rec.open("ab") as records, idx.open("a") as index:
        for key, content in write(labels, read, done, workers):
            framed = frame(content)
            records.write(framed)
            records.flush()  # a line of the index promises a whole record
            index.write(f"{key}\t{end}\n")
            index.flush()
            end += len(framed)
            progress(min(key + 1 - first, len(labels)), len(labels))
        os.fsync(records.fileno())
    if kind == "insightface":
        rec.with_name("property").write_text(f"{labels.max() + 1},{size[0]},{size[1]}\n")


def _insightface(labels: NDArray[np.int64], read: Read, done: int, workers: int | None) -> Iterator[Content]:
    """Header, images in the order of labels, identities; the first ``done`` are left out."""
    order = np.argsort(labels, kind="stable")
    people, starts = np.unique(labels[order], return_index=True)
    ends = [*starts[1:].tolist(), len(labels)]
    end = len(labels) + 1
    if done == 0:
        yield 0, pack([float(end), float(end + len(people))], b"")
    rows = order[max(done - 1, 0) :].tolist()
    for key, (row, image) in enumerate(zip(rows, in_threads(read, rows, workers), strict=True), start=max(done, 1)):
        yield key, pack([float(labels[row])] * 2, image, key)
    for number in range(max(done - end, 0), len(people)):
        yield end + number, pack([float(starts[number] + 1), float(ends[number] + 1)], b"", end + number)


def _im2rec(labels: NDArray[np.int64], read: Read, done: int, workers: int | None) -> Iterator[Content]:
    for row, image in enumerate(in_threads(read, range(done, len(labels)), workers), start=done):
        yield row, pack(float(labels[row]), image, row)


def _resume(rec: Path, idx: Path) -> tuple[int, int]:
    """How many records are written completely, and where the next begins; what is behind it is cut off."""
    lines = _whole_lines(idx)[:-1]  # the last promises a record whose end nothing proves: it is written again
    whole = _whole_lines(idx)
    end = int(whole[-1].split()[1]) if whole else 0
    if rec.exists() and rec.stat().st_size >= end:
        os.truncate(rec, end)
    else:
        lines, end = [], 0
        rec.write_bytes(b"")
    idx.write_text("".join(f"{line}\n" for line in lines))
    return len(lines), end


def _whole_lines(idx: Path) -> Sequence[str]:
    text = idx.read_text() if idx.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()
