"""Teachers whose answers are kept: the same training at the student's own cost, and never another's answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from reid_cckd.batch import Batch, Output
from reid_cckd.build import read_manifest
from reid_cckd.build import trainer as build_trainer_module
from reid_cckd.commands.train import main as train_main
from reid_cckd.config import load_config
from reid_cckd.data import ImageDataset
from reid_cckd.engine import CachedTeacher, OnlineTeacher, TeacherCache, load_checkpoint
from reid_cckd.models import Teacher
from tests.commands.conftest import recipe, write_config

OBJECTIVE = {"alpha": 0.5, "beta": 10.0, "terms": [{"name": "mimic", "loss": "cosine_mimic", "on": "embedding"}]}


def configure(root: Path, teacher: Path, folder: Path, **keys: object) -> Path:
    settings = {
        "checkpoint": str(teacher),
        "allow_weak": True,
        "cache": str(folder / "answers"),
        "cache_dtype": "float32",
        **keys,
    }
    values = recipe(root, folder / "run", objective=OBJECTIVE, teacher=settings, train={"epochs": 3})
    return write_config(folder / "run.yaml", values)


def let_teachers_say(
    monkeypatch: pytest.MonkeyPatch, stage: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Other rows than they know, at one stage of their output."""
    knows = Teacher.forward

    def says(self: Teacher, images: torch.Tensor) -> Output:
        answer = knows(self, images)
        rows = getattr(answer, stage)
        assert rows is not None
        return answer._replace(**{stage: change(rows)})

    monkeypatch.setattr(Teacher, "forward", says)


def losses(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row["balance"] for row in rows if "balance" in row]


def test_views_are_what_the_student_sees(
    pedestrians: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(pedestrians, teacher, tmp_path, mode="views", views=2)
    asked: list[int] = []
    look_up = CachedTeacher.__call__

    def spy(self: CachedTeacher, batch: Any, images: torch.Tensor, epoch: int) -> Any:
        asked.append(epoch)
        return look_up(self, batch, images, epoch)

    monkeypatch.setattr(CachedTeacher, "__call__", spy)
    assert train_main([str(config)]) == 0
    assert asked == [0] * 6 + [1] * 6 + [2] * 6

    def ask_the_network(settings: Any, loaded: Any, network: Any, *_: Any) -> OnlineTeacher:
        return OnlineTeacher(network, build_trainer_module.precision(settings, torch.device("cpu")))

    monkeypatch.setattr(build_trainer_module, "build_teacher", ask_the_network)
    assert train_main([str(config), f"output={tmp_path / 'online'}"]) == 0
    cached, online = losses(tmp_path / "run"), losses(tmp_path / "online")
    assert len(cached) == 3
    for one, other in zip(cached, online, strict=True):
        for name in ("ce", "kd", "cc", "mimic"):
            assert one[name]["value"] == pytest.approx(other[name]["value"], rel=1e-3)


@pytest.mark.parametrize("mode", ["clean", "views"])
def test_answers_kept_are_those_to_the_images_that_the_device_draws(
    pedestrians: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    networks, repeated, epochs = list[Teacher](), list[int](), set[int]()
    look_up, build_teacher = CachedTeacher.__call__, build_trainer_module.build_teacher

    def with_network(settings: Any, loaded: Any, network: Teacher, *rest: Any) -> Any:
        networks.append(network)
        return build_teacher(settings, loaded, network, *rest)

    def compared(self: CachedTeacher, batch: Batch, images: torch.Tensor, epoch: int) -> Output:
        assert batch.repeat is not None
        kept = look_up(self, batch, images, epoch)
        pixels = images if mode == "views" else plain[batch.index]
        with torch.no_grad():
            asked = networks[0](pixels)
        for one, other in zip(kept[:3], asked[:3], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        repeated.append(int(batch.repeat.max()))
        epochs.add(epoch)
        return kept

    config = configure(pedestrians, teacher, tmp_path, mode=mode, views=3)
    images = read_manifest(load_config(config).data).select("train")
    plain = ImageDataset(images, images.labels, (32, 16), cache="memory").decoded.permute(0, 3, 1, 2)
    monkeypatch.setattr(build_trainer_module, "build_teacher", with_network)
    monkeypatch.setattr(CachedTeacher, "__call__", compared)
    monkeypatch.delattr(TeacherCache, "look_up")
    arguments = ["data.cache=device", "train.epochs=4", "sampler.samples_per_class=10"]  # of eight images
    assert train_main([str(config), *arguments]) == 0
    assert epochs == {0, 1, 2, 3}
    assert min(repeated) == 1


def test_views_that_the_device_draws_are_kept_apart(
    pedestrians: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(pedestrians, teacher, tmp_path, mode="views", views=2)
    assert train_main([str(config), "train.epochs=1"]) == 0
    arguments = ["train.epochs=1", "data.cache=device", f"output={tmp_path / 'other'}"]
    assert train_main([str(config), *arguments]) == 2
    assert "drawn_on: None, and this run's is 'cpu'" in capsys.readouterr().err
    cache = json.loads((tmp_path / "answers" / "cache.json").read_text())
    assert "drawn_on" not in cache["facts"]  # what was kept before there was this stays valid


def test_a_clean_cache_is_built_once_and_shared(
    pedestrians: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(pedestrians, teacher, tmp_path, mode="clean", cache=None, cache_dtype="float16")
    assert train_main([str(config), "train.epochs=1"]) == 0
    assert "The teacher answers for 96 images x 1" in capsys.readouterr().out
    assert train_main([str(config), "train.epochs=1", "seed=4", f"output={tmp_path / 'other'}"]) == 0
    assert "The teacher answers" not in capsys.readouterr().out
    assert len(list((teacher.parent / "answers").iterdir())) == 1


def test_a_run_is_the_same_whether_its_answers_were_there_or_not(
    pedestrians: Path, teacher: Path, tmp_path: Path
) -> None:
    config = configure(pedestrians, teacher, tmp_path, mode="clean")
    draws = "objective.terms=[{name: crd, loss: crd, options: {negatives: 8}}]"
    for name in ("first", "second"):
        assert train_main([str(config), "train.epochs=1", draws, f"output={tmp_path / name}"]) == 0
    first, second = (load_checkpoint(tmp_path / name / "last.pt")["model"] for name in ("first", "second"))
    assert all(torch.equal(second[name], value) for name, value in first.items())


def test_a_cache_of_another_teacher_is_refused(
    pedestrians: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(pedestrians, teacher, tmp_path, mode="clean")
    assert train_main([str(config), "train.epochs=1"]) == 0
    content = load_checkpoint(teacher)
    torch.save({**content, "scores": {}}, tmp_path / "other.pt")
    arguments = [f"teacher.checkpoint={tmp_path / 'other.pt'}", f"output={tmp_path / 'second'}"]
    assert train_main([str(config), *arguments]) == 2
    assert "is a cache of another teacher" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["objective.terms=[{name: at, loss: attention, on: feature_map}]"], ["objective.terms.0.on", "online"]),
        (["objective.terms=[{name: at, loss: attention}]"], ["objective.terms.0", "feature_map"]),
        (["data.augment=none"], ["teacher.mode", "clean"]),
        (["teacher.views=0"], ["teacher.views", "at least 1"]),
        (["teacher.mode=viewed"], ["teacher.mode", "views"]),
    ],
)
def test_what_a_cache_cannot_do_is_said_before_anything_starts(
    pedestrians: Path, teacher: Path, tmp_path: Path, overrides: list[str], words: list[str], capsys: Any
) -> None:
    config = configure(pedestrians, teacher, tmp_path, mode="views")
    assert train_main([str(config), *overrides]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert not (tmp_path / "answers").exists()


def test_a_head_that_guesses_is_refused_where_its_scores_are_asked_for(
    pedestrians: Path,
    teacher: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = configure(pedestrians, teacher, tmp_path, mode="online", allow_weak=False)
    let_teachers_say(monkeypatch, "logits", torch.zeros_like)
    assert train_main([str(config), "train.epochs=1"]) == 2
    message = capsys.readouterr().err
    assert "training images right, no more than a network that guesses" in message
    assert "under the same ids" in message
    assert train_main([str(config), "train.epochs=1", "objective.alpha=1"]) == 0  # by its embeddings


def test_a_teacher_at_chance_is_refused_unless_told(
    pedestrians: Path,
    teacher: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = configure(pedestrians, teacher, tmp_path, mode="clean", allow_weak=False)
    distil = [str(config), "train.epochs=1", "objective.alpha=1"]  # whose head is not looked at
    let_teachers_say(monkeypatch, "neck", torch.randn_like)
    assert train_main(distil) == 2
    message = capsys.readouterr().err
    assert "networks that guess" in message
    assert "teacher.allow_weak" in message
    assert train_main([*distil, "teacher.allow_weak=true"]) == 0
    monkeypatch.undo()
    assert train_main([*distil, f"output={tmp_path / 'good'}", f"teacher.checkpoint={teacher.parent}"]) == 0
    written = load_config(tmp_path / "good" / "config.yaml").teacher
    assert written is not None
    assert written.checkpoint == str(teacher)  # the folder of a run stands for its last.pt


def test_a_teacher_of_another_program_teaches_without_a_head(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = timm.create_model("resnet10t", num_classes=0, channels=(8, 8, 8, 8), stem_width=8).state_dict()
    torch.save({"model": {f"backbone.{name}": value for name, value in tensors.items()}}, tmp_path / "reid.pth")
    config = configure(pedestrians, tmp_path / "reid.pth", tmp_path, mode="clean")
    assert train_main([str(config)]) == 2
    assert "teacher.pretrained with its teacher.backbone instead" in capsys.readouterr().err
    options = "teacher.options={num_classes: 0, channels: [8, 8, 8, 8], stem_width: 8}"
    file = f"teacher.pretrained={tmp_path / 'reid.pth'}"
    named = [
        "teacher.checkpoint=null",
        "teacher.backbone=resnet10t",
        file,
        options,
        "objective.alpha=1",
        "objective.terms=[]",
    ]
    assert train_main([str(config), *named]) == 0
