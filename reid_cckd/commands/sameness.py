"""Whether what lies in a run's folder is of the run that is meant: its settings, and the teacher it learned from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reid_cckd.config import Config, load_config, to_dict
from reid_cckd.engine import file_hash, is_embeddings
from reid_cckd.errors import ConfigError, DataError

# Processes of a run may differ in these, and a resumed run may change them: they move files and time, and rounding at
# most. A teacher may lie elsewhere, and has to be the same one.
FREE = (
    "data.root",
    "data.workers",
    "data.cache_dir",
    "train.device",
    "train.channels_last",
    "train.checkpoint_every",
    "train.compile",
    "train.cuda_graph",
    "train.track",
    "teacher.checkpoint",
    "teacher.cache",
    "teacher.compile",
)
FREE_ON_RESUME = (*FREE, "data.on_bad_image")  # or an image that is damaged by now would cost the run
REPORT = "report.json"


def source_of(text: str) -> Path:
    """A path as it was given; the folder of a run stands for its last.pt."""
    path = Path(text)
    last = path / "last.pt"
    return last if last.is_file() and not is_embeddings(path) else path


def check_same(config: Config, by: Sequence[str] = ("last.pt",)) -> None:
    """A run that goes on must be the run that was interrupted; without a file of ``by`` there is nothing to go on with.

    Raises:
        ConfigError: lists the settings that differ.
    """
    folder = Path(config.output)
    if not any((folder / name).exists() for name in by) or not (folder / "config.yaml").exists():
        return
    new, old = (settings_of(to_dict(one)) for one in (config, load_config(folder / "config.yaml")))
    changed = [key for key in sorted(new.keys() | old.keys()) if new.get(key) != old.get(key)]
    changed = [key for key in changed if key not in FREE_ON_RESUME]
    if changed:
        lines = "".join(f"\n  {key}: {old.get(key)!r} -> {new.get(key)!r}" for key in changed)
        raise ConfigError(f"{folder} was started with other settings; undo these or choose another output:{lines}")


def check_finished(config: Config, hash_of: Callable[[Path], str] = file_hash) -> None:
    """A run that has a report must be of these settings, and of the teacher that lies there now.

    ``hash_of``: `file_hash`, or one that remembers, for the many runs of one teacher.

    Raises:
        ConfigError: it is not.
    """
    check_same(config, ("last.pt", REPORT))
    report, teacher = Path(config.output) / REPORT, _teacher_file(config)
    if teacher is None or not report.exists():
        return
    before, now = learned_from(read_report(report)), hash_of(teacher)
    if before not in (None, now):
        raise ConfigError(
            f"{report.parent} learned from another teacher than {teacher} is now (SHA-256 {before:.16}... then, "
            f"{now:.16}... now). Put that one back, or delete the folder to train it anew."
        )


def settings_of(config: Mapping[str, Any]) -> dict[str, object]:
    """Every value by its dotted key; of data.cache what counts is whether the device augments, which draws others."""
    settings = _flat(config)
    on_device = settings.get("data.cache") == "device"
    return {**settings, "data.cache": "device" if on_device else "none, memory or packed"}


def learned_from(report: Mapping[str, Any]) -> str | None:
    """The SHA-256 of a run's teacher; None where it had none, or an older report does not say."""
    found: str | None = report.get("provenance", {}).get("teacher_sha256")
    return found


def read_report(path: Path) -> dict[str, Any]:
    """What `train` left.

    Raises:
        DataError: it is damaged.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"{path} is damaged ({error}). Delete it, and let `train --resume` or the study make it anew."
        ) from error
    return report


def _teacher_file(config: Config) -> Path | None:
    if config.teacher is None or not config.teacher.checkpoint:
        return None
    path = source_of(config.teacher.checkpoint)
    return path if path.is_file() else None


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    items = ((f"{prefix}.{key}" if prefix else key, item) for key, item in value.items())
    return {path: leaf for key, item in items for path, leaf in _flat(item, key).items()}
