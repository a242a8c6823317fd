"""Classification and faces end to end: train a teacher and a student, report, test again, list the runs."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

import reid_cckd
from reid_cckd.assess.extraction import Extraction
from reid_cckd.commands.__main__ import main
from reid_cckd.data import ImageDataset
from reid_cckd.engine import load_checkpoint
from tests.commands.conftest import write_config
from tests.data.trees import jpeg, write_image

SIDE = 16


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of grey, eight training and four test images each, and pairs of them."""
    folder = tmp_path_factory.mktemp("classes")
    chance = np.random.default_rng(0)
    for role, count in {"train": 8, "test": 4}.items():
        for number, name in enumerate(("dark", "grey", "light")):
            for image in range(count):
                grey = int(40 + 80 * number + chance.integers(0, 20))
                write_image(folder / role / name / f"{image}.png", grey, size=(SIDE, SIDE))
    images = [jpeg(grey, (SIDE, SIDE)) for pair in [(40, 45), (40, 220)] * 10 for grey in pair]
    (folder / "pairs.bin").write_bytes(pickle.dumps((images, [True, False] * 10), protocol=2))
    return folder


def recipe(root: Path, output: Path, **sections: object) -> dict[str, object]:
    return {
        "output": str(output),
        "data": {
            "root": str(root),
            "dataset": "class_folders",
            "image_size": [SIDE, SIDE],
            "workers": 0,
            "cache": "device",
            "augment": "cifar",
        },
        "model": {"backbone": "cifar_resnet8", "neck": "none"},
        "sampler": {"kind": "uniform", "batch_size": 8},
        "optim": {"lr": 0.01, "warmup_epochs": 0},
        "train": {"epochs": 1, "evaluate_every": 1, "device": "cpu"},
        "evaluation": {"task": "classification", "top": [1, 2]},
        **sections,
    }


def test_a_classifier_and_its_student(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = write_config(tmp_path / "teacher.yaml", recipe(root, tmp_path / "runs" / "teacher"))
    assert main(["train", str(teacher)]) == 0
    last = tmp_path / "runs" / "teacher" / "last.pt"
    objective = {"alpha": 0.5, "beta": 1.0, "correlate": "logits"}
    sections = {"teacher": {"checkpoint": str(last), "allow_weak": True}, "objective": objective}
    student = write_config(tmp_path / "student.yaml", recipe(root, tmp_path / "runs" / "student", **sections))
    assert main(["train", str(student)]) == 0
    report = json.loads((tmp_path / "runs" / "student" / "report.json").read_text())
    assert report["main"] == "top1"
    assert 0 <= report["scores"]["top1"] <= report["scores"]["top2"] <= 1
    assert report["protocol"] == {"task": "classification", "role": "test", "images": 12, "flip": False}
    assert (tmp_path / "runs" / "student" / "curves.png").exists()
    whole = sum(parameter.numel() for parameter in reid_cckd.load_network(last).network.parameters())
    assert (report["cost"]["answer"], report["cost"]["parameters"]) == ("logits", whole)
    assert main(["export", str(last), "--output", str(tmp_path / "file.pt2")]) == 0
    assert "to (N, 3) class scores" in capsys.readouterr().out
    assert main(["export", str(last), "--output", str(tmp_path / "flip.pt2"), "--flip"]) == 2
    assert "--answer neck" in capsys.readouterr().err
    assert main(["test", str(last), "--output", str(tmp_path / "again")]) == 0
    again = json.loads((tmp_path / "again" / "report.json").read_text())
    assert again["scores"] == json.loads((last.parent / "report.json").read_text())["scores"]
    assert main(["test", str(last), "--rerank"]) == 2
    assert "--rerank is of retrieval" in capsys.readouterr().err
    folders = [str(tmp_path / "runs" / name) for name in ("teacher", "student")]
    assert main(["figures", *folders, "--output", str(tmp_path / "figures")]) == 0
    assert len(list((tmp_path / "figures").glob("*.png"))) == 4
    assert main(["runs", str(tmp_path / "runs")]) == 0
    assert "top-1" in capsys.readouterr().out


def test_a_published_classifier_teaches_without_having_been_trained_here(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("cifar_resnet8", num_classes=3).state_dict(), weights)
    published = {"backbone": "cifar_resnet8", "pretrained": str(weights), "options": {"num_classes": 3}}
    sections = {"teacher": {**published, "allow_weak": True}, "objective": {"alpha": 0.5, "beta": 1.0}}
    config = write_config(tmp_path / "run.yaml", recipe(root, tmp_path / "run", **sections))
    assert main(["train", str(config)]) == 0
    assert "teacher cifar_resnet8: top1" in capsys.readouterr().out
    assert main(["train", str(config), f"output={tmp_path / 'x'}", "teacher.options.num_classes=4"]) == 2
    assert "is not a cifar_resnet8" in capsys.readouterr().err
    assert main(["train", str(config), f"output={tmp_path / 'x'}", "teacher.checkpoint=last.pt"]) == 2
    assert "either the checkpoint of a run, or the backbone" in capsys.readouterr().err


def test_faces_learn_by_a_margin_softmax_alone(root: Path, tmp_path: Path) -> None:
    pairs = {"task": "verification", "pairs": {"lfw": str(root / "pairs.bin")}}
    arc = {"name": "arc", "loss": "partial_margin", "on": "neck", "options": {"share": 0.7}}
    sections = {"objective": {"cross_entropy": False, "terms": [arc]}, "evaluation": pairs}
    config = write_config(tmp_path / "run.yaml", recipe(root, tmp_path / "run", **sections))
    assert main(["train", str(config)]) == 0
    content = load_checkpoint(tmp_path / "run" / "last.pt")
    assert not [name for name in content["model"] if name.startswith("head")]
    assert content["objective"]["modules_by_name.arc.step"] == 3
    assert main(["test", str(tmp_path / "run" / "last.pt")]) == 0


def test_faces_are_judged_by_their_pairs(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = {"task": "verification", "pairs": {"lfw": str(root / "pairs.bin")}}
    model = {"backbone": "mobilefacenet", "pooling": "gdc", "embedding": 8}
    config = write_config(tmp_path / "run.yaml", recipe(root, tmp_path / "run", model=model, evaluation=pairs))
    assert main(["train", str(config), "data.image_size=[32,32]"]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["scores"]["accuracy"] == report["scores"]["lfw"] >= 0.5
    assert report["cost"]["answer"] == "neck"
    assert report["details"]["lfw"]["num_same"] == 10
    assert "lfw tar" in capsys.readouterr().out


def test_images_that_search_each_other_are_reported_one_by_one(root: Path, tmp_path: Path) -> None:
    values = recipe(root, tmp_path / "run", evaluation={"task": "recall", "ranks": [1, 2], "flip": False})
    assert main(["train", str(write_config(tmp_path / "run.yaml", values))]) == 0
    assert main(["test", str(tmp_path / "run"), "--output", str(tmp_path / "again")]) == 0
    for folder in (tmp_path / "run", tmp_path / "again"):
        scores = json.loads((folder / "report.json").read_text())["scores"]
        with (folder / "queries.csv").open(newline="") as file:
            queries = list(csv.DictReader(file))
        assert [Path(row["path"]).parts[:2] for row in queries[:4]] == [("test", "dark")] * 4
        assert scores["map_at_r"] == pytest.approx(np.mean([float(row["ap_at_r"]) for row in queries]))
        assert scores["recall@2"] == np.mean([int(row["first_rank"]) <= 2 for row in queries])


@pytest.fixture(scope="module")
def listed(root: Path) -> Path:
    """The training images alone, in a list."""
    lines = [f"{path.relative_to(root)} {['dark', 'grey', 'light'].index(path.parent.name)}" for path in _images(root)]
    (root / "list.txt").write_text("\n".join(lines) + "\n")
    return root / "list.txt"


def _images(root: Path) -> list[Path]:
    return sorted((root / "train").rglob("*.png"))


def unscored(listed: Path, output: Path, **sections: object) -> str:
    values = recipe(listed, output, evaluation={"task": "none"}, **sections)
    values["data"] |= {"dataset": "image_list"}  # type: ignore[operator]
    values["train"] = {"epochs": 2, "evaluate_every": 1, "device": "cpu"}
    return str(write_config(output.with_suffix(".yaml"), values))


def test_training_images_alone_are_enough_to_train_and_distil(
    listed: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    assert main(["train", unscored(listed, teacher)]) == 0
    sections = {"teacher": {"checkpoint": str(teacher)}, "objective": {"alpha": 1.0, "beta": 1.0}}
    assert main(["train", unscored(listed, student, **sections)]) == 0
    assert f"teacher {teacher / 'last.pt'}: recall@1 of training images" in capsys.readouterr().out
    left = {path.name for path in student.iterdir()}
    assert {"last.pt", "log.jsonl", "curves.png", "report.json"} <= left
    assert not left & {"best.pt", "queries.csv", "ranks.png", "cmc.png"}
    report = json.loads((student / "report.json").read_text())
    assert (report["scores"], report["protocol"]) == ({}, {"task": "none"})
    assert report["cost"]["macs"] > 0
    assert main(["train", str(student.with_suffix(".yaml")), "--resume"]) == 0
    assert main(["runs", str(tmp_path)]) == 0
    last = capsys.readouterr().out.rpartition("without scores:")[2]
    assert [line.split()[:2] for line in last.splitlines()[3:]] == [[str(it), "finished"] for it in (student, teacher)]
    assert main(["test", str(student)]) == 2
    assert "evaluation.task: none" in capsys.readouterr().err
    other = ["data.dataset=class_folders", f"data.root={root}", "evaluation.task=classification"]
    assert main(["test", str(student), *other]) == 0
    assert main(["figures", str(teacher), str(student), "--output", str(tmp_path / "figures")]) == 2
    assert f"{teacher} has no score" in capsys.readouterr().err


def test_a_teacher_that_guesses_is_found_out_without_a_test_set(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", unscored(listed, tmp_path / "teacher")]) == 0
    objective = {"alpha": 1.0, "beta": 1.0, "cross_entropy": False}
    student = unscored(
        listed, tmp_path / "student", teacher={"checkpoint": str(tmp_path / "teacher")}, objective=objective
    )
    numbers = torch.Generator().manual_seed(0)

    def guess(_self: Extraction, _network: Any, dataset: ImageDataset, *_: Any) -> torch.Tensor:
        return torch.randn(len(dataset), 8, generator=numbers)

    with monkeypatch.context() as patch:
        patch.setattr(Extraction, "rows", guess)
        assert main(["train", student]) == 2
    assert "scores recall@1 of training images" in capsys.readouterr().err
    lines = [f"{path.relative_to(listed.parent)} {number}\n" for number, path in enumerate(_images(listed.parent))]
    listed.with_name("alone.txt").write_text("".join(lines))
    alone = [f"data.root={listed.with_name('alone.txt')}", f"output={tmp_path / 'alone'}"]
    assert main(["train", student, *alone]) == 0
    assert "not judged" in capsys.readouterr().out
