"""Products of all queries with all gallery items, a chunk of queries at a time."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from reid_cckd.evaluation.rows import BLOCK, Rows

_MOST, _FEWEST = 512, 16  # queries in a chunk: more are not multiplied faster, fewer much slower
_SCORES = 24 * 2**20  # of a chunk where the gallery is long, of which three are held: 288 MiB


@contextlib.contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """As many threads as torch uses, each of which multiplies alone: numpy's own would wait for one another."""
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        yield pool


def product_chunks(
    query: Rows, gallery: Rows, chunk: int | None = None, pool: Executor | None = None
) -> Iterator[tuple[int, Tensor]]:
    """(first query, (chunk, gallery) products of unit queries with gallery rows as they are) in turn.

    Divided by ``gallery.lengths`` they are cosine similarities: that spares a normalised copy of the gallery, and the
    consumer can do it on the way. Three buffers take turns: a chunk stays as it is until the next but one is asked for.
    With a ``pool`` (of `workers`) the next chunk is made while one is consumed.
    """
    size = min(chunk or chunk_size(len(query), len(gallery)), len(query))
    buffers = itertools.cycle([torch.empty(size, len(gallery), device=query.device) for _ in range(3)])
    begun: deque[tuple[int, Tensor, list[Future[None]]]] = deque()
    for start in range(0, len(query), size):
        rows = query.unit(start, start + size)
        products = next(buffers)[: len(rows)]
        begun.append((start, products, _begin(rows, gallery, products, pool)))
        if pool is None or len(begun) > 1:
            yield _finished(*begun.popleft())
    while begun:
        yield _finished(*begun.popleft())


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


def _begin(rows: Tensor, gallery: Rows, products: Tensor, pool: Executor | None) -> list[Future[None]]:
    """Multiply block by block, in the pool where there is one; a device does not make us wait anyway."""

    def fill(start: int) -> None:
        items = gallery.raw(start, start + BLOCK)
        multiply(rows, items, products[:, start : start + len(items)])

    blocks = range(0, len(gallery), BLOCK)
    if pool is not None and products.device.type == "cpu":
        return [pool.submit(fill, start) for start in blocks]
    for start in blocks:
        fill(start)
    return []


def _finished(start: int, products: Tensor, work: list[Future[None]]) -> tuple[int, Tensor]:
    for part in work:
        part.result()
    return start, products
