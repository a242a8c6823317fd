"""Rows of the log sent elsewhere; the libraries themselves are replaced by notes of what they were told."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_cckd.engine import RunLog, check_trackers, trackers
from reid_cckd.engine.meter import Meter, resident_mb
from reid_cckd.engine.trackers import flatten
from reid_cckd.errors import ConfigError

ROW = {"epoch": 1, "step": 20, "loss": 2.5, "system": {"memory_mb": 7}, "balance": {"ce": {"term": "ce", "share": 1}}}
FLAT = {"epoch": 1.0, "loss": 2.5, "system/memory_mb": 7.0, "balance/ce/share": 1.0}


class Notes:
    """What was called, in order; stands for a module, a run or a writer."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], Mapping[str, Any]]] = []
        self.id = self.run_id = "r1"

    @property
    def info(self) -> Notes:
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments: Any, **named: Any) -> Notes:
            self.calls.append((name, arguments, named))
            return self

        return call

    def told(self, name: str) -> list[tuple[tuple[Any, ...], Mapping[str, Any]]]:
        return [(arguments, named) for called, arguments, named in self.calls if called == name]


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Notes:
    found = Notes()
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, found)  # type: ignore[arg-type]
    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = found.SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    return found


def run(name: Any, folder: Path, step: int = 0) -> None:
    log = RunLog(folder / "log.jsonl")
    with trackers([name], folder, {"seed": 3}, step) as log.trackers:
        log.append(ROW)


def test_tensorboard_takes_every_number_and_forgets_what_is_written_again(notes: Notes, tmp_path: Path) -> None:
    run("tensorboard", tmp_path)
    run("tensorboard", tmp_path, step=17)
    assert [named["purge_step"] for _, named in notes.told("SummaryWriter")] == [None, 18]
    assert [arguments for arguments, _ in notes.told("add_scalar")[:4]] == [(*item, 20) for item in FLAT.items()]
    assert len(notes.told("close")) == 2
    assert RunLog(tmp_path / "log.jsonl").rows() == [ROW, ROW]


def test_wandb_goes_on_with_its_run(notes: Notes, tmp_path: Path) -> None:
    run("wandb", tmp_path)
    run("wandb", tmp_path, step=17)
    assert [named["id"] for _, named in notes.told("init")] == [None, "r1"]
    assert notes.told("init")[0][1]["config"] == {"seed": 3}
    assert notes.told("log")[0] == (({**FLAT, "step": 20},), {})
    assert len(notes.told("finish")) == 2


def test_mlflow_goes_on_with_its_run(notes: Notes, tmp_path: Path) -> None:
    run("mlflow", tmp_path)
    run("mlflow", tmp_path, step=17)
    assert [named["run_id"] for _, named in notes.told("start_run")] == [None, "r1"]
    assert notes.told("log_dict") == [(({"seed": 3}, "config.yaml"), {})]
    assert notes.told("log_metrics")[0] == ((FLAT,), {"step": 20})
    assert len(notes.told("end_run")) == 2


def test_a_tracker_that_fails_costs_no_training(
    notes: Notes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def log(self, values: Mapping[str, float], step: int) -> None:
            raise ConnectionError("server gone")

    log = RunLog(tmp_path / "log.jsonl")
    log.trackers = [Broken()]  # type: ignore[list-item]
    log.append(ROW)
    log.append(ROW)
    assert len(log.rows()) == 2
    assert capsys.readouterr().err.count("server gone") == 1


def test_what_is_not_installed_or_does_not_start_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name != "mlflow" else object())
    check_trackers(["mlflow"])
    with pytest.raises(ConfigError, match=r"wandb and tensorboard are asked for .*`pip install wandb tensorboard`"):
        check_trackers(["wandb", "mlflow", "tensorboard"])
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))  # has no init
    with pytest.raises(ConfigError, match="wandb cannot be started"), trackers(["wandb"], tmp_path, {}, 0):
        pass


def test_only_numbers_are_sent() -> None:
    assert flatten({"a": True, "b": "x", "c": None, "d": {"e": 2, "f": [1]}}) == {"d/e": 2.0}


def test_speed_leaves_out_the_time_between_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 12.0, 14.0, 100.0, 102.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    meter = Meter(torch.device("cpu"))
    meter.start()
    meter.count(30)
    meter.count(30)
    meter.start()
    meter.count(30)
    reading = meter.take()
    assert reading["images_per_second"] == 15.0
    assert reading["memory_mb"] > 10
    assert reading.keys() == {"images_per_second", "memory_mb"}


def test_memory_is_what_was_taken() -> None:
    before = resident_mb()
    block = torch.ones(2**25)  # 128 MB
    assert 100 < resident_mb() - before < 200
    del block
