"""From a study to its runs: each with its row of the table, its seed, its folder and its checked configuration."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reid_cckd.config import Config, load_config
from reid_cckd.config.study import Method, Study
from reid_cckd.config.tree import Fault, hint, refuse
from reid_cckd.errors import ConfigError

TEACHERS = "teachers"  # the folder of the runs that others need


@dataclass(frozen=True)
class StudyRun:
    """One training. ``row``: what it is averaged with; ``needs``: the run of its teacher, where the study trains it."""

    row: str
    config: Config
    is_teacher: bool = False
    needs: StudyRun | None = None

    @property
    def folder(self) -> Path:
        """Where it leaves everything."""
        return Path(self.config.output)

    def __str__(self) -> str:
        return f"teacher {self.row}" if self.is_teacher else f"{self.row}, seed {self.config.seed}"


@dataclass(frozen=True)
class _Row:
    name: str
    file: Path
    settings: dict[str, Any]
    folder: Path
    is_teacher: bool = False


def expand_study(study: Study, source: Path, overrides: Sequence[str] = ()) -> list[StudyRun]:
    """All runs: teachers first, then seed by seed, so that a table fills evenly.

    ``source``: the study's file; the files it names are found from the working folder or beside it. ``overrides``:
    ``key=value`` that wins over everything the study says.

    Raises:
        ConfigError: lists the faults of the study and of every configuration in it at once.
    """
    teachers, students = _teacher_rows(study, source), _method_rows(study, source)
    faults = [Fault(str(source), *one) for one in _contradictions(study, teachers, students, overrides)]
    refuse(str(source), faults)
    problems: list[str] = []
    trained: dict[str, StudyRun] = {}
    for row in teachers:
        trained |= {run.row: run for run in _load(row, trained, source, overrides, problems)}
    runs = [run for row in students for run in _load(row, trained, source, overrides, problems)]
    problems += [_unscored(source, run) for run in (*trained.values(), *runs) if not run.config.evaluation.is_scored]
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return [*trained.values(), *(_with_seed(run, seed) for seed in study.seeds for run in runs)]


def _teacher_rows(study: Study, source: Path) -> list[_Row]:
    methods = {name: _method(entry) for name, entry in study.teachers.items()}
    folder = _runs(study) / TEACHERS
    return [
        _Row(name, _find(method.config, source), {**study.set, **method.set}, folder / _slug(name), True)
        for name, method in methods.items()
    ]


def _method_rows(study: Study, source: Path) -> list[_Row]:
    rows = []
    for name, entry in study.methods.items():
        method = _method(entry)
        grid = {**study.grid, **method.grid}
        short = _short_names(grid)
        for values in itertools.product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            label = " ".join([name, *(f"{short[key]}={_shown(value)}" for key, value in point.items())])
            settings = {**study.set, **method.set, **point}
            rows.append(_Row(label, _find(method.config, source), settings, _runs(study) / _slug(label)))
    return rows


def _runs(study: Study) -> Path:
    return Path(study.runs or study.output)


def _method(entry: str | Method) -> Method:
    return entry if isinstance(entry, Method) else Method(entry)


def _find(file: str, source: Path) -> Path:
    beside = source.parent / file
    return beside if beside.is_file() and not Path(file).is_file() else Path(file)


def _short_names(grid: Mapping[str, Any]) -> dict[str, str]:
    """The last word of each key where it tells the keys apart."""
    last = [key.rpartition(".")[2] for key in grid]
    return {key: word if last.count(word) == 1 else key for key, word in zip(grid, last, strict=True)}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _slug(name: str) -> str:
    return re.sub(r"[^\w.=+-]+", "_", name).strip("_")


def _contradictions(
    study: Study, teachers: Sequence[_Row], students: Sequence[_Row], overrides: Sequence[str]
) -> Iterator[tuple[str, str]]:
    names = [row.name for row in students]
    taken: dict[Path, str] = {_runs(study) / TEACHERS: TEACHERS}
    for row in [*teachers, *students]:
        if row.folder in taken:
            yield "methods", f"{row.name!r} and {taken[row.folder]!r} would share the folder {row.folder}; rename one"
        taken[row.folder] = row.name
    if study.baseline is not None and study.baseline not in names:
        yield "baseline", f"there is no row {study.baseline!r}.{hint(study.baseline, names)}"
    for name in study.pictures:
        if name not in names:
            yield "pictures", f"there is no row {name!r}.{hint(name, names)}"
    given = {override.partition("=")[0] for override in overrides}
    over = set(study.grid).union(*(_method(entry).grid for entry in study.methods.values()))
    for key in sorted(given & over):
        yield "grid", f"the command line gives {key}, which the grid is over; change the grid instead"
    if "seed" in given:
        yield "seeds", "seed=... is of a single run; give seeds=[...]"


def _load(
    row: _Row, trained: Mapping[str, StudyRun], source: Path, overrides: Sequence[str], problems: list[str]
) -> list[StudyRun]:
    """The row's run with its configuration's own seed, or none after adding what is wrong to ``problems``."""
    settings = {**row.settings, "output": str(row.folder)}
    try:
        needs = _teacher_of(row, settings, trained, source)
        if needs is not None:
            settings["teacher.checkpoint"] = str(needs.folder / "last.pt")
        written = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        config = load_config(row.file, [*written, *overrides], f"{source}, {row.name}")
        return [StudyRun(row.name, config, row.is_teacher, needs)]
    except ConfigError as error:
        problems.append(str(error))
        return []


def _unscored(source: Path, run: StudyRun) -> str:
    return (
        f"{source}, {run.row}: evaluation.task: none leaves no scores, and a study compares scores. Set the task of a "
        f"test set, or train it by itself: reid-cckd train."
    )


def _teacher_of(row: _Row, settings: dict[str, Any], trained: Mapping[str, StudyRun], source: Path) -> StudyRun | None:
    """The teacher that the settings name, or the only one there is for a configuration that takes a teacher."""
    if "teacher" in settings:
        name = settings.pop("teacher")
        if name not in trained:
            raise ConfigError(
                f"{source}: {row.name}: teacher: no teacher {name!r} before it.{hint(str(name), trained)}"
            )
        return trained[name]
    if not trained or "teacher.checkpoint" in settings or load_config(row.file).teacher is None:
        return None
    if len(trained) > 1:
        known = ", ".join(trained)
        raise ConfigError(f"{source}: {row.name}: which teacher? Add `set: {{teacher: NAME}}`, one of {known}.")
    return next(iter(trained.values()))


def _with_seed(run: StudyRun, seed: int) -> StudyRun:
    return replace(run, config=replace(run.config, seed=seed, output=str(run.folder / f"seed{seed}")))
