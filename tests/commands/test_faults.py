"""What may happen to a run from outside while it trains: an image is damaged, the clock jumps."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_cckd.commands.train import main as train_main
from reid_cckd.engine import Trainer, load_checkpoint
from tests.commands.conftest import recipe, write_config


def before_step(patch: pytest.MonkeyPatch, number: int, event: Callable[[], None]) -> None:
    step = Trainer._step

    def stepped(self: Trainer, batch: Any) -> None:
        if self.position.step == number:
            event()
        step(self, batch)

    patch.setattr(Trainer, "_step", stepped)


def model(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_checkpoint(folder / "last.pt")["model"]
    return weights


def assert_same_weights(one: Path, other: Path) -> None:
    left, right = model(one), model(other)
    assert not [name for name in left if not torch.equal(left[name], right[name])]


@pytest.fixture
def copied(pedestrians: Path, tmp_path: Path) -> Path:
    """A data set of one's own, to damage."""
    shutil.copytree(pedestrians, tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_damaged_in_mid_run_stops_it_and_costs_nothing_once_restored(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    data = {"cache": "none", "workers": workers}
    config = str(write_config(tmp_path / "run.yaml", recipe(copied, tmp_path / "run", data=data)))
    assert train_main([config, f"output={tmp_path / 'whole'}"]) == 0
    images = {path: path.read_bytes() for path in (copied / "train").rglob("*.jpg")}

    def damage() -> None:
        for path, content in images.items():
            path.write_bytes(content[:100])

    with monkeypatch.context() as patch:
        before_step(patch, 4, damage)
        assert train_main([config]) == 2
    message = capsys.readouterr().err
    assert "cannot be decoded" in message
    assert "Traceback" not in message
    assert 0 < load_checkpoint(tmp_path / "run" / "last.pt")["position"]["step"] < 12
    for path, content in images.items():
        path.write_bytes(content)
    assert train_main([config, "--resume"]) == 0
    assert_same_weights(tmp_path / "whole", tmp_path / "run")


def test_an_image_damaged_in_mid_run_is_left_out_if_damaged_images_are_skipped(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = recipe(copied, tmp_path / "run", data={"cache": "none", "on_bad_image": "skip"})
    victims = sorted((copied / "train").rglob("*.jpg"))[::4]  # two of eight of every person
    before_step(monkeypatch, 2, lambda: [path.unlink() for path in victims] and None)
    assert train_main([str(write_config(tmp_path / "run.yaml", values))]) == 0
    told = capsys.readouterr().err
    assert [told.count(path.name) for path in victims] == [1] * len(victims)
    assert load_checkpoint(tmp_path / "run" / "last.pt")["position"]["step"] == 12


def test_a_damaged_query_costs_no_run(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = recipe(copied, tmp_path / "run", data={"cache": "none"}, train={"evaluate_every": 2})
    config = str(write_config(tmp_path / "run.yaml", values))
    assert train_main([config, f"output={tmp_path / 'whole'}"]) == 0
    query = (copied / "list_query.txt").read_text().partition(" ")[0]
    (copied / "test" / query).write_bytes(b"")
    assert train_main([config]) == 2  # at the end of the second epoch, the first that is evaluated
    assert "cannot be decoded" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "run" / "last.pt")["position"]["epoch"] == 1
    assert train_main([config, "--resume", "data.on_bad_image=skip"]) == 0
    assert f"skipped, damaged: {copied / 'test' / query}" in capsys.readouterr().out
    assert_same_weights(tmp_path / "whole", tmp_path / "run")


def test_a_clock_that_jumps_changes_nothing(pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = str(write_config(tmp_path / "run.yaml", recipe(pedestrians, tmp_path / "run", train={"epochs": 4})))
    assert train_main([config, f"output={tmp_path / 'whole'}"]) == 0
    jumps = itertools.cycle([0.0, 1e7, -1e9, 5e8])
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + next(jumps))
    assert train_main([config]) == 0
    assert_same_weights(tmp_path / "whole", tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    (speed,) = [row["system"]["images_per_second"] for row in rows if "system" in row]
    assert 1 < speed < 1e6
