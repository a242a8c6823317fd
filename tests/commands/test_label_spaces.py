"""A class is its name, whatever number a data set gives it; where nobody knows names it is its number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from reid_cckd.commands.__main__ import main
from reid_cckd.engine import load_checkpoint
from tests.commands.conftest import write_config
from tests.commands.test_tasks import SIDE, recipe
from tests.data.trees import write_image

GREYS = {"dark": 20, "grey": 70, "light": 120, "pale": 150}


def write_table(folder: Path, names: list[str], called: dict[str, str] | None = None) -> Path:
    """Eight training and four test images of each class, under other names where ``called`` has them."""
    lines = ["path,label,split"]
    for name in names:
        for image in range(12):
            path = write_image(folder / f"{name}{image}.png", GREYS[name] + image, (SIDE, SIDE)).name
            lines.append(f"{path},{(called or {}).get(name, name)},{'train' if image < 8 else 'test'}")
    table = folder / "images.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def settings(table: Path, output: Path, **sections: object) -> str:
    values = recipe(table, output, **sections)
    values["data"] |= {"dataset": "csv"}  # type: ignore[operator]
    values["evaluation"] = {"task": "classification", "top": [1]}
    return str(write_config(output.with_suffix(".yaml"), values))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that knows dark, grey and light, and takes every image for a light one."""
    folder = tmp_path_factory.mktemp("teacher")
    assert main(["train", settings(write_table(folder, ["dark", "grey", "light"]), folder / "run")]) == 0
    last = folder / "run" / "last.pt"
    content = load_checkpoint(last)
    assert content["class_names"] == ["dark", "grey", "light"]
    content["model"]["head.weight"][:2], content["model"]["head.weight"][2] = 0, 1
    torch.save(content, last)
    return last


def distil(table: Path, output: Path, teacher: Path, *overrides: str) -> int:
    sections = {"teacher": {"checkpoint": str(teacher), "allow_weak": True}, "objective": {"alpha": 0.5}}
    return main(["train", settings(table, output, **sections), *overrides])


def test_a_teacher_whose_classes_have_other_numbers_is_refused_by_the_first_that_differs(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_table(tmp_path / "other", ["grey", "light", "pale"])
    assert distil(other, tmp_path / "run", teacher) == 2
    message = capsys.readouterr().err
    assert "2 in common" in message
    assert "'dark' is class 0 of the teacher and none of the data" in message
    assert not (tmp_path / "run" / "last.pt").exists()
    assert distil(other, tmp_path / "run", teacher, "objective.shared_classes=true") == 0
    assert "judged by 8 of 12 test images" in capsys.readouterr().out


def test_a_teacher_of_other_classes_alone_teaches_its_embeddings(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = write_table(tmp_path, ["grey", "pale"], {"grey": "7", "pale": "8"})
    assert distil(numbers, tmp_path / "run", teacher, "objective.alpha=1", "objective.beta=1") == 0
    assert "not judged" in capsys.readouterr().out


def test_a_network_is_tested_by_the_names_of_its_classes(teacher: Path, tmp_path: Path) -> None:
    fewer = write_table(tmp_path, ["grey", "light"])  # light is number 1 here and was 2
    assert main(["test", str(teacher), f"data.root={fewer}", "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["scores"]["top1"] == 0.5
    others = write_table(tmp_path, ["dark", "grey"])
    assert main(["test", str(teacher), f"data.root={others}", "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["scores"]["top1"] == 0
    assert {(one["label_name"], one["taken_for"]) for one in report["details"]["worst"]} == {
        ("dark", None),
        ("grey", None),
    }


def test_a_gallery_that_numbers_its_names_apart_is_refused(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, classes in {"both": ["dark", "grey"], "dark": ["dark"], "grey": ["grey"]}.items():
        table = write_table(tmp_path, classes)
        table.write_text(table.read_text().replace("train", "gallery").replace("test", "query"))
        assert main(["extract", str(teacher), f"data.root={table}", "--output", str(tmp_path / name)]) == 0
    options = ["--output", str(tmp_path / "report"), "evaluation.cameras=ignore"]
    assert main(["test", str(tmp_path / "both"), "--gallery", str(tmp_path / "grey"), *options]) == 2
    assert "Label 0 is 'dark' among the queries and 'grey' in the gallery" in capsys.readouterr().err
    kept = ["--save-embeddings", str(tmp_path / "kept")]
    assert main(["test", str(tmp_path / "dark"), "--gallery", str(tmp_path / "both"), *options, *kept]) == 0
    assert json.loads((tmp_path / "kept" / "names.json").read_text()) == {"0": "dark", "1": "grey"}


def test_without_a_name_in_common_classes_go_by_number(teacher: Path, tmp_path: Path) -> None:
    called = {"dark": "a", "grey": "b", "light": "c"}
    renamed = write_table(tmp_path, list(called), called)
    assert distil(renamed, tmp_path / "run", teacher) == 0
    old = tmp_path / "old.pt"  # a checkpoint of a version that kept no names
    torch.save({key: value for key, value in load_checkpoint(teacher).items() if key != "class_names"}, old)
    assert distil(write_table(tmp_path / "x", ["grey", "light", "pale"]), tmp_path / "run2", old) == 0


def test_a_run_goes_on_with_the_classes_that_it_began_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_table(tmp_path, ["dark", "grey", "light"])
    config = settings(table, tmp_path / "run")
    assert main(["train", config]) == 0
    assert main(["train", config, "--resume"]) == 0
    write_table(tmp_path, ["dark", "grey", "light"], {"grey": "a grey"})
    assert main(["train", config, "--resume"]) == 2
    assert "other labels" in capsys.readouterr().err
    last = tmp_path / "run" / "last.pt"
    content = load_checkpoint(last)
    del content["numbering"]["classes"]  # as an older version left it
    torch.save(content, last)
    assert main(["train", config, "--resume"]) == 0
