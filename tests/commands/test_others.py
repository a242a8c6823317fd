"""The other commands: test, runs, data, quickstart, and the front that names them."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reid_cckd.commands.__main__ import COMMANDS, main
from reid_cckd.commands.runs import summarise
from reid_cckd.engine import load_checkpoint, save_checkpoint
from tests.commands.conftest import recipe, write_config

REPOSITORY = Path(__file__).parent.parent.parent


def scores(path: Path) -> dict[str, float]:
    report: dict[str, dict[str, float]] = json.loads(path.read_text())
    return report["scores"]


def test_a_tested_checkpoint_scores_as_it_did_after_training(teacher: Path, tmp_path: Path) -> None:
    assert main(["test", str(teacher), "--output", str(tmp_path), "--json", str(tmp_path / "copy.json")]) == 0
    assert scores(tmp_path / "report.json") == scores(teacher.parent / "report.json") == scores(tmp_path / "copy.json")
    assert (tmp_path / "ranks.png").stat().st_size > 1000


def test_what_is_measured_can_be_changed_and_the_network_cannot(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["evaluation.convention=market1501", "evaluation.flip=false", "--output", str(tmp_path)]
    assert main(["test", str(teacher), *options]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["protocol"]["convention"], report["protocol"]["flip"]) == ("market1501", False)
    assert report["scores"]["mean_ap"] != scores(teacher.parent / "report.json")["mean_ap"]
    assert main(["test", str(teacher), "model.embedding=3"]) == 2
    assert "model.embedding=3" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["x.pt", "--gallery", "g"], ["folder"], ["gone.pt"], ["x.pt", "--rerank", "20"]]
)
def test_unusable_arguments_of_test_are_a_sentence(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.pt").touch()
    if not arguments:
        with pytest.raises(SystemExit):
            main(["test"])
    else:
        assert main(["test", *arguments]) == 2
    assert "error:" in capsys.readouterr().err


def test_truncated_and_foreign_checkpoints_are_refused(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.pt").write_bytes(teacher.read_bytes()[:-500])
    assert main(["test", str(tmp_path / "cut.pt")]) == 2
    assert "truncated" in capsys.readouterr().err
    content = load_checkpoint(teacher)
    content["config"]["model"]["embedding"] = 5
    save_checkpoint(tmp_path / "other.pt", content)
    assert main(["test", str(tmp_path / "other.pt")]) == 2
    assert "another architecture" in capsys.readouterr().err


def test_runs_average_seeds_and_nothing_else(teacher: Path, tmp_path: Path) -> None:
    report = json.loads((teacher.parent / "report.json").read_text())
    for name, seed, embedding, value in [("a/0", 0, 8, 0.2), ("a/1", 1, 8, 0.4), ("b/0", 0, 9, 0.5)]:
        report["provenance"]["config"].update(seed=seed, output=name)
        report["provenance"]["config"]["model"]["embedding"] = embedding
        report["scores"]["mean_ap"] = value
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "report.json").write_text(json.dumps(report))
        (tmp_path / name / "config.yaml").touch()
    rows = summarise({path: json.loads(path.read_text()) for path in sorted(tmp_path.rglob("report.json"))})
    assert [(row["name"], row["seeds"]) for row in rows] == [("0", 1), ("a", 2)]
    assert rows[1]["mean_ap"] == pytest.approx((0.3, 0.2 / 2**0.5))
    (tmp_path / "b/0/test").mkdir()
    (tmp_path / "b/0/test/report.json").write_text(json.dumps(report))  # of `test`: no further seed of b
    assert main(["runs", str(tmp_path), "--json", str(tmp_path / "rows.json")]) == 0
    assert [row["seeds"] for row in json.loads((tmp_path / "rows.json").read_text())] == [1, 2]
    assert main(["runs", str(tmp_path / "empty")]) == 2


def test_runs_count_a_seed_once_and_a_teacher_apart_and_not_the_machine(teacher: Path) -> None:
    report = json.loads((teacher.parent / "report.json").read_text())

    def of(seed: int, sha: str | None = None, **data: object) -> dict[str, Any]:
        found: dict[str, Any] = copy.deepcopy(report)
        found["provenance"]["teacher_sha256"] = sha
        found["provenance"]["config"]["seed"] = seed
        found["provenance"]["config"]["data"].update(data)
        return found

    def seeds(**reports: dict[str, Any]) -> list[int]:
        return sorted(row["seeds"] for row in summarise({Path("r", name, "x"): it for name, it in reports.items()}))

    assert seeds(a=of(0), b=of(1)) == [2]
    assert seeds(a=of(0), b=of(1), copied=of(0)) == [1, 2]
    assert seeds(a=of(0, "old"), b=of(1, "new")) == [1, 1]
    assert seeds(a=of(0), b=of(1, root="elsewhere", workers=7)) == [2]
    assert seeds(a=of(0), b=of(1, augment="none")) == [1, 1]


def test_rows_of_runs_are_told_apart_and_a_run_named_twice_is_one(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("a/seed0", "b/seed0")):
        shutil.copytree(teacher.parent, tmp_path / name)
        path = tmp_path / name / "report.json"
        report = json.loads(path.read_text())
        report["provenance"]["config"]["model"]["embedding"] = number + 5
        path.write_text(json.dumps(report))
    twice = tmp_path / "again"
    twice.symlink_to(tmp_path / "b")
    assert main(["runs", str(tmp_path / "a"), str(tmp_path / "b"), str(twice)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in lines[2:]) == ["a/seed0", "b/seed0"]
    (tmp_path / "b" / "seed0" / "report.json").write_text("{")
    assert main(["runs", str(tmp_path)]) == 2
    assert "report.json is damaged" in capsys.readouterr().err


def test_runs_list_what_is_under_way_and_plot_all_over_each_other(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a/seed0", "b/seed0"):
        shutil.copytree(teacher.parent, tmp_path / name)
    (tmp_path / "b" / "seed0" / "report.json").unlink()
    with (tmp_path / "b" / "seed0" / "log.jsonl").open("a") as log:
        log.write(
            json.dumps({"epoch": 3, "step": 40, "system": {"images_per_second": 123.0, "memory_mb": 456.0}}) + "\n"
        )
    picture = tmp_path / "curves.png"
    assert main(["runs", str(tmp_path), "--plot", str(picture)]) == 0
    finished, under_way = capsys.readouterr().out.split("without scores:")
    assert "rank-5 %" in finished
    assert "123.0" in under_way
    assert "under way, or stopped" in under_way
    assert str(tmp_path / "b" / "seed0") in under_way
    assert "a/seed0" not in under_way
    assert picture.stat().st_size > 1000
    (tmp_path / "b" / "seed0" / "log.jsonl").write_text("")
    assert main(["runs", str(tmp_path / "b"), "--plot", str(picture)]) == 2
    assert "Nothing to plot" in capsys.readouterr().err


def test_data_check_finds_what_is_broken(pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "copy"
    shutil.copytree(pedestrians, root)
    assert main(["data", "check", "--root", str(root)]) == 0
    victim = sorted(root.rglob("*.jpg"))[0]
    victim.write_bytes(victim.read_bytes()[:200])
    assert main(["data", "check", "--root", str(root), "--json", str(tmp_path / "check.json")]) == 2
    printed = capsys.readouterr()
    assert victim.name in printed.out
    assert "1 image" in printed.err
    assert victim.name in (tmp_path / "check.json").read_text()


def test_a_damaged_image_is_named_or_skipped_as_the_config_says(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(pedestrians, root)
    victim = sorted((root / "train").rglob("*.jpg"))[0]
    victim.write_bytes(victim.read_bytes()[:200])
    config = write_config(tmp_path / "run.yaml", recipe(root, tmp_path / "run"))
    assert main(["train", str(config)]) == 2
    assert victim.name in capsys.readouterr().err
    assert main(["train", str(config), "data.on_bad_image=skip"]) == 0
    assert victim.name in capsys.readouterr().out


def test_data_synth_writes_a_readable_set(tmp_path: Path) -> None:
    numbers = ["--train-ids", "4", "--test-ids", "3", "--images-per-id", "6", "--cameras", "3", "--size", "32", "16"]
    assert main(["data", "synth", "--root", str(tmp_path / "set"), *numbers]) == 0
    assert main(["data", "check", "--root", str(tmp_path / "set")]) == 0


def test_data_synth_writes_a_twin_and_names_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--train-ids", "4", "--images-per-id", "4", "--size", "16", "16", "--root", str(tmp_path / "set")]
    assert main(["data", "synth", "recordio", *small]) == 0
    assert "--dataset recordio" in capsys.readouterr().out
    assert main(["data", "check", "--dataset", "recordio", "--root", str(tmp_path / "set")]) == 0
    assert main(["data", "synth", "recordoi", *small]) == 2
    assert "Did you mean 'recordio'?" in capsys.readouterr().err
    assert main(["data", "synth", "csv", "--train-ids", "1", "--root", str(tmp_path / "csv")]) == 2
    assert "at least 4 ids" in capsys.readouterr().err


def test_quickstart_ends_with_a_table_of_four(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "reid_cckd.commands.quickstart.PEOPLE",
        {"train_ids": 16, "test_ids": 4, "images_per_id": 6, "cameras": 3, "size": (32, 16), "seed": 0},
    )
    configs = ["--configs", str(REPOSITORY / "configs" / "quickstart")]
    assert main(["quickstart", *configs, "train.epochs=1", "model.options.channels=[8, 8, 8, 8]"]) == 0
    rows = json.loads(Path("runs/quickstart/summary.json").read_text())
    assert [row["name"] for row in rows] == ["teacher", "student alone", "KD", "CCKD"]
    assert all({"mean_ap", "rank1", "parameters", "macs", "ms_per_image"} <= row.keys() for row in rows)
    assert Path("runs/quickstart/curves.png").exists()
    assert "student alone" in capsys.readouterr().out.splitlines()[-6]


def test_quickstart_without_configs_says_where_they_are_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["quickstart"]) == 2
    assert "--configs" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"data", "features"}))
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"reid-cckd {command}" in capsys.readouterr().out.split("examples:")[1]


def test_the_front_lists_commands_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)
    assert main(["trian"]) == 2
    assert main([]) == 2


@pytest.mark.parametrize("command", ["data", "features"])
def test_what_a_command_cannot_do_is_said(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    usage = capsys.readouterr().out
    assert main([command]) == 2
    assert capsys.readouterr() == ("", f"reid-cckd {command}: say what to do.\n\n{usage}")
    assert main([command, "chekc"]) == 2
    assert f"reid-cckd {command}: there is no 'chekc'." in capsys.readouterr().err


@pytest.mark.parametrize("tool", ["train", "test", "extract"])
def test_tools_are_the_same_commands(tool: str) -> None:
    command = [sys.executable, str(REPOSITORY / "tools" / f"{tool}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: reid-cckd {tool}")
