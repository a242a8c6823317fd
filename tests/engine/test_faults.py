"""What may happen to a run from outside: a full disk, a lost worker, signals that come twice, a clock that jumps."""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from reid_cckd import files
from reid_cckd.batch import Batch
from reid_cckd.engine import Feed, load_checkpoint, save_checkpoint
from reid_cckd.engine.interrupt import StopRequest
from reid_cckd.engine.tracking import Progress
from reid_cckd.errors import UserError
from reid_cckd.files import remove_unfinished


class Numbers:
    """The batches [0, 1], [2, 3], ... of a data set of eight."""

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[list[int]]:
        return iter([[0, 1], [2, 3], [4, 5], [6, 7]])

    def set_epoch(self, epoch: int) -> None: ...
    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None: ...


class Deadly(Dataset[int]):
    """Loading image 5 kills the process that does it, as the system does when memory is full."""

    def set_epoch(self, epoch: int) -> None: ...
    def __getitem__(self, index: int) -> int:
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


def as_batch(items: Any) -> Batch:
    rows = torch.tensor(items)
    return Batch(rows, rows, rows)


def test_a_lost_worker_is_a_clear_error() -> None:
    feed = Feed(Deadly(), Numbers(), as_batch, image_name=str, workers=1, pin_memory=False)
    with pytest.raises(UserError, match=r"loads images was lost in epoch 3.*data\.workers"):
        list(feed.batches(2, 0))


@pytest.mark.parametrize("when", ["writing", "syncing"])
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"model": {"w": torch.arange(3.0)}})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((torch, "save") if when == "writing" else (files.os, "fsync")), full)
    with pytest.raises(UserError, match="No space left"):
        save_checkpoint(path, {"model": {"w": torch.zeros(3)}})
    monkeypatch.undo()
    assert torch.equal(load_checkpoint(path)["model"]["w"], torch.arange(3.0))
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


def test_kills_while_writing_leave_whole_checkpoints(tmp_path: Path) -> None:
    path, chance = tmp_path / "last.pt", random.Random(0)
    save_checkpoint(path, {"model": {"w": torch.zeros(50_000)}})
    for _ in range(10):
        child = os.fork()
        if child == 0:
            for number in itertools.count(1):
                save_checkpoint(path, {"model": {"w": torch.full((50_000,), float(number))}})
        time.sleep(chance.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert len(load_checkpoint(path)["model"]["w"].unique()) == 1
    remove_unfinished(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


def test_a_request_that_comes_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with StopRequest() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signum == signal.SIGTERM
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    with StopRequest() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.signum == signal.SIGINT


def test_a_second_control_c_acts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signum == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_progress_bar_does_not_ask_for_the_time_of_day(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = Progress(100, 10, 2)
    monkeypatch.setattr(time, "time", lambda: -1e9)
    monkeypatch.setattr("tqdm.std.time", lambda: -1e9)
    time.sleep(0.15)
    bar.step(0, {"loss": 0.5})
    bar.close()
    assert "11/100" in capsys.readouterr().err
    assert 0.1 < bar.bar.format_dict["elapsed"] < 10


def test_a_checkpoint_that_finds_no_space_is_a_users_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "last.pt", {"step": 1})
    (tmp_path / "part").symlink_to("/dev/full")
    monkeypatch.setattr(files, "_temporary_beside", lambda target: tmp_path / "part")
    with pytest.raises(UserError, match=r"No space left to write .*last\.pt"):
        save_checkpoint(tmp_path / "last.pt", {"step": 2, "model": torch.zeros(100_000)})
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 1
