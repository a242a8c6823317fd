"""A table of a paper from its study: trained, reported beside what was published, drawn."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from reid_cckd.commands.__main__ import main
from reid_cckd.commands.reproduce import comparison_text, expected_scores
from reid_cckd.config.study import Published, Study
from tests.commands.conftest import recipe, write_config

FAST = {"train": {"epochs": 1}, "evaluation": {"sheet_rows": 0}}


@pytest.fixture
def studies(pedestrians: Path, tmp_path: Path) -> Path:
    """A folder with a table3.yaml: a teacher, a student alone and one with correlation congruence."""
    student = recipe(pedestrians, tmp_path / "unused", **FAST)
    write_config(tmp_path / "student.yaml", student)
    write_config(
        tmp_path / "cc.yaml",
        {**student, "teacher": {"checkpoint": "unused", "allow_weak": True}, "objective": {"alpha": 1.0, "beta": 9}},
    )
    study = {
        "title": "Table 3",
        "output": str(tmp_path / "out"),
        "teachers": {"teacher": "student.yaml"},
        "methods": {"alone": "student.yaml", "CC": "cc.yaml"},
        "seeds": [0],
        "baseline": "alone",
        "pictures": ["CC"],
        "published": {
            "source": "somebody, 2019",
            "finding": "CC is better.",
            "against": "alone",
            "differences": {"CC": {"mean_ap": 0.024}},
        },
    }
    write_config(tmp_path / "table3.yaml", study)
    return tmp_path


def test_a_table_is_trained_and_set_beside_the_published(
    studies: Path, pedestrians: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["reproduce", "table3", "--studies", str(studies), "--data", str(pedestrians), "--seeds", "2"]
    assert main(call) == 0
    out = studies / "out"
    rows = {row["name"]: row for row in json.loads((out / "table.json").read_text())["rows"]}
    assert {name: row["seeds"] for name, row in rows.items()} == {"teacher": 1, "alone": 2, "CC": 2}
    text = (out / "report.md").read_text()
    here = f"{100 * (rows['CC']['mean_ap'][0] - rows['alone']['mean_ap'][0]):+.1f}"
    compared = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert ["CC", "mAP", here, "+2.4"] in compared
    assert "somebody, 2019" in text
    assert "not published" in text
    for picture in ("scores.png", "similarity.png", "retention.png"):
        assert f"({picture})" in text
        assert (out / picture).stat().st_size > 1000
    with (out / "table.csv").open(newline="") as file:
        flat = {row["name"]: row for row in csv.DictReader(file)}
    assert {row["published_against"] for row in flat.values()} == {"alone"}
    assert {name: row["published_mean_ap_difference"] for name, row in flat.items()} == {
        "teacher": "",
        "alone": "",
        "CC": "0.024",
    }
    before = {path: path.stat().st_mtime_ns for path in out.rglob("last.pt")}
    capsys.readouterr()
    assert main([*call, "--report"]) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("last.pt")} == before


def test_published_scores_stand_as_far_from_their_row_as_published() -> None:
    published = Published("somebody", "CC is better.", "alone", {"CC": {"mean_ap": 0.024}})
    study = Study("out", {"alone": "a.yaml", "CC": "b.yaml"}, published=published)
    rows = [{"name": name, "seeds": 1, "mean_ap": (score, None)} for name, score in (("alone", 0.5), ("CC", 0.55))]
    assert expected_scores(study, rows) == {"CC": pytest.approx(0.524)}
    unknown = replace(study, published=replace(published, differences={}))
    assert expected_scores(unknown, rows) == {}
    assert "not published" in comparison_text(unknown, rows)
    assert expected_scores(replace(study, published=None), rows) == {}


def test_a_difference_is_of_the_seeds_that_both_rows_have() -> None:
    published = Published("somebody", "CC is better.", "alone", {"CC": {"mean_ap": 0.024}})
    study = Study("out", {"alone": "a.yaml", "CC": "b.yaml"}, published=published)
    scores = {"alone": {0: 0.5, 1: 0.7}, "CC": {0: 0.6}}

    def row(name: str) -> dict[str, Any]:
        seeds = {seed: {"mean_ap": value} for seed, value in scores[name].items()}
        mean = sum(scores[name].values()) / len(seeds)
        return {"name": name, "seeds": len(seeds), "mean_ap": (mean, None), "by_seed": seeds}

    assert "| +10.0 (seeds: 0) |" in comparison_text(study, [row("alone"), row("CC")])
    scores["CC"] = {2: 0.6}
    assert "no seed in common" in comparison_text(study, [row("alone"), row("CC")])


def test_what_cannot_be_reproduced_is_said(studies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "table33", "--studies", str(studies)]) == 2
    assert "Did you mean 'table3'?" in capsys.readouterr().err
    assert main(["reproduce", "table3", "--studies", str(studies), "--seeds", "0"]) == 2
    assert "--seeds" in capsys.readouterr().err
    assert main(["reproduce", "table3", "--studies", str(studies), "--report"]) == 2
    assert "No run" in capsys.readouterr().err
    content = yaml.safe_load((studies / "table3.yaml").read_text())
    content["pictures"] = ["CD"]
    (studies / "table3.yaml").write_text(yaml.safe_dump(content))
    assert main(["reproduce", "table3", "--studies", str(studies)]) == 2
    assert "there is no row 'CD'" in capsys.readouterr().err
