"""Files that are either the old one or the new one, never half of either."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from reid_cckd.errors import UserError

try:
    import fcntl
except ImportError:  # Windows, on which samplers, losses and evaluators are to work; training needs it
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` on success and vanishes on failure.

    Raises:
        UserError: the disk is full or the folder cannot be written; ``path`` is then as it was.
    """
    target = Path(path)
    temporary = _temporary_beside(target)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, target)
        _sync(target.parent)
    except (OSError, RuntimeError) as error:
        if is_full_disk(error):
            raise UserError(
                f"No space left to write {target}; what was there is untouched. Free space and resume."
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error says that no space is left; torch hides the one that does behind a RuntimeError."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__context__
    return False


def remove_unfinished(folder: str | os.PathLike[str]) -> None:
    """Delete what killed processes left half written in a folder that nobody writes to now."""
    for path in Path(folder).glob(".*.part"):
        path.unlink(missing_ok=True)


def reserve(file: IO[bytes], size: int) -> None:
    """Take the disk space of a file now, where the system can: a map of a file on a full disk ends in a bus error.

    Raises:
        OSError: there is not so much.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as readable JSON, atomically; NaN is refused because JSON has none.

    What is no UTF-8 in the name of a file is escaped.
    """
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def alone(target: Path) -> Iterator[None]:
    """Let processes that want to write the same folder or file wait for the one that writes it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".{target.name}.lock").open("w") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def undisturbed(folder: Path) -> Iterator[None]:
    """Be the only process that works in ``folder``, which is made if need be.

    Raises:
        UserError: another process works there, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise _unwritable(folder, error) from error
    with lock:
        try:
            if fcntl is not None:  # lockf and not flock, which workers of a killed process still hold
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise UserError(
                f"Another process works in {folder} now. Wait for its end, or choose another folder."
            ) from None
        except OSError:  # a file system without locks
            pass
        yield


def _unwritable(target: Path, error: OSError) -> UserError:
    return UserError(f"Cannot write {target}: {error.strerror}. Choose a folder that can be written.")


def _temporary_beside(target: Path) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    except OSError as error:
        raise _unwritable(target, error) from error
    os.close(handle)
    temporary = Path(name)
    temporary.chmod(0o644)
    return temporary


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
