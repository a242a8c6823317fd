"""A study end to end: shared by processes, killed, continued, and its table."""

from __future__ import annotations

import contextlib
import csv
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from reid_cckd.commands.__main__ import main
from reid_cckd.commands.study_table import render
from reid_cckd.config.study import Study
from reid_cckd.engine import Trainer, load_checkpoint
from reid_cckd.engine.checkpoint import save_checkpoint
from tests.commands.conftest import recipe, write_config

FAST = {"train": {"epochs": 1, "checkpoint_every": 1}, "evaluation": {"sheet_rows": 0}}


@pytest.fixture
def study(pedestrians: Path, tmp_path: Path) -> dict[str, Any]:
    """A teacher, a student alone and a KD student at two temperatures, two seeds each."""
    student = recipe(pedestrians, tmp_path / "unused", **FAST)
    kd = {**student, "teacher": {"checkpoint": "unused", "allow_weak": True}, "objective": {"alpha": 0.5}}
    write_config(tmp_path / "student.yaml", student)
    write_config(tmp_path / "kd.yaml", kd)
    return {
        "output": str(tmp_path / "out"),
        "teachers": {"big": "student.yaml"},
        "methods": {"alone": "student.yaml", "KD": {"config": "kd.yaml", "grid": {"objective.temperature": [2, 8]}}},
        "seeds": [0, 1],
        "baseline": "alone",
    }


def write(study: dict[str, Any], folder: Path) -> str:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return str(path)


def weights(folder: Path) -> dict[str, list[torch.Tensor]]:
    found = {path: load_checkpoint(path)["model"].values() for path in sorted(folder.rglob("last.pt"))}
    return {str(path.relative_to(folder)): list(values) for path, values in found.items()}


def test_a_listing_takes_a_silent_run_for_running_as_long_as_told(
    study: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, silent = write(study, tmp_path), tmp_path / "out/alone/seed0/.claim.0"
    silent.parent.mkdir(parents=True)
    silent.touch()
    os.utime(silent, (time.time() - 60,) * 2)
    for stale, count in ((30, 0), (90, 1)):
        assert main(["sweep", path, "--dry-run", "--stale", str(stale)]) == 0
        assert capsys.readouterr().out.count(" running ") == count


def test_a_study_ends_in_a_table_of_fractions_and_a_second_call_trains_nothing(
    study: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write(study, tmp_path), tmp_path / "out"
    assert main(["sweep", path, "--dry-run"]) == 0
    assert "7 runs, 0 finished" in capsys.readouterr().out
    assert not out.exists()
    assert main(["sweep", path]) == 0
    before = {file: file.stat().st_mtime_ns for file in out.rglob("report.json")}
    assert len(before) == 7
    rows = {row["name"]: row for row in json.loads((out / "table.json").read_text())["rows"]}
    assert list(rows) == ["teacher big", "alone", "KD temperature=2", "KD temperature=8"]
    scores = [
        [json.loads((out / row / f"seed{seed}" / "report.json").read_text())["scores"]["mean_ap"] for seed in (0, 1)]
        for row in ("alone", "KD_temperature=8")
    ]
    found = rows["KD temperature=8"]
    assert found["mean_ap"] == pytest.approx([statistics.mean(scores[1]), statistics.stdev(scores[1])])
    gains = [kd - alone for alone, kd in zip(*scores, strict=True)]
    assert found["difference"]["mean"] == pytest.approx(statistics.mean(gains))
    assert found["difference"]["low"] < found["difference"]["mean"] < found["difference"]["high"]
    with (out / "table.csv").open(newline="") as file:
        flat = {row["name"]: row for row in csv.DictReader(file)}
    assert float(flat["KD temperature=8"]["mean_ap_std"]) == pytest.approx(found["mean_ap"][1])
    assert flat["alone"]["difference_mean"] == ""
    assert "| KD temperature=8" in (out / "table.md").read_text()
    assert main(["sweep", path]) == 0
    assert before == {file: file.stat().st_mtime_ns for file in out.rglob("report.json")}
    capsys.readouterr()
    assert main(["sweep", path, "optim.lr=0.001"]) == 2
    assert "optim.lr" in capsys.readouterr().err
    assert main(["sweep", path, "metric=rank10", "--table"]) == 0
    assert "rank-10 - alone, 95 % interval" in capsys.readouterr().out
    assert main(["sweep", path, "metric=map", "--table"]) == 2
    assert "no score 'map' but mean_ap, mean_inp, rank1" in capsys.readouterr().err


def work(arguments: list[str], log: Path) -> None:
    """A worker process."""
    with log.open("w") as file, contextlib.redirect_stdout(file):
        sys.exit(main(arguments))


def test_processes_share_a_study_and_survive_a_kill(study: dict[str, Any], tmp_path: Path) -> None:
    study["methods"]["KD"]["grid"] = {}
    whole = write({**study, "output": str(tmp_path / "whole")}, tmp_path)
    assert main(["sweep", whole, "train.epochs=2"]) == 0
    arguments = ["sweep", write(study, tmp_path), "train.epochs=2", "--stale", "2"]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.commands.test_sweep"])
    out, logs = tmp_path / "out", [tmp_path / f"{number}.txt" for number in range(3)]
    workers = [context.Process(target=work, args=(arguments, log)) for log in logs]
    for worker in workers:
        worker.start()
    victim = _working_on_the_teacher(out, workers)
    victim.kill()
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [-9 if worker is victim else 0 for worker in workers]
    begun = [line.partition(" (")[0] for log in logs for line in log.read_text().splitlines() if line[:3] == "== "]
    assert len(begun) - begun.count("== teacher big") == len(set(begun)) - 1 == 4
    one, other = weights(tmp_path / "whole"), weights(out)
    assert one.keys() == other.keys()
    assert all(torch.equal(a, b) for name in one for a, b in zip(one[name], other[name], strict=True))
    tables = [json.loads((folder / "table.json").read_text())["rows"] for folder in (tmp_path / "whole", out)]
    assert tables[0] == tables[1]


def _working_on_the_teacher(out: Path, workers: Sequence[Any]) -> Any:
    claimed = out / "teachers" / "big"
    while not (claimed / "last.pt").exists():
        assert all(worker.is_alive() for worker in workers)
        time.sleep(0.01)
    (newest,) = claimed.glob(".claim.*")
    process = json.loads(newest.read_text())["process"]
    return next(worker for worker in workers if worker.pid == process)


def test_a_failed_run_is_reported_the_rest_goes_on_and_it_is_tried_again(
    study: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study["methods"] = {"broken": {"config": "student.yaml", "set": {"model.neck": "none"}}, "KD": "kd.yaml"}
    study["baseline"], study["seeds"] = "KD", [0]
    diverging = {"optim.name": "sgd", "optim.lr": 1e18, "optim.warmup_epochs": 0}
    study["methods"]["broken"]["set"] |= diverging
    path = write(study, tmp_path)
    assert main(["sweep", path]) == 2
    printed = capsys.readouterr()
    assert "1 of 3 runs failed" in printed.err
    assert "broken, seed 0: The loss is not finite" in printed.err
    assert "Traceback" not in printed.err
    assert [row["name"] for row in json.loads((tmp_path / "out" / "table.json").read_text())["rows"]][1:] == ["KD"]
    assert main(["sweep", path, "--dry-run"]) == 0
    assert "failed" in capsys.readouterr().out
    assert main(["sweep", path]) == 2
    assert "== broken, seed 0 (3 of 3) ==" in capsys.readouterr().out


def test_a_run_that_dies_of_anything_stops_no_other(
    study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study["methods"] = {"bad": {"config": "student.yaml", "set": {"optim.lr": 1.0}}, "good": "student.yaml"}
    study["teachers"], study["seeds"], study["baseline"] = {}, [0], None
    path, bad = write(study, tmp_path), tmp_path / "out" / "bad" / "seed0"
    step = Trainer._step

    def out_of_memory(self: Trainer, batch: Any) -> None:
        if self.folder == bad:
            raise torch.OutOfMemoryError("no memory left")
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", out_of_memory)
        assert main(["sweep", path]) == 2
    last = capsys.readouterr().err.rpartition("runs failed")[2]
    assert last.strip().endswith(f"bad, seed 0: OutOfMemoryError: no memory left (traceback in {bad / 'error.txt'})")
    assert "in out_of_memory" in (bad / "error.txt").read_text()
    assert (tmp_path / "out" / "good" / "seed0" / "report.json").exists()
    assert main(["sweep", path]) == 0
    assert not (bad / "error.txt").exists()


def test_a_signal_stops_the_whole_study(study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert main(["sweep", write(study, tmp_path)]) == 128 + signal.SIGTERM
    assert len(list(tmp_path.rglob("last.pt"))) == 1
    assert not list(tmp_path.rglob("error.txt"))


def test_a_table_holds_nothing_of_other_settings_or_of_another_teacher(
    study: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study["methods"], study["seeds"] = {"alone": "student.yaml", "KD": "kd.yaml"}, [0]
    path, kd, teacher = write(study, tmp_path), tmp_path / "out/KD/seed0", tmp_path / "out/teachers/big/last.pt"
    assert main(["sweep", path]) == 0
    other = write({**study, "methods": {"alone": "student.yaml", "KD": {"config": "kd.yaml"}}}, tmp_path)
    assert main(["sweep", other, "--table"]) == 0
    study["methods"]["KD"] = {"config": "kd.yaml", "set": {"objective.alpha": 0.9}}
    (kd / "last.pt").unlink()  # a finished run needs it no more
    for options in ([], ["--table"]):
        capsys.readouterr()
        assert main(["sweep", write(study, tmp_path), *options]) == 2
        assert "objective.alpha: 0.5 -> 0.9" in capsys.readouterr().err
    assert main(["sweep", path, "--dry-run"]) == 0
    assert "other settings or teacher" in capsys.readouterr().out
    study["methods"]["KD"] = "kd.yaml"
    save_checkpoint(teacher, load_checkpoint(teacher) | {"retrained": True})
    for options in ([], ["--table"]):
        capsys.readouterr()
        assert main(["sweep", write(study, tmp_path), *options]) == 2
        error = capsys.readouterr().err
        assert f"{kd} learned from another teacher than {teacher} is now" in error
        assert "delete the folder to train it anew" in error
    (kd / "report.json").write_text("")
    assert main(["sweep", write(study, tmp_path), "--table"]) == 2
    assert f"{kd / 'report.json'} is damaged" in capsys.readouterr().err


def test_a_folder_that_is_deleted_under_a_run_costs_that_run_alone(
    study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study["methods"] = {"bad": "student.yaml", "good": "student.yaml"}
    study["teachers"], study["seeds"], study["baseline"] = {}, [0], None
    bad, step = tmp_path / "out" / "bad" / "seed0", Trainer._step

    def deleted(self: Trainer, batch: Any) -> None:
        if self.folder == bad:
            shutil.rmtree(bad)
        step(self, batch)

    monkeypatch.setattr(Trainer, "_step", deleted)
    assert main(["sweep", write(study, tmp_path)]) == 2
    assert "1 of 2 runs failed" in capsys.readouterr().err
    assert (tmp_path / "out" / "good" / "seed0" / "report.json").exists()


def test_what_is_compared_is_told_where_seeds_are_lacking() -> None:
    study = Study("out", {"alone": "a.yaml", "KD": "b.yaml"}, seeds=(0, 1, 2), baseline="alone")
    difference = {"mean": 0.1, "low": 0.05, "high": 0.15, "num_seeds": 2}
    row = {"name": "KD", "seeds": 2, "mean_ap": (0.5, 0.1), "by_seed": {0: {}, 1: {}}, "difference": difference}
    assert "+10.0 [+5.0, +15.0] of 2 seeds" in render(study, [row])
    assert "of 2 seeds" not in render(replace(study, seeds=(0, 1)), [row])


def test_a_failed_teacher_fails_its_students_and_nobody_waits(
    study: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study["teachers"]["big"] = {"config": "student.yaml", "set": {"sampler.classes_per_batch": 99}}
    study["methods"], study["seeds"], study["baseline"] = {"alone": "student.yaml", "KD": "kd.yaml"}, [0], None
    assert main(["sweep", write(study, tmp_path)]) == 2
    assert "KD, seed 0: teacher big failed" in capsys.readouterr().err
    assert (tmp_path / "out" / "alone" / "seed0" / "report.json").exists()


def test_mistakes_are_found_before_anything_is_trained(
    study: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(study, tmp_path)
    assert main(["sweep", path, "--table"]) == 2
    assert "No run" in capsys.readouterr().err
    assert main(["sweep", path, "data.root=nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not list(tmp_path.rglob("last.pt"))


def test_a_study_of_runs_without_scores_is_refused(
    study: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", write(study, tmp_path), "evaluation.task=none"]) == 2
    assert "alone: evaluation.task: none leaves no scores" in capsys.readouterr().err
    assert not list(tmp_path.rglob("last.pt"))
