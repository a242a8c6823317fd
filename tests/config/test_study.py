"""A study file: what it expands to, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from reid_cckd.config.expansion import StudyRun, expand_study
from reid_cckd.config.study import load_study
from reid_cckd.errors import ConfigError

BASE = {"output": "x", "data": {"root": "d"}, "model": {"backbone": "resnet10t"}}
STUDENT = {**BASE, "teacher": {"checkpoint": "elsewhere.pt"}, "objective": {"beta": 1.0}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, values in {"base": BASE, "student": STUDENT}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def expand(folder: Path, *overrides: str, **study: Any) -> list[StudyRun]:
    values = {"output": "out", "methods": {"base": "base.yaml"}, "seeds": [0, 7], **study}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return expand_study(*_with_source(path, overrides))


def _with_source(path: Path, overrides: tuple[str, ...]) -> tuple[Any, Path, tuple[str, ...]]:
    study, rest = load_study(path, overrides)
    return study, path, rest


def test_methods_grids_and_seeds_multiply_and_each_run_has_its_folder(folder: Path) -> None:
    grid = {"objective.beta": [1, 1e-5], "model.pooling": ["gap", "gem"]}
    runs = expand(folder, methods={"plain": "base.yaml", "cc": {"config": "student.yaml", "grid": grid}})
    assert len(runs) == 2 * (1 + 4)
    assert len({run.folder for run in runs}) == 10
    assert [(run.row, run.config.seed) for run in runs[:2]] == [("plain", 0), ("cc beta=1 pooling=gap", 0)]
    assert runs[5].folder == Path("out/plain/seed7")
    last = runs[-1]
    assert (last.config.objective.beta, last.config.model.pooling, last.config.seed) == (1e-5, "gem", 7)
    assert last.folder == Path("out/cc_beta=1e-05_pooling=gem/seed7")


def test_the_nearer_setting_wins_and_the_command_line_over_all(folder: Path) -> None:
    method = {"config": "base.yaml", "set": {"optim.lr": 2.0, "train.epochs": 2}}
    common = {"optim.lr": 1.0, "train.epochs": 1, "optim.weight_decay": 1.0}
    (run,) = expand(folder, "train.epochs=3", "seeds=[4]", methods={"a": method}, set=common)
    assert (run.config.optim.weight_decay, run.config.optim.lr, run.config.train.epochs) == (1.0, 2.0, 3)
    assert run.config.seed == 4


def test_the_only_teacher_is_that_of_every_configuration_with_one(folder: Path) -> None:
    methods = {"base": "base.yaml", "kd": "student.yaml"}
    teacher, base, kd = expand(folder, methods=methods, teachers={"big": "base.yaml"}, seeds=[1])
    assert (teacher.is_teacher, str(teacher.folder)) == (True, "out/teachers/big")
    assert base.needs is None
    assert kd.needs is not None
    assert kd.needs.folder == teacher.folder
    assert kd.config.teacher is not None
    assert kd.config.teacher.checkpoint == "out/teachers/big/last.pt"


def test_teachers_can_be_a_grid_and_a_chain(folder: Path) -> None:
    teachers = {"big": "base.yaml", "assistant": {"config": "student.yaml", "set": {"teacher": "big"}}}
    methods = {"kd": {"config": "student.yaml", "grid": {"teacher": ["big", "assistant"]}}}
    runs = expand(folder, methods=methods, teachers=teachers, seeds=[0])
    assert [run.row for run in runs] == ["big", "assistant", "kd teacher=big", "kd teacher=assistant"]
    assert [run.needs and run.needs.row for run in runs] == [None, "big", "big", "assistant"]


def test_a_teacher_from_elsewhere_stays(folder: Path) -> None:
    (kept,) = expand(folder, methods={"kd": "student.yaml"}, seeds=[0])
    assert kept.config.teacher is not None
    assert kept.config.teacher.checkpoint == "elsewhere.pt"


@pytest.mark.parametrize(
    ("study", "words"),
    [
        ({"methods": {}}, ["methods", "names no configuration"]),
        ({"methods": {"a": "base.yaml", "b": "bse.yaml"}}, ["bse.yaml"]),
        ({"methods": {"a": {"confg": "base.yaml"}}}, ["confg", "'config'", "missing"]),
        ({"methods": {"a b": "base.yaml", "a_b": "base.yaml"}}, ["'a_b' and 'a b'", "out/a_b"]),
        ({"methods": {"teachers": "base.yaml"}}, ["share the folder out/teachers"]),
        ({"sets": {}}, ["sets", "'set'"]),
        ({"set": {"optim.lrr": 1}}, ["optim.lrr", "'lr'", "study.yaml, base"]),
        ({"set": {"optim.lr": -1, "data.workers": -1}}, ["optim.lr", "data.workers", "2 faults"]),
        ({"set": {"seed": 1}}, ["set", "the study's own output and seeds"]),
        ({"grid": {"optim.lr": []}}, ["grid", "optim.lr has no values"]),
        ({"grid": {"optim.lr": 3}}, ["grid.optim.lr", "a list"]),
        ({"grid": {"optim.lr": [1]}, "set": {"optim.lr": 2}}, ["optim.lr is in set as well"]),
        ({"grid": {"objective.beta": [0, 1]}}, ["needs `teacher:`"]),
        ({"seeds": [1, 1]}, ["seeds", "different"]),
        ({"seeds": []}, ["seeds"]),
        ({"confidence": 95}, ["confidence", "between 0 and 1"]),
        ({"interval": "normal"}, ["interval", "t, bootstrap"]),
        ({"baseline": "bas"}, ["'bas'", "Did you mean 'base'?"]),
        ({"teachers": {"t": {"config": "base.yaml", "grid": {"optim.lr": [1]}}}}, ["teachers.t.grid"]),
        (
            {"teachers": {"t": "base.yaml", "u": "base.yaml"}, "methods": {"kd": "student.yaml"}},
            ["which teacher", "t, u"],
        ),
        ({"methods": {"kd": {"config": "student.yaml", "set": {"teacher": "tt"}}}}, ["no teacher 'tt'"]),
    ],
)
def test_a_mistake_is_named(folder: Path, study: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        expand(folder, **study)
    assert all(word in str(error.value) for word in words), error.value


def test_the_command_line_may_not_undo_a_grid_or_name_one_seed(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)optim.lr, which the grid is over.*seeds="):
        expand(folder, "optim.lr=1", "seed=3", grid={"optim.lr": [1, 2]})
