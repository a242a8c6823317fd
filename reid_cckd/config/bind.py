"""From a tree of values to frozen dataclasses, by their type annotations; every misfit becomes a fault."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal, Union

from reid_cckd.config.tree import Fault, Node, hint, is_finite_number, join, plain
from reid_cckd.errors import did_you_mean

_MISFIT = object()  # stands in for a value that could not be bound; its fault is recorded


def bind(node: Node, kind: Any, key: str, faults: list[Fault]) -> Any:
    """The value of ``node`` as type ``kind``, or a placeholder after recording why it does not fit."""
    if dataclasses.is_dataclass(kind):
        return _bind_section(node, kind, key, faults)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _bind_union(node, arguments, kind, key, faults)
    if origin is Literal:
        return _bind_literal(node, arguments, key, faults)
    if origin is tuple:
        return _bind_tuple(node, arguments, key, faults)
    if origin is dict and arguments[1] is not Any:
        return _bind_named(node, arguments[1], key, faults)
    return _bind_plain(node, kind, key, faults)


def _bind_section(node: Node, kind: Any, key: str, faults: list[Fault]) -> Any:
    if not isinstance(node.value, dict):
        return _misfit(node, key, f"expected a section with keys ({', '.join(_fields(kind))})", faults)
    kinds, fields = typing.get_type_hints(kind), _fields(kind)
    for name, child in node.value.items():
        if name not in fields:
            faults.append(Fault(child.where, join(key, name), f"unknown key.{hint(name, fields)}"))
    written = [name for name in fields if name in node.value]
    values = {name: bind(node.value[name], kinds[name], join(key, name), faults) for name in written}
    missing = [name for name, one in fields.items() if name not in values and _is_required(one)]
    faults.extend(Fault(node.where, join(key, name), "missing; it has no default") for name in missing)
    return _MISFIT if missing or _MISFIT in values.values() else kind(**values)


def _fields(kind: Any) -> dict[str, Any]:
    return {one.name: one for one in dataclasses.fields(kind)}


def _is_required(one: Any) -> bool:
    return one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING


def _bind_union(node: Node, kinds: tuple[Any, ...], whole: Any, key: str, faults: list[Fault]) -> Any:
    for kind in kinds:
        if _looks_like(node.value, kind):
            attempt: list[Fault] = []
            value = bind(node, kind, key, attempt)
            if not attempt or dataclasses.is_dataclass(kind):
                faults.extend(attempt)
                return value
    return _misfit(node, key, f"expected {_describe(whole)}", faults)


def _looks_like(value: Any, kind: Any) -> bool:
    if kind is types.NoneType:
        return value is None
    return isinstance(value, dict) if dataclasses.is_dataclass(kind) else value is not None


def _bind_literal(node: Node, choices: tuple[Any, ...], key: str, faults: list[Fault]) -> Any:
    if isinstance(node.value, str | int) and node.value in choices and not isinstance(node.value, bool):
        return node.value
    meant = did_you_mean(node.value, choices) if isinstance(node.value, str) else ""
    return _misfit(node, key, f"expected one of {', '.join(map(str, choices))}", faults, meant)


def _bind_tuple(node: Node, kinds: tuple[Any, ...], key: str, faults: list[Fault]) -> Any:
    count = None if kinds[-1] is Ellipsis else len(kinds)
    if not isinstance(node.value, list) or count not in (None, len(node.value)):
        return _misfit(node, key, f"expected a list of {count} values" if count else "expected a list", faults)
    each = [kinds[0]] * len(node.value) if kinds[-1] is Ellipsis else kinds
    items = enumerate(zip(node.value, each, strict=True))
    values = [bind(child, kind, join(key, str(i)), faults) for i, (child, kind) in items]
    return _MISFIT if _MISFIT in values else tuple(values)


def _bind_named(node: Node, kind: Any, key: str, faults: list[Fault]) -> Any:
    """A section whose keys are names of the user's own."""
    if not isinstance(node.value, dict):
        return _misfit(node, key, "expected a section of names", faults)
    values = {name: bind(child, kind, join(key, name), faults) for name, child in node.value.items()}
    return _MISFIT if any(value is _MISFIT for value in values.values()) else values


def _bind_plain(node: Node, kind: Any, key: str, faults: list[Fault]) -> Any:
    value, base = plain(node), typing.get_origin(kind) or kind
    if base is float and is_finite_number(value):
        return float(value)
    if base is not float and isinstance(value, base) and (base is bool or not isinstance(value, bool)):
        return value
    return _misfit(node, key, f"expected {_describe(kind)}", faults)


def _misfit(node: Node, key: str, expected: str, faults: list[Fault], meant: str = "") -> Any:
    shown = repr(plain(node))
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    faults.append(Fault(node.where, key, f"{expected}, found {shown}.{meant}"))
    return _MISFIT


_NAMES = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    str: "text",
    dict: "a section of keys",
    list: "a list",
    types.NoneType: "null",
}


def _describe(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(one) for one in arguments)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if dataclasses.is_dataclass(kind):
        return f"a section with {', '.join(_fields(kind))}"
    return _NAMES.get(origin or kind, str(kind))
