"""What a report says a network costs: as much of it as its task is evaluated by, which is what is exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import reid_cckd
from reid_cckd.commands import figures
from reid_cckd.commands.__main__ import main
from reid_cckd.engine import count
from tests.commands.conftest import recipe, write_config


def cost_in(folder: Path) -> dict[str, Any]:
    cost: dict[str, Any] = json.loads((folder / "report.json").read_text())["cost"]
    return cost


def exported(run: Path, path: Path) -> int:
    """Numbers in the parameters of the file that `export` writes of a run if not told otherwise."""
    assert main(["export", str(run), "--output", str(path)]) == 0
    return sum(parameter.numel() for parameter in torch.export.load(path).parameters())


def test_a_head_that_no_comparison_needs_costs_nothing(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, cost = reid_cckd.load_network(teacher).network, cost_in(teacher.parent)
    assert network.head is not None
    head = 12 * 12  # width of the embedding x people to train on
    whole = count(network, network.image_size)
    assert (cost["answer"], cost["parameters"]) == ("neck", whole.parameters - head)
    assert cost["macs"] == whole.macs - head
    assert cost["ms_per_image"] > 0
    assert exported(teacher, tmp_path / "student.pt2") == cost["parameters"]
    bare = ["evaluation.on=embedding", "--output", str(tmp_path / "bare")]
    capsys.readouterr()
    assert main(["test", str(teacher), *bare]) == 0
    neck = 2 * 12
    assert cost_in(tmp_path / "bare")["answer"] == "embedding"
    assert cost_in(tmp_path / "bare")["parameters"] == cost["parameters"] - neck
    printed = capsys.readouterr().out.splitlines()
    title = next(number for number, line in enumerate(printed) if "parameters" in line)
    assert "cost up to" in printed[title]
    assert "embedding" in printed[title + 2].split()


def test_a_part_of_the_backbone_that_no_image_meets_costs_nothing(pedestrians: Path, tmp_path: Path) -> None:
    model = {"backbone": "mobilenetv3_small_050", "options": {}}
    values = recipe(pedestrians, tmp_path / "run", model=model, train={"epochs": 1})
    assert main(["train", str(write_config(tmp_path / "run.yaml", values))]) == 0
    network = reid_cckd.load_network(tmp_path / "run/last.pt").network
    all_of_it = sum(parameter.numel() for parameter in network.parameters())
    head, classifiers = 12 * 12, 288 * 1024 + 1024  # of timm's forward_head
    cost = cost_in(tmp_path / "run")
    assert cost["parameters"] == all_of_it - head - classifiers
    assert exported(tmp_path / "run", tmp_path / "student.pt2") == cost["parameters"]


def test_figures_count_anew_what_older_reports_count_otherwise(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "retention_plot", lambda path, first, rest, title: drawn.extend([first, *rest]))
    old = tmp_path / "old"
    old.mkdir()
    for path in teacher.parent.iterdir():
        (old / path.name).write_bytes(path.read_bytes())
    report = json.loads((old / "report.json").read_text())
    report["cost"] = {"parameters": 10**9, "macs": 10**9, "ms_per_image": 1.0}
    (old / "report.json").write_text(json.dumps(report))
    runs = [f"new={teacher.parent}", f"old={old}"]
    assert main(["figures", *runs, "--output", str(tmp_path / "pictures")]) == 0
    cost = cost_in(teacher.parent)
    assert [(point.parameters, point.macs) for point in drawn] == 2 * [(cost["parameters"], cost["macs"])]
