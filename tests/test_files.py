"""Atomic writing."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import pytest

from reid_cckd.errors import UserError
from reid_cckd.files import atomic_path, write_json


def test_new_content_replaces_old_and_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.json"
    write_json(target, {"a": 1})
    write_json(target, {"a": 2})
    assert json.loads(target.read_text()) == {"a": 2}
    assert [entry.name for entry in target.parent.iterdir()] == ["a.json"]


def test_failure_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError("killed")
    with pytest.raises(ValueError, match="JSON"):
        write_json(target, math.nan)
    assert target.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_full_disk_is_a_users_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(UserError, match=r"No space left to write .*a\.txt"), atomic_path(target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert target.read_text() == "old"


def test_a_folder_that_cannot_be_made_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"), atomic_path(tmp_path / "file" / "a.txt"):
        pass
