"""YAML to a frozen `Config`; every fault of a file in one `ConfigError`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from reid_cckd.config.bind import bind
from reid_cckd.config.contradictions import contradictions
from reid_cckd.config.overrides import apply_override, place_of
from reid_cckd.config.schema import (
    Config,
    Correlation,
    Data,
    Evaluation,
    Kernel,
    Model,
    Objective,
    Optim,
    Ramp,
    Sampler,
    Stage,
    Teacher,
    Term,
    Train,
)
from reid_cckd.config.tree import Fault, Node, hint, parse_tree, read_tree, refuse
from reid_cckd.errors import ConfigError

__all__ = [
    "Config",
    "Correlation",
    "Data",
    "Evaluation",
    "Kernel",
    "Model",
    "Objective",
    "Optim",
    "Ramp",
    "Sampler",
    "Stage",
    "Teacher",
    "Term",
    "Train",
    "config_from_dict",
    "dump_config",
    "hint",
    "load_config",
    "to_dict",
]


def load_config(path: str | Path, overrides: Sequence[str] = (), source: str = "command line") -> Config:
    """Read a YAML file, then apply ``key.path=value`` overrides, whose values are YAML too, and come from ``source``.

    Raises:
        ConfigError: names every unknown, duplicate, missing, mistyped and contradictory key at once.
    """
    faults: list[Fault] = []
    tree = read_tree(Path(path), faults)
    if isinstance(tree.value, dict) and "methods" in tree.value:
        raise ConfigError(f"{path} is a study of several runs: give it to reid-cckd sweep.")
    for override in overrides:
        apply_override(tree, override, faults, source)
    return _finish(tree, str(path), faults)


def config_from_dict(values: Mapping[str, Any], where: str, overrides: Sequence[str] = ()) -> Config:
    """A Config from plain values, such as a checkpoint carries; ``where`` names them in messages."""
    faults: list[Fault] = []
    tree = parse_tree(yaml.safe_dump(dict(values)), where, faults)
    for override in overrides:
        apply_override(tree, override, faults)
    return _finish(tree, where, faults)


def to_dict(config: Config) -> dict[str, Any]:
    """Plain values that YAML, JSON and a safe checkpoint can carry."""
    plain: dict[str, Any] = _without_tuples(dataclasses.asdict(config))
    return plain


def dump_config(config: Config) -> str:
    """The effective configuration, defaults included, as YAML that loads to the same Config."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def _without_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_tuples(item) for key, item in value.items()}
    return [_without_tuples(item) for item in value] if isinstance(value, list | tuple) else value


def _finish(tree: Node, source: str, faults: list[Fault]) -> Config:
    config = bind(tree, Config, "", faults)
    if isinstance(config, Config):
        faults.extend(Fault(place_of(tree, key, source), key, message) for key, message in contradictions(config))
    refuse(source, faults)
    assert isinstance(config, Config)
    return config
