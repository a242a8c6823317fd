"""Checkpoints: written atomically, read without running anything that is inside them."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch

from reid_cckd.errors import CheckpointError
from reid_cckd.files import atomic_path

FORMAT = "reid_cckd/1"
ELSEWHERE = (
    "Weights of timm or another program are given as model.pretrained, those of a teacher as teacher.pretrained with "
    "its teacher.backbone instead of teacher.checkpoint."
)


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write plain values and tensors; the file is the old one or the new one, never half of one."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:  # of a name torch would not say what failed
        torch.save({"format": FORMAT, **content}, file)


def load_checkpoint(path: str | Path, lazy: bool = False) -> dict[str, Any]:
    """Read a checkpoint of this toolkit; nothing but tensors and plain values is accepted.

    ``lazy`` leaves tensors in the file until they are looked at.

    Raises:
        CheckpointError: no such file, a damaged or truncated one, or one of another program.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}.{_siblings(path)}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=lazy)
    except (RuntimeError, EOFError, OSError, BadZipFile, pickle.UnpicklingError, ValueError, KeyError) as error:
        size = path.stat().st_size
        raise CheckpointError(
            f"{path} ({size:,} bytes) cannot be read as a checkpoint: it is truncated, damaged, or holds more than "
            f"tensors and plain values. Use another one, such as the run's last.pt or best.pt. {ELSEWHERE}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"{path} is no checkpoint of this toolkit (format {found!r}, expected {FORMAT!r}). {ELSEWHERE}"
        )
    return content


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _siblings(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        return f" The folder {folder} does not exist; train first, or check the path."
    found = sorted(entry.name for entry in folder.glob("*.pt"))
    return f" {folder} holds {', '.join(found)}." if found else f" No checkpoint is in {folder.resolve()}."
