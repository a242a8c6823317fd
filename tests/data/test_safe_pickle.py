from __future__ import annotations

import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_cckd.data.safe_pickle import BROKEN, load_pickle, loads
from reid_cckd.data.synthetic.pickles import python2_pickle
from reid_cckd.errors import DataError

ARRAY = np.arange(12, dtype=np.uint8).reshape(3, 4)
VALUES: list[Any] = [
    {b"data": ARRAY, b"labels": [1, 2, 3], b"name": b"batch"},
    ([b"one", b"two"], [True, False]),
    ([ARRAY, ARRAY.T], [np.bool_(True), np.float32(0.5)]),
    np.asfortranarray(ARRAY.astype(">f4")),
    {"text": [None, 1.5, 2**70, "é"]},
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5, "python 2"])
def test_plain_values_come_back(value: Any, protocol: int | str) -> None:
    content = python2_pickle(value) if isinstance(protocol, str) else pickle.dumps(value, protocol=protocol)
    np.testing.assert_equal(loads(content), value)


class Payload:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


def names(module: str, name: str, *arguments: bytes) -> bytes:
    """A pickle that calls ``module.name(*arguments)`` by hand."""
    parts = b"".join(b"U" + bytes([len(argument)]) + argument for argument in arguments)
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + parts + b"tR."


HOSTILE = {
    "payload": pickle.dumps(Payload()),
    "os.system": names("os", "system", b"touch ran"),
    "eval": names("builtins", "eval", b"open('ran', 'w')"),
    "getattr": names("builtins", "getattr", b"x", b"y"),
    "big bytes": names("builtins", "bytes")[:-3] + b"J\xff\xff\xff\x7f" + b"tR.",
    "numpy.load": names("numpy", "load", b"ran"),
    "instance": b"(ios\nsystem\n.",
    "persistent": b"Pran\n.",
    "memo of 30 GB": b"\x80\x02]r\xff\xff\xff\xef.",
    "bytes of 1 TB": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "array of 1 TB": b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",
    "deep key": b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s.",
    "patch": b"\x80\x02cnumpy\ndtype\nN}U\x04codeU\x02u1s\x86b.",
    "objects": pickle.dumps(np.array([[1], "a"], dtype=object)),
    "empty": b"",
    "text": b"404: not found",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_does_not_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.bin"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(DataError, match=r"file\.bin is not the pickle .* Nothing in it was run"):
        load_pickle(path)
    assert not (tmp_path / "ran").exists()
    np.testing.assert_equal(loads(python2_pickle(VALUES[0])), VALUES[0])  # and nothing has been changed for the next


def test_the_payload_would_have_run(tmp_path: Path) -> None:
    """Or the test above could not fail."""
    (tmp_path / "file").write_bytes(HOSTILE["os.system"])
    code = "import pickle; pickle.load(open('file', 'rb'))"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "ran").exists()


def test_an_array_whose_shape_lies_is_refused() -> None:
    content = pickle.dumps(ARRAY, protocol=2)
    lie = content.replace(b"K\x03K\x04\x86", b"J\xff\xff\xff\x7fK\x04\x86")
    assert lie != content
    with pytest.raises(pickle.UnpicklingError, match="another size"):
        loads(lie)


def test_a_list_of_itself_is_visited_once() -> None:
    value: list[Any] = []
    value.extend([value] * 1000)
    found = loads(pickle.dumps(value))
    assert found[0] is found


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(VALUES) - 1), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4))
def test_no_damage_ends_in_anything_else(number: int, changes: list[tuple[int, int]]) -> None:
    content = bytearray(python2_pickle(VALUES[number]))
    for place, value in changes:
        content[place % len(content)] = value
    try:
        loads(bytes(content))
    except (*BROKEN, MemoryError, RecursionError):
        pass


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_end_in_anything_else(content: bytes) -> None:
    try:
        loads(b"\x80\x02" + content + b".")
    except (*BROKEN, MemoryError, RecursionError):
        pass
