"""What makes a step faster changes its losses by rounding alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reid_cckd.batch import Batch
from reid_cckd.commands.train import main as train_main
from reid_cckd.engine import Trainer, load_checkpoint
from tests.commands.conftest import recipe, write_config

OBJECTIVE = {"alpha": 0.5, "beta": 10.0}


@pytest.fixture
def config(pedestrians: Path, teacher: Path, tmp_path: Path) -> str:
    values = recipe(
        pedestrians, tmp_path / "run", objective=OBJECTIVE, teacher={"checkpoint": str(teacher), "allow_weak": True}
    )
    return str(write_config(tmp_path / "run.yaml", values))


def balances(folder: Path, of: str = "value") -> list[float]:
    """A number of every term on the first batch of every epoch."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [share[of] for row in rows for share in row.get("balance", {}).values()]


def is_channels_last(folder: Path) -> bool:
    weights = [value for value in load_checkpoint(folder / "last.pt")["model"].values() if value.ndim == 4]
    wide = [value for value in weights if value.shape[1] > 1 and value.shape[2] > 1]  # of others both orders are one
    return all(value.is_contiguous(memory_format=torch.channels_last) for value in wide)


def test_the_memory_order_is_that_of_the_cpu_unless_told(config: str, tmp_path: Path) -> None:
    assert train_main([config]) == 0
    assert train_main([config, "train.channels_last=false", f"output={tmp_path / 'other'}"]) == 0
    assert is_channels_last(tmp_path / "run")
    assert not is_channels_last(tmp_path / "other")
    one, other = balances(tmp_path / "run"), balances(tmp_path / "other")
    assert len(one) == 6
    assert one == pytest.approx(other, rel=1e-3)
    assert train_main([config, "train.channels_last=false", "--resume"]) == 0


def test_a_run_of_a_fused_optimiser_goes_on_in_another_memory_order(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer._step

    def leave(self: Trainer, loaded: Batch) -> None:
        if self.position.step == 8:
            raise KeyboardInterrupt
        step(self, loaded)

    options = ["optim.name=sgd", "optim.lr=0.01", "optim.options={momentum: 0.9, fused: true}"]
    assert train_main([config, *options, f"output={tmp_path / 'whole'}"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", leave)
        assert train_main([config, *options]) == 130
    assert train_main([config, *options, "train.channels_last=false", "--resume"]) == 0
    whole, resumed = (load_checkpoint(tmp_path / name / "last.pt")["model"] for name in ("whole", "run"))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is compiled, by everything of torch.compile but the machine code, which takes a minute."""
    found: list[Any] = []
    compile_it = torch.compile

    def traced(network: Any) -> Any:
        found.append(compile_it(network, backend="aot_eager"))
        return found[-1]

    monkeypatch.setattr(torch, "compile", traced)
    return found


@pytest.mark.parametrize("mode", ["online", "clean"])
def test_a_compiled_teacher_teaches_the_same(mode: str, config: str, tmp_path: Path, compiled: list[Any]) -> None:
    for name, compiles in (("plain", False), ("run", True)):
        asked = [f"teacher.mode={mode}", f"teacher.cache={tmp_path / name / 'answers'}", f"teacher.compile={compiles}"]
        assert train_main([config, *asked, "train.epochs=1", f"output={tmp_path / name}"]) == 0
    assert len(compiled) == 1
    asked += ["train.epochs=1", "teacher.compile=False"]
    assert train_main([config, *asked, "--resume"]) == 0, "compiling is free to change"
    assert balances(tmp_path / "run") == pytest.approx(balances(tmp_path / "plain"), rel=1e-4)


def test_a_compiled_student_learns_the_same(config: str, tmp_path: Path, compiled: list[Any]) -> None:
    assert train_main([config, "train.epochs=1", f"output={tmp_path / 'plain'}"]) == 0
    assert train_main([config, "train.epochs=1", "train.compile=true"]) == 0
    assert len(compiled) == 1
    shares = [balances(tmp_path / name, "gradient_share") for name in ("run", "plain")]
    assert shares[0] == pytest.approx(shares[1], abs=0.01)
    one, other = load_checkpoint(tmp_path / "plain" / "last.pt"), load_checkpoint(tmp_path / "run" / "last.pt")
    assert one["model"].keys() == other["model"].keys()
    for name, value in one["model"].items():
        torch.testing.assert_close(other["model"][name], value, rtol=1e-2, atol=1e-3, msg=name)


def test_a_teacher_may_answer_in_bfloat16(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for amp in ("off", "bfloat16"):
        folder = tmp_path / amp
        arguments = [f"teacher.amp={amp}", "teacher.mode=clean", f"teacher.cache={folder / 'answers'}"]
        arguments += ["teacher.cache_dtype=float32", "train.epochs=1", f"output={folder}"]
        assert train_main([config, *arguments]) == 0
        tables.append(np.fromfile(folder / "answers" / "rows.bin", np.float32))
    exact, rounded = tables
    error = np.linalg.norm(exact - rounded) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.05
    assert train_main([config, *arguments, "teacher.amp=off", f"output={tmp_path / 'third'}"]) == 2
    assert "precision: 'bfloat16', and this run's is 'float32'" in capsys.readouterr().err
