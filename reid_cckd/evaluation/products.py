"""Products of all queries with all gallery items, a chunk of queries at a time."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from reid_cckd.evaluation.counting import Floats, Ints
from reid_cckd.evaluation.process import one_thread_each
from reid_cckd.evaluation.rows import ENTRIES, Rows
from reid_cckd.scratch import empty

T = TypeVar("T")
R = TypeVar("R")
Chunks = Iterator[tuple[range, Callable[[], Tensor]]]  # some queries, and what gives the scores of all items for them

_MOST, _FEWEST = 1024, 16  # queries in a chunk: more are not multiplied faster, fewer much slower
_PAIRS = 128  # multiplied together, so that copies of their rows stay in the cache
_DENSE = 0.3  # of all pairs: for more of them it is faster to multiply all, in the same way
_ROWS, _MULTIPLIED = 4, 2**20  # fewer rows, or so few products of entries, are left to einsum
_SCORES = 48 * 2**20  # of a chunk where the gallery is long, of which two are held: 384 MiB


@contextlib.contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """As many threads as torch uses, each of which multiplies alone: numpy's own would wait for one another."""
    with one_thread_each as threads:
        torch.set_num_threads(threads)  # of this one, which may have come while others were at work
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool


def spread(work: Callable[[T], R], parts: Iterable[T], device: torch.device, pool: Executor | None) -> Iterator[R]:
    """What ``work`` gives for each part: by the ``pool``, which begins at once, or here when asked for."""
    return map(work, parts) if pool is None or device.type != "cpu" else pool.map(work, parts)


def product_chunks(
    query: Rows,
    gallery: Rows,
    chunk: int | None = None,
    pool: Executor | None = None,
    part: range | None = None,
) -> Chunks:
    """(queries, what gives their (chunk, gallery) products, of unit queries with gallery rows as they are) in turn.

    Divided by ``gallery.lengths`` they are cosine similarities: that spares a normalised copy of the gallery, and the
    consumer can do it on the way. A ``pool`` (of `workers`) has begun to multiply, block by block, when a chunk is
    yielded, and products are given when it is done; a device has begun too, and they are given at once. Two buffers
    take turns: a chunk stays until the next but one is asked for. ``part``: the queries to multiply, all unless told.
    """
    part = range(len(query)) if part is None else part
    size = min(chunk or chunk_size(len(query), len(gallery)), len(query))
    buffers = itertools.cycle([empty(size * len(gallery), query.device).view(size, len(gallery)) for _ in range(2)])
    rows = query.unit(part.start, min(part.start + size, part.stop))
    for start in range(part.start, part.stop, size):
        own = range(start, start + len(rows))
        finished = _begin(rows, gallery, next(buffers)[: len(own)], pool)
        rows = query.unit(own.stop, min(own.stop + size, part.stop))  # while the pool multiplies
        yield own, finished


def chunk_size(queries: int, items: int) -> int:
    """Queries scored together when the caller does not say: about as many each time."""
    most = max(_FEWEST, min(_MOST, _SCORES // items))
    return math.ceil(queries / math.ceil(queries / most))


def multiply(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Write left (A, D) times right (B, D) transposed to ``out`` (A, B), all float32.

    On the CPU by numpy: torch's product takes 1.3 to 1.7 times as long on AMD processors. A few by einsum, no slower,
    because of a few the BLAS sums the last ones in another order, so that those of equal rows would differ.
    """
    if out.device.type != "cpu":
        torch.mm(left, right.T, out=out)
    elif len(left) < _ROWS or left.numel() * len(right) <= _MULTIPLIED:
        np.einsum("ij,kj->ik", left.numpy(), right.numpy(), out=out.numpy())
    else:
        np.matmul(left.numpy(), right.numpy().T, out=out.numpy())


def products_of(left: Tensor, right: Tensor, rows: Ints, columns: Ints) -> Floats:
    """Products of rows of ``left`` (A, D) with rows of ``right`` (B, D), pair by pair, on the CPU."""
    found = np.zeros(len(rows), np.float32)
    for entry in range(0, left.shape[1], ENTRIES):
        first, second = (table[:, entry : entry + ENTRIES].numpy() for table in (left, right))
        in_rows = first.strides[1] == second.strides[1] == first.itemsize  # einsum follows the memory
        if in_rows and len(rows) > _DENSE * len(first) * len(second):
            found += np.einsum("ij,kj->ik", first, second)[rows, columns]
            continue
        for start in range(0, len(rows), _PAIRS):
            own = slice(start, start + _PAIRS)
            found[own] += np.einsum("ij,ij->i", first[rows[own]], second[columns[own]])
    return found


def _begin(rows: Tensor, gallery: Rows, products: Tensor, pool: Executor | None) -> Callable[[], Tensor]:
    """Begin to write the products of rows (A, D) with a gallery (B, D) as it is to ``products`` (A, B)."""

    def multiply_block(start: int) -> None:
        items = gallery.raw(start, start + gallery.step)
        multiply(rows, items, products[:, start : start + len(items)])

    begun: Iterable[None] = spread(multiply_block, range(0, len(gallery), gallery.step), products.device, pool)
    if products.device.type != "cpu":
        begun = list(begun)

    def finished() -> Tensor:
        for _ in begun:
            pass
        return products

    return finished
