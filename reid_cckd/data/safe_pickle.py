"""Unpickling files from the web: lists, dictionaries, numbers, text, bytes and plain numpy arrays, and nothing else.

A pickle is a program. Here no opcode reaches a callable of its choice: the few names that numpy and Python 2 write are
answered by small stand-ins, every other name is refused, and the opcodes are looked through beforehand, so that none
claims more bytes than the file has.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reid_cckd.errors import DataError

REFUSED = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER"}
REFUSED |= {"READONLY_BUFFER", "EMPTY_SET", "ADDITEMS", "FROZENSET"}
TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
MAX_TUPLES = 1_000  # beside a dictionary, whose keys are hashed by recursion in C: deep tuples would overflow its stack
DTYPES = frozenset({"b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"})
BROKEN = (pickle.UnpicklingError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError)


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """What a pickle holds; text of Python 2 comes as bytes, arrays as numpy arrays.

    Raises:
        DataError: the file is missing or truncated, is no pickle, or names anything but plain values; nothing in it has
            run then.
    """
    try:
        return loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Restore it from the archive.") from error
    except (*BROKEN, MemoryError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise DataError(
            f"{path} is not the pickle of plain values that was expected, is truncated, or does not come from where it "
            f"should: {reason}. Nothing in it was run. Download it again."
        ) from error


def loads(content: bytes) -> Any:
    """What the bytes of a pickle hold.

    Raises:
        pickle.UnpicklingError, ValueError and others of `BROKEN`: it holds something else than plain values.
    """
    _look_through(content)
    return _finish(_Unpickler(io.BytesIO(content), encoding="bytes").load())


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        key = (module.replace("numpy._core", "numpy.core"), name)
        if key not in _STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _STAND_INS[key]


class _Call:
    """A function that a pickle may call and cannot change, as it could change a function's or a class's attributes."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a function")


class _Dtype:
    """Stands in for ``numpy.dtype``: remembers which, if it is one of plain numbers."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        self.code = _text(code)
        if self.code.lstrip("<>|=") not in DTYPES:
            raise pickle.UnpicklingError(f"it holds an array of {self.code!r}")

    def __setstate__(self, state: Any) -> None:
        order = _text(state[1])
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"it holds an array of byte order {order!r}")
        self.code = order + self.code.lstrip("<>|=")


class _Array:
    """Stands in for an array until its numbers are known."""

    def __init__(self, *arguments: Any) -> None:
        self.value: Any = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.value = _array(content, dtype, shape, "F" if fortran else "C")


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(content, (bytes, bytearray)):
        raise pickle.UnpicklingError("it holds an array of objects")
    sizes, kind = [int(size) for size in shape], np.dtype(dtype.code)
    if any(size < 0 for size in sizes) or math.prod(sizes) * kind.itemsize != len(content):
        raise pickle.UnpicklingError(f"it holds {len(content)} bytes for an array of another size")
    return np.frombuffer(content, kind).reshape(sizes, order="F" if _text(order) == "F" else "C")


def _scalar(dtype: Any, content: Any) -> Any:
    return _array(content, dtype, (1,), "C")[0].item()


def _encode(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes for protocol 2."""
    if not isinstance(text, str) or _text(encoding) != "latin1":
        raise pickle.UnpicklingError("it encodes something")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How Python 3 writes empty bytes for protocol 2."""
    return b""


def _text(value: Any) -> str:
    if not isinstance(value, (str, bytes)):
        raise pickle.UnpicklingError("it holds something else where text belongs")
    return value.decode("ascii") if isinstance(value, bytes) else value


_STAND_INS: dict[tuple[str, str], _Call | None] = {
    ("numpy.core.multiarray", "_reconstruct"): _Call(_Array),
    ("numpy.core.multiarray", "scalar"): _Call(_scalar),
    ("numpy.core.numeric", "_frombuffer"): _Call(_array),
    ("numpy", "dtype"): _Call(_Dtype),
    ("numpy", "ndarray"): None,  # is only named
    ("_codecs", "encode"): _Call(_encode),
    ("__builtin__", "bytes"): _Call(_no_bytes),
    ("builtins", "bytes"): _Call(_no_bytes),
}


def _look_through(content: bytes) -> None:
    """Refuse what plain values do not need, and memo numbers that reserve more than the file has entries."""
    seen: Counter[str] = Counter()
    for number, (code, argument, _) in enumerate(pickletools.genops(content)):
        seen[code.name] += 1
        if code.name in REFUSED:
            raise pickle.UnpicklingError(f"it uses the opcode {code.name}")
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > max(number, 255):
            raise pickle.UnpicklingError(f"it numbers an entry {argument}")
        if code.name == "FRAME" and int(argument or 0) > len(content):
            raise pickle.UnpicklingError(f"it claims a frame of {argument} bytes")
    if seen["DICT"] + seen["SETITEM"] + seen["SETITEMS"] and sum(seen[name] for name in TUPLES) > MAX_TUPLES:
        raise pickle.UnpicklingError("it holds a dictionary and too many tuples")


def _finish(value: Any) -> Any:
    """``value`` with arrays in place of their stand-ins in its lists and dictionaries, each visited once."""
    top = list(value) if isinstance(value, tuple) else [value]
    waiting: list[Any] = [top]
    seen: set[int] = set()
    while waiting:
        holder = waiting.pop()
        seen.add(id(holder))
        for key, item in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            if isinstance(item, _Array):
                holder[key] = item.value
            elif isinstance(item, (dict, list)) and id(item) not in seen:
                waiting.append(item)
    return tuple(top) if isinstance(value, tuple) else top[0]
