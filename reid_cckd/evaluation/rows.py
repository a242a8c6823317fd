"""Embeddings as evaluators read them: any float array or tensor, checked once, normalised on the way."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_cckd.batch import has_room
from reid_cckd.evaluation.process import full_precision

Embeddings: TypeAlias = NDArray[Any] | Tensor
Ids: TypeAlias = NDArray[Any] | Tensor | Sequence[int] | Sequence[str]
Codes: TypeAlias = NDArray[np.int64]

BLOCK = 4096  # rows looked at together; a block of 2,048 float32 columns is 32 MiB
DEVICE_BLOCK = 4 * BLOCK  # the same where a device computes
ENTRIES = 8192  # of a row that einsum sums at a time; of a longer one in an order that the number of rows decides


class Rows:
    """(N, D) embeddings that stay where they are, a memory map on disk too, and the length of each.

    A GPU that computes with those of the host gets them once where it has room, or else piece by piece each time.
    With ``measure=False`` nothing is read yet: whoever passes over the rows calls `measure` on each block. ``first`` is
    the number of the first row, for messages.

    Raises:
        ValueError: not two-dimensional, no columns, or (with the row's number) a row that is zero or not finite.
        TypeError: not floating point.
    """

    def __init__(
        self, values: Embeddings, name: str, device: torch.device, measure: bool = True, first: int = 0
    ) -> None:
        tensor = as_tensor(values, name)
        self.values = tensor.to(device) if measure and _has_room(device, tensor) else tensor
        self.name, self.device = name, device
        self.width = self.values.shape[1]
        step = self.step
        blocks = [self.measure(self.raw(a, a + step), first + a) for a in range(0, len(self) * measure, step)]
        self.lengths = torch.cat(blocks) if blocks else torch.empty(0, device=device)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def step(self) -> int:
        """Rows of a block: on a device enough to keep it busy, all of them where they lie there as they are needed."""
        if self.device.type == "cpu":
            return BLOCK
        at_hand = self.values.device.type == self.device.type and self.values.dtype == torch.float32
        return max(len(self), 1) if at_hand else DEVICE_BLOCK

    def raw(self, start: int, stop: int) -> Tensor:
        """Rows as they are, float32 on the device; a view where nothing has to be converted."""
        return self.values[start:stop].to(self.device, torch.float32)

    def unit(self, start: int, stop: int) -> Tensor:
        """L2-normalised rows, float32 on the device.

        On the CPU by numpy: threads of torch that wait for more to do would hold up the product that follows.
        """
        rows, lengths = self.raw(start, stop), self.lengths[start:stop, None]
        return torch.from_numpy(rows.numpy() / lengths.numpy()) if rows.device.type == "cpu" else rows / lengths

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(first row, rows as they are, their lengths), block by block."""
        for start in range(0, len(self), self.step):
            yield start, self.raw(start, start + self.step), self.lengths[start : start + self.step]

    def gather(self, index: NDArray[np.int64]) -> Tensor:
        """Rows as they are, by number, float32 on the device."""
        return self.values[torch.from_numpy(index).to(self.values.device)].to(self.device, torch.float32)

    def take(self, index: NDArray[np.int64]) -> Tensor:
        """L2-normalised rows by number, float32 on the device."""
        return self.gather(index) / self.lengths[torch.from_numpy(index).to(self.device), None]

    def measure(self, rows: Tensor, start: int, numbers: NDArray[np.int64] | None = None) -> Tensor:
        """Lengths of ``rows``, which begin at ``start`` or have these numbers; refuses rows without a direction."""
        lengths = lengths_of(rows)
        bad = torch.nonzero(~(torch.isfinite(lengths) & (lengths > 0)))
        if len(bad):
            position = int(bad[0])
            what = "is a zero vector, which has no direction" if lengths[position] == 0 else "is not finite"
            row = start + position if numbers is None else numbers[position]
            raise ValueError(f"{self.name}: row {row} {what}")
        return lengths


def lengths_of(rows: Tensor) -> Tensor:
    """Euclidean lengths of float32 rows (N, D), (N,); on the CPU by numpy, as in `Rows.unit`."""
    if rows.device.type != "cpu":
        lengths: Tensor = torch.linalg.vector_norm(rows, dim=1)
        return lengths
    parts = (rows[:, entry : entry + ENTRIES].numpy() for entry in range(0, rows.shape[1], ENTRIES))
    return torch.from_numpy(np.sqrt(sum(np.einsum("ij,ij->i", part, part) for part in parts)))


def as_tensor(values: Embeddings, name: str) -> Tensor:
    """The same memory as a two-dimensional floating-point tensor."""
    if isinstance(values, Tensor):
        tensor = values.detach()
    else:
        array = np.asarray(values)
        if array.dtype.kind != "f":
            raise TypeError(f"{name} must be floating point, is {array.dtype}")
        with warnings.catch_warnings():  # a read-only memory map is never written to here
            warnings.simplefilter("ignore", UserWarning)
            tensor = torch.from_numpy(array)
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be floating point, is {tensor.dtype}")
    if tensor.ndim != 2 or tensor.shape[1] == 0:
        raise ValueError(f"{name} must be (rows, columns) with at least one column, has shape {tuple(tensor.shape)}")
    return tensor


def _has_room(device: torch.device, values: Tensor) -> bool:
    """Whether rows of the host take no more than a quarter of the free memory of a GPU; the rest is for the work."""
    return device.type == "cuda" and values.device.type == "cpu" and has_room(device, values.nbytes)


def two_sets(
    query: Embeddings, gallery: Embeddings, device: torch.device | str | None, names: tuple[str, str]
) -> tuple[Rows, Rows]:
    """Both sets on one device, of one width, neither of them empty."""
    place = choose_device(device, gallery, query)
    first, second = (Rows(x, name, place) for x, name in zip((query, gallery), names, strict=True))
    for rows in (first, second):
        if len(rows) == 0:
            raise ValueError(f"{rows.name} is empty")
    if first.width != second.width:
        raise ValueError(f"{names[0]} has {first.width} columns and {names[1]} has {second.width}")
    return first, second


def choose_device(device: torch.device | str | None, *values: Embeddings) -> torch.device:
    """The caller's choice, else where the first of the values lies that is not on the CPU."""
    places = (value.device for value in values if isinstance(value, Tensor) and value.device.type != "cpu")
    return torch.device(device) if device is not None else next(places, torch.device("cpu"))


def shared_codes(first: Ids, second: Ids, names: tuple[str, str]) -> tuple[Codes, Codes]:
    """Two lists of ids, whole numbers or text, as int64 codes that are equal where the ids are.

    Raises:
        TypeError: not whole numbers or text, or numbers in one list and text in the other.
    """
    arrays = [_id_array(values, name) for values, name in zip((first, second), names, strict=True)]
    if (arrays[0].dtype.kind == "U") != (arrays[1].dtype.kind == "U") and all(map(len, arrays)):
        raise TypeError(f"{names[0]} and {names[1]} must both be numbers or both be text")
    if np.result_type(*arrays).kind == "f":  # uint64 and a signed type, which would meet as float64
        arrays = [array.astype(object) for array in arrays]
    _, codes = np.unique(np.concatenate(arrays), return_inverse=True)
    codes = codes.astype(np.int64, copy=False).reshape(-1)
    return codes[: len(arrays[0])], codes[len(arrays[0]) :]


def codes_of(ids: Ids, name: str) -> Codes:
    """One list of ids as int64 codes in the order of the sorted ids."""
    return shared_codes(ids, ids, (name, name))[0]


def as_array(values: Any) -> NDArray[Any]:
    """A list, an array or a tensor on any device as a numpy array."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def row_numbers(values: Any, name: str, count: int) -> NDArray[np.int64]:
    """Numbers of rows 0 ... count - 1, of any integer type, as int64: torch takes those of uint8 for a mask.

    Raises:
        ValueError: a number that is no row. TypeError: numbers that are not whole.
    """
    array = as_array(values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be whole numbers, is {array.dtype}")
    if len(array) and (array.min() < 0 or array.max() >= count):
        raise ValueError(f"{name} must be rows in 0 ... {count - 1}, goes from {array.min()} to {array.max()}")
    return array.astype(np.int64, copy=False)


def flags(values: Any, name: str) -> NDArray[np.bool_]:
    """True or false for each row; 0 and 1 are refused, for they would be taken for numbers of rows."""
    array = as_array(values)
    if array.dtype != np.bool_:
        raise TypeError(f"{name} must be boolean, is {array.dtype}")
    return array


def _id_array(values: Ids, name: str) -> NDArray[Any]:
    array = as_array(values)
    if array.dtype == object and all(isinstance(value, str) for value in array.flat):
        array = array.astype(np.str_)
    if array.dtype.kind not in "iuU" and array.size:
        raise TypeError(f"{name} must be whole numbers or text, is {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, has shape {array.shape}")
    return array if array.size else array.astype(np.int64)


def same_length(**columns: Any) -> None:
    """Refuse columns of different lengths, naming them."""
    lengths = {name: len(column) for name, column in columns.items() if column is not None}
    if len(set(lengths.values())) > 1:
        raise ValueError("lengths differ: " + ", ".join(f"{name} {length}" for name, length in lengths.items()))


@contextlib.contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Products in float32 whatever the caller trains with: no TF32, no autocast, no gradient."""
    with full_precision, torch.inference_mode(), torch.autocast(device.type, enabled=False):
        yield
