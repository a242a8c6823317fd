"""Writing packs: insightface's kind, with header and identities, and im2rec's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reid_cckd.data.recordio import frame, pack

Content = tuple[int, bytes]  # key, record


def write_pack(
    rec: Path,
    labels: NDArray[np.int64],
    read: Callable[[int], bytes],
    *,
    kind: Literal["insightface", "im2rec"] = "insightface",
    size: tuple[int, int] = (112, 112),
    progress: Callable[[], object] = lambda: None,
) -> None:
    """Write ``rec``, its `.idx` and, for insightface, ``property``; continues where a killed call stopped.

    ``labels``: (N,) from 0. ``read(row)`` gives the encoded image of a row. In insightface's kind images stand in the
    order of their labels, so that an identity is a range of keys.
    """
    rec.parent.mkdir(parents=True, exist_ok=True)
    idx = rec.with_suffix(".idx")
    done, end = _resume(rec, idx)
    contents = _insightface(labels, read, done) if kind == "insightface" else _im2rec(labels, read, done)
    with rec.open("ab") as records, idx.open("a") as index:
        for key, content in contents:
            framed = frame(content)
            records.write(framed)
            records.flush()  # a line of the index promises a whole record
            index.write(f"{key}\t{end}\n")
            index.flush()
            end += len(framed)
            progress()
        os.fsync(records.fileno())
    if kind == "insightface":
        rec.with_name("property").write_text(f"{labels.max() + 1},{size[0]},{size[1]}\n")


def _insightface(labels: NDArray[np.int64], read: Callable[[int], bytes], done: int) -> Iterator[Content]:
    """Header, images in the order of labels, identities; the first ``done`` are left out."""
    order = np.argsort(labels, kind="stable")
    people, starts = np.unique(labels[order], return_index=True)
    ends = [*starts[1:].tolist(), len(labels)]
    end = len(labels) + 1
    if done == 0:
        yield 0, pack([float(end), float(end + len(people))], b"")
    for position in range(max(done - 1, 0), len(labels)):
        row = int(order[position])
        yield position + 1, pack([float(labels[row])] * 2, read(row), position + 1)
    for number in range(max(done - end, 0), len(people)):
        yield end + number, pack([float(starts[number] + 1), float(ends[number] + 1)], b"", end + number)


def _im2rec(labels: NDArray[np.int64], read: Callable[[int], bytes], done: int) -> Iterator[Content]:
    for row in range(done, len(labels)):
        yield row, pack(float(labels[row]), read(row), row)


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
