"""One run, one process: claims on folders that several processes and machines share."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

BEAT = 10.0  # seconds between signs of life
STALE = 120.0  # a claim without a sign of life for so long is of a process that died
RELEASED = 0  # the time of change of a claim that was given back


@contextlib.contextmanager
def claim(folder: Path, stale: float = STALE) -> Iterator[bool]:
    """Yield whether this process may work in ``folder`` now; nobody else may until it leaves the context.

    A claim is a numbered file made by the one process whose exclusive creation succeeds, and touched while that
    process lives. Who finds the newest claim silent for ``stale`` seconds makes the next number; who finds a newer
    claim than its own (its machine slept) ends at once, because its successor writes the same files. Ages are
    differences of the file system's own clock, so machines need not agree on the time; that clock may jump, so a
    claim that looks silent, or of the future, is listened to for two signs of life before it is taken over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mine = _make(folder, stale)
    if mine is None:
        yield False
        return
    ended = threading.Event()
    beats = threading.Thread(target=_beat, args=(mine, ended, _pause(stale)), daemon=True)
    beats.start()
    try:
        yield True
    finally:
        ended.set()
        beats.join()
        _release(mine)


def is_claimed(folder: Path, stale: float = STALE) -> bool:
    """Whether a living process works there, by the age of its last sign of life."""
    newest = _newest(folder)
    return newest is not None and _age(newest) < stale


def _make(folder: Path, stale: float) -> Path | None:
    newest = _newest(folder)
    if newest is not None and _is_alive(newest, stale):
        return None
    mine = folder / f".claim.{0 if newest is None else _number(newest) + 1}"
    try:
        with mine.open("x", encoding="utf-8") as file:
            json.dump({"host": socket.gethostname(), "process": os.getpid()}, file)
    except FileExistsError:
        return None
    return mine


def _is_alive(newest: Path, stale: float) -> bool:
    if 0 <= _age(newest) < stale:
        return True
    last = newest.stat().st_mtime_ns
    if last == RELEASED:
        return False
    time.sleep(2 * _pause(stale))
    return newest.stat().st_mtime_ns != last


def _pause(stale: float) -> float:
    return min(BEAT, stale / 4)


def _newest(folder: Path) -> Path | None:
    found = [path for path in folder.glob(".claim.*") if re.fullmatch(r"\.claim\.\d+", path.name)]
    return max(found, key=_number, default=None)


def _number(path: Path) -> int:
    return int(path.name.rpartition(".")[2])


def _age(path: Path) -> float:
    """Seconds since the last sign of life, by the file system's clock."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".clock.") as file:
        now = os.fstat(file.fileno()).st_mtime
    return now - path.stat().st_mtime


def _beat(mine: Path, ended: threading.Event, seconds: float) -> None:
    while not ended.wait(seconds):
        newest = _newest(mine.parent)
        if newest is not None and newest != mine:
            print(f"\n{mine.parent} was taken over by another process; this one was silent too long.", file=sys.stderr)
            os._exit(75)
        with contextlib.suppress(OSError):  # a file server that is away for a moment
            os.utime(mine)


def _release(mine: Path) -> None:
    """Leave the number behind, marked as old as can be: were it removed, two processes could make the same one."""
    with contextlib.suppress(OSError):
        os.utime(mine, ns=(RELEASED, RELEASED))
