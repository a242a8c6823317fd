"""What evaluations change of the whole process while they run, also when several run at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import torch
from threadpoolctl import threadpool_limits

T = TypeVar("T")

# What has a precision of its own; once a caller has set one, torch refuses to tell the older one, which is for all.
_BACKENDS: list[Any] = [
    place
    for place in (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    if hasattr(place, "fp32_precision")
]


class Shared(Generic[T]):
    """A change that lasts from the first who enters to the last who leaves, in whatever order they do.

    Two threads that each put back what they found would leave behind what the other one had set.
    """

    def __init__(self, change: Callable[[], contextlib.AbstractContextManager[T]]) -> None:
        self.change, self.lock, self.inside = change, threading.Lock(), 0

    def __enter__(self) -> T:
        with self.lock:
            if self.inside == 0:
                self.made = self.change()
                self.value = self.made.__enter__()
            self.inside += 1
            return self.value

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.made.__exit__(None, None, None)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[int]:
    """Products of numpy by the thread that asks for them alone; gives the number of threads that torch used."""
    threads = torch.get_num_threads()
    try:
        with threadpool_limits(1, user_api="blas"):
            yield threads
    finally:
        torch.set_num_threads(threads)  # of threads to come, which would follow the workers


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Products of float32 in no less: no TF32."""
    before = precision()
    _set_precision(["ieee"] * len(_BACKENDS) or ["highest"])
    try:
        yield
    finally:
        _set_precision(before)


def precision() -> list[str]:
    """Of float32 products: of each backend or, before torch 2.9, of all."""
    return [backend.fp32_precision for backend in _BACKENDS] or [torch.get_float32_matmul_precision()]


def _set_precision(values: list[str]) -> None:
    if not _BACKENDS:
        torch.set_float32_matmul_precision(values[0])
    for backend, value in zip(_BACKENDS, values, strict=False):
        backend.fp32_precision = "none"  # as torch.backends.fp32_precision has it
        if backend.fp32_precision != value:
            backend.fp32_precision = value


one_thread_each = Shared(_one_thread_each)
full_precision = Shared(_full_precision)
