"""Folders that take long to write: continued after a kill, complete or not there, never over something else."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reid_cckd.data.folders import describe
from reid_cckd.errors import DataError, UserError
from reid_cckd.files import alone, is_full_disk, write_json

PLAN = "plan.json"


@contextlib.contextmanager
def staged(target: Path, plan: Mapping[str, Any], *, replace: bool = False) -> Iterator[Path | None]:
    """Yield the hidden folder in which ``target`` is written, or None when it is there and of the same plan.

    ``plan``: everything that decides about what is written, as JSON can hold it. The folder of a call that was killed
    or ran out of space is yielded again to a call of the same plan, with what it holds; another plan begins anew and
    says so. With ``replace``, a complete folder of another plan makes way once the new one is complete.

    Raises:
        DataError: ``target`` holds something else. UserError: no space left, or the folder cannot be written.
    """
    with _space(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with alone(target):
            if read_plan(target) == plan:
                yield None
                return
            _refuse_strangers(target, replace)
            part = target.with_name(f".{target.name}.part")
            _begin(part, plan)
            yield part
            old = target.with_name(f".{target.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            if target.exists():
                target.rename(old)
            part.rename(target)
            shutil.rmtree(old, ignore_errors=True)


def _begin(part: Path, plan: Mapping[str, Any]) -> None:
    """Go on with what is in the hidden folder, or begin anew where that is of another plan."""
    before = read_plan(part)
    if before == plan:
        return
    if before is not None:
        other = ", ".join(key for key in sorted({*before, *plan}) if before.get(key) != plan.get(key))
        print(f"{part} holds unfinished work that was begun otherwise ({other}); it is removed and begun anew.")
    shutil.rmtree(part, ignore_errors=True)
    write_json(part / PLAN, plan)


def need_space(folder: Path, needed: int, files: int = 0) -> None:
    """Refuse before work begins.

    Raises:
        UserError: fewer than ``needed`` bytes, or places for so many files, are free where ``folder`` is or will be.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UserError(
            f"{folder} needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free there. Free space, or choose "
            "another folder."
        )
    disk = os.statvfs(existing)
    if disk.f_files and files > disk.f_favail:  # a file system without such a limit says 0
        raise UserError(
            f"{folder} needs {files:,} files and its disk has places for {disk.f_favail:,} more. Choose another disk, "
            "or a format of few files."
        )


def read_plan(folder: Path) -> dict[str, Any] | None:
    """What a folder was made from; None where it is not such a folder."""
    return read_object(folder / PLAN)


def read_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _refuse_strangers(target: Path, replace: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if replace and read_plan(target) is not None:
        return
    raise DataError(
        f"{describe(target)}: it is not what would be written there now, and nothing is written over it. Choose a new "
        "folder, or remove that one."
    )


@contextlib.contextmanager
def _space(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_full_disk(error):
            raise UserError(
                f"No space left to write {target}. What is written is kept: free space, then run this again."
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise UserError(f"Cannot write {target}: {error.strerror}. Choose a folder that can be written.") from error
        raise
