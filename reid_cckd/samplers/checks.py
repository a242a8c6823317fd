"""What a user may hand in, and errors that name the numbers involved."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reid_cckd.samplers.chance import Ints

Labels = Sequence[int] | NDArray[np.integer] | torch.Tensor
Weights = Mapping[int, float] | Sequence[float] | NDArray[np.floating] | torch.Tensor


def as_array(values: Any) -> NDArray[Any]:
    """A list, an array or a tensor on any device as a numpy array; bfloat16, which numpy lacks, as float32."""
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    return (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu().numpy()


def as_integers(values: Any, name: str) -> Ints:
    """A one-dimensional int64 array.

    Raises:
        ValueError: not one-dimensional, empty, NaN, or not whole numbers.
    """
    array = as_array(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one number per image; got an array of shape {array.shape}")
    if len(array) == 0:
        raise ValueError(f"{name} is empty: 0 images")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            first = int(np.flatnonzero(~np.isfinite(array))[0])
            count = int((~np.isfinite(array)).sum())
            raise ValueError(f"{name} has {count} NaN or infinite values among {len(array)}, the first at {first}")
        if (array != np.rint(array)).any():
            first = int(np.flatnonzero(array != np.rint(array))[0])
            raise ValueError(f"{name} must be whole numbers; {name}[{first}] is {array[first]}")
    elif array.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be whole numbers; got {array.dtype} (np.unique(..., return_inverse=True)[1] numbers them)"
        )
    if array.max() >= 2**63:
        raise ValueError(f"{name} must be below 2**63; the largest is {array.max()}")
    return array.astype(np.int64, copy=False)


def as_labels(values: Any, name: str = "labels") -> Ints:
    """Class labels, not negative.

    Raises:
        ValueError: see `as_integers`; or negative.
    """
    labels = as_integers(values, name)
    if int(labels.min()) < 0:
        negative = np.flatnonzero(labels < 0)
        first = negative[0]
        raise ValueError(
            f"{name} must not be negative: {len(negative)} of {len(labels)} are, first {labels[first]} at {first}"
        )
    return labels


def same_length(labels: Ints, name: str, others: Ints, other_name: str) -> None:
    """Raises: ValueError: the two have different lengths."""
    if len(labels) != len(others):
        raise ValueError(f"{name} has {len(labels)} entries and {other_name} {len(others)}: one of each per image")


def at_least(value: int, least: int, name: str) -> int:
    """An integer not below ``least``.

    Raises:
        ValueError: not an integer, or below.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}; got {value!r}")
    return int(value)


def as_weights(weights: Weights | None, labels: Ints) -> NDArray[np.float64]:
    """One weight per class, in ascending order of the labels.

    Raises:
        ValueError: another number of weights than classes, or a weight that is negative, NaN or infinite.
    """
    if weights is None:
        return np.ones(len(labels))
    if isinstance(weights, Mapping):
        absent = [label for label in labels.tolist() if label not in weights]
        if absent:
            raise ValueError(f"class_weights lacks {len(absent)} of {len(labels)} classes, the first is {absent[0]}")
        weights = [weights[label] for label in labels.tolist()]
    array = np.asarray(as_array(weights), dtype=np.float64)
    if array.shape != labels.shape:
        raise ValueError(f"class_weights has shape {array.shape}; one weight for each of {len(labels)} classes needed")
    bad = np.flatnonzero(~np.isfinite(array) | (array < 0))
    if len(bad):
        raise ValueError(
            f"class_weights must be finite and not negative; that of class {labels[bad[0]]} is {array[bad[0]]}"
        )
    return array


def digest(*arrays: NDArray[Any] | None) -> str:
    """A short hash that tells whether labels are those of an earlier run."""
    state = hashlib.blake2b(digest_size=16)
    for array in arrays:
        state.update(b"-" if array is None else str(array.shape).encode() + np.ascontiguousarray(array).data)
    return state.hexdigest()
