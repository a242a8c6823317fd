"""A study: named configurations, grids over their keys and seeds, in one YAML file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from reid_cckd.config.bind import bind
from reid_cckd.config.overrides import apply_override, place_of
from reid_cckd.config.tree import Fault, read_tree, refuse
from reid_cckd.errors import ConfigError


@dataclass(frozen=True)
class Method:
    """A configuration file, ``set`` and ``grid`` over its dotted keys; the key ``teacher`` names one of `teachers`."""

    config: str
    set: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """What the source of a study found: a sentence, and scores of rows less those of ``against``, as fractions."""

    source: str
    finding: str
    against: str | None = None
    differences: dict[str, dict[str, float]] = field(default_factory=dict)

    def scores(self, metric: str) -> list[str]:
        """Of what it speaks: those of the differences, or where none is known the study's own ``metric``."""
        return list(dict.fromkeys(score for scores in self.differences.values() for score in scores)) or [metric]

    def difference(self, row: str, score: str) -> float | None:
        """A row's score less that of ``against``; None where it is not known."""
        return self.differences.get(row, {}).get(score)


@dataclass(frozen=True)
class Study:
    """Every method at every point of the grids with every seed; ``teachers`` are trained once, before."""

    output: str
    methods: dict[str, str | Method]
    title: str = ""
    runs: str | None = None  # folder of the runs, which studies may share; null: the study's own
    teachers: dict[str, str | Method] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    set: dict[str, Any] = field(default_factory=dict)  # of all runs, teachers too
    grid: dict[str, list[Any]] = field(default_factory=dict)  # of all methods
    baseline: str | None = None  # the row that others are compared with, seed by seed
    metric: str = "mean_ap"  # what is compared
    interval: Literal["t", "bootstrap"] = "t"  # of the mean difference over seeds
    confidence: float = 0.95
    published: Published | None = None
    pictures: tuple[str, ...] = ()  # rows drawn beside the first teacher, of the first seed

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """(key path, what is wrong and what to do)."""
        if not self.methods:
            yield "methods", "names no configuration; expected NAME: FILE.yaml"
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            yield "seeds", f"must be different whole numbers from 0 up, is {list(self.seeds)}"
        if not 0 < self.confidence < 1:
            yield "confidence", f"must lie between 0 and 1, is {self.confidence}"
        yield from _setting_contradictions(self)
        for name, method in self.teachers.items():
            if isinstance(method, Method) and method.grid:
                yield f"teachers.{name}.grid", "a teacher is one run; name each of several on its own"


def _setting_contradictions(study: Study) -> Iterator[tuple[str, str]]:
    places: dict[str, Study | Method] = {"": study}
    for section in ("methods", "teachers"):
        for name, method in getattr(study, section).items():
            if isinstance(method, Method):
                places[f"{section}.{name}."] = method
    for place, part in places.items():
        for key in ("output", "seed"):
            if key in part.set or key in part.grid:
                yield (
                    f"{place}{'set' if key in part.set else 'grid'}",
                    f"{key} differs by run: the study's own output and seeds say it",
                )
        for key, values in part.grid.items():
            if not values:
                yield f"{place}grid", f"{key} has no values"
        for key in part.set.keys() & part.grid.keys():
            yield f"{place}grid", f"{key} is in set as well; keep one"


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Study, tuple[str, ...]]:
    """Read a study; of ``key=value`` overrides, those of its own keys are for it, the others are returned for all runs.

    Raises:
        ConfigError: names every unknown, duplicate, missing, mistyped and contradictory key at once.
    """
    faults: list[Fault] = []
    tree = read_tree(Path(path), faults)
    if isinstance(tree.value, dict) and "model" in tree.value:
        raise ConfigError(f"{path} describes one run, not a study: give it to reid-cckd train.")
    own = [one for one in overrides if _first_key(one) in {key.name for key in fields(Study)}]
    for override in own:
        apply_override(tree, override, faults)
    study = bind(tree, Study, "", faults)
    if isinstance(study, Study):
        faults.extend(Fault(place_of(tree, key, str(path)), key, text) for key, text in study.contradictions())
    refuse(str(path), faults)
    assert isinstance(study, Study)
    return study, tuple(one for one in overrides if one not in own)


def _first_key(override: str) -> str:
    return override.partition("=")[0].split(".")[0]
