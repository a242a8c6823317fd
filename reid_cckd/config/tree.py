"""YAML as a tree that remembers where every key stood, so that an error can name file, line and key."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reid_cckd.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a configuration: where, at which key, what."""

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.key}: {self.message}" if self.key else f"{self.where}: {self.message}"


@dataclass
class Node:
    """A value (scalar, list of Nodes, or dict of Nodes) and the place it came from."""

    value: Any
    where: str


class _Loader(yaml.SafeLoader):
    """Safe YAML whose floats include 1e-3, and whose booleans are true and false alone: `on` is a key here."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as declared by PyYAML)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def read_tree(path: Path, faults: list[Fault]) -> Node:
    """Parse a file; duplicate keys become faults.

    Raises:
        ConfigError: the file is missing or is not YAML: nothing more can be said about it then.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration {path}: {error.strerror}.{_near(path)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text file in UTF-8; expected a YAML configuration.") from error
    return parse_tree(text, str(path), faults)


def parse_tree(text: str, where: str, faults: list[Fault]) -> Node:
    """Parse YAML text; ``where`` names its source in messages."""
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        return Node({}, where) if root is None else _convert(loader, root, where, "", faults)
    except yaml.MarkedYAMLError as error:
        place = f"{where}:{error.problem_mark.line + 1}" if error.problem_mark else where
        reason = ": ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{place} is not valid YAML: {reason}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # such as the date 2001-99-99, or *a inside &a
        raise ConfigError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error


def _convert(loader: _Loader, node: yaml.Node, source: str, key: str, faults: list[Fault]) -> Node:
    where = _place(source, node)
    if isinstance(node, yaml.MappingNode):
        return Node(_mapping(loader, node, source, key, faults), where)
    if isinstance(node, yaml.SequenceNode):
        items = enumerate(node.value)
        return Node([_convert(loader, item, source, join(key, str(i)), faults) for i, item in items], where)
    return Node(loader.construct_object(node, deep=True), where)


def _mapping(loader: _Loader, node: yaml.MappingNode, source: str, key: str, faults: list[Fault]) -> dict[str, Node]:
    loader.flatten_mapping(node)
    children: dict[str, Node] = {}
    for key_node, value_node in node.value:
        name = str(loader.construct_object(key_node, deep=True))
        if name in children:
            faults.append(
                Fault(
                    _place(source, key_node),
                    join(key, name),
                    f"duplicate key, first written at {children[name].where}; keep one",
                )
            )
            continue
        children[name] = _convert(loader, value_node, source, join(key, name), faults)
    return children


def _place(source: str, node: yaml.Node) -> str:
    return f"{source}:{node.start_mark.line + 1}" if source.endswith((".yaml", ".yml")) else source


def plain(node: Node) -> Any:
    """The tree without its places."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def refuse(source: str, faults: Sequence[Fault]) -> None:
    """Raise one error that lists every fault of a file, if there is any.

    Raises:
        ConfigError: there is.
    """
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise ConfigError("\n".join([f"{source}: {count} in the configuration", *(f"  {one}" for one in faults)]))


def join(prefix: str, name: str) -> str:
    """`a.b` from `a` and `b`."""
    return f"{prefix}.{name}" if prefix else name


def hint(word: str, known: Iterable[str]) -> str:
    """The name that was probably meant, or the names there are when they are few."""
    names = sorted(known)
    listing = f" Known: {', '.join(names)}." if 0 < len(names) <= 16 else ""
    return did_you_mean(word, names) or listing


def is_finite_number(value: Any) -> bool:
    """A real number, not a bool, not NaN and not infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _near(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        return f" The folder {folder} does not exist."
    names = sorted(entry.name for entry in folder.iterdir() if entry.suffix in {".yaml", ".yml"})
    if meant := did_you_mean(path.name, names):
        return meant
    return f" YAML files there: {', '.join(names[:10])}." if names else f" No YAML file is in {folder.resolve()}."
