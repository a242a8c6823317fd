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
from threadpoolctl import threadpool_limits
from torch import Tensor

from reid_cckd.evaluation.counting import Floats, Ints
from reid_cckd.evaluation.rows import BLOCK, Rows
from reid_cckd.scratch import empty

T = TypeVar("T")
R = TypeVar("R")

_MOST, _FEWEST = 1024, 16  # queries in a chunk: more are not multiplied faster, fewer much slower
_PAIRS = 128  # multiplied together, so that copies of their rows stay in the cache
_ENTRIES = 8192  # of a row that einsum sums at a time; of a longer one in an order that the number of rows decides
_SCORES = 48 * 2**20  # of a chunk where the gallery is long, of which two are held: 384 MiB


@contextlib.contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """As many threads as torch uses, each of which multiplies alone: numpy's own would wait for one another."""
    threads = torch.get_num_threads()
    try:
        with (
            threadpool_limits(1, user_api="blas"),
            ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        ):
            yield pool
    finally:
        torch.set_num_threads(threads)  # of threads to come, which would follow the workers


def spread(work: Callable[[T], R], parts: Iterable[T], device: torch.device, pool: Executor | None) -> list[R]:
    """What ``work`` gives for each part: on the CPU by the ``pool``, if there is one, otherwise here, in turn."""
    return list(map(work, parts) if pool is None or device.type != "cpu" else pool.map(work, parts))


def product_chunks(
    query: Rows, gallery: Rows, chunk: int | None = None, pool: Executor | None = None
) -> Iterator[tuple[int, Tensor]]:
    """(first query, (chunk, gallery) products of unit queries with gallery rows as they are) in turn.

    Divided by ``gallery.lengths`` they are cosine similarities: that spares a normalised copy of the gallery, and the
    consumer can do it on the way. Two buffers take turns: a chunk stays as it is until the next but one is asked for.
    A ``pool`` (of `workers`) multiplies block by block, beside whatever else it was given.
    """
    size = min(chunk or chunk_size(len(query), len(gallery)), len(query))
    buffers = itertools.cycle([empty(size * len(gallery), query.device).view(size, len(gallery)) for _ in range(2)])
    for start in range(0, len(query), size):
        rows = query.unit(start, start + size)
        products = next(buffers)[: len(rows)]
        multiply_blocks(rows, gallery, products, pool)
        yield start, products


def chunk_size(queries: int, items: int) -> int:
    """Queries scored together when the caller does not say: about as many each time."""
    most = max(_FEWEST, min(_MOST, _SCORES // items))
    return math.ceil(queries / math.ceil(queries / most))


def multiply(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Write left (A, D) times right (B, D) transposed to ``out`` (A, B), all float32.

    On the CPU by numpy: torch's product takes 1.3 to 1.7 times as long on AMD processors.
    """
    if out.device.type == "cpu":
        np.matmul(left.numpy(), right.numpy().T, out=out.numpy())
    else:
        torch.mm(left, right.T, out=out)


def products_of(left: Tensor, right: Tensor, rows: Ints, columns: Ints) -> Floats:
    """Products of rows of ``left`` (A, D) with rows of ``right`` (B, D), pair by pair, on the CPU."""
    found = np.zeros(len(rows), np.float32)
    for entry in range(0, left.shape[1], _ENTRIES):
        first, second = (table[:, entry : entry + _ENTRIES].numpy() for table in (left, right))
        for start in range(0, len(rows), _PAIRS):
            own = slice(start, start + _PAIRS)
            found[own] += np.einsum("ij,ij->i", first[rows[own]], second[columns[own]])
    return found


def multiply_blocks(rows: Tensor, gallery: Rows, products: Tensor, pool: Executor | None = None) -> None:
    """Write the products of rows (A, D) with a gallery (B, D) as it is to ``products`` (A, B), block by block."""

    def multiply_block(start: int) -> None:
        items = gallery.raw(start, start + BLOCK)
        multiply(rows, items, products[:, start : start + len(items)])

    spread(multiply_block, range(0, len(gallery), BLOCK), products.device, pool)
