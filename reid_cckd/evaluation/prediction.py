"""What an evaluation will need, said before it starts: memory beyond the inputs, and time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from reid_cckd.evaluation import coarse
from reid_cckd.evaluation.distractors import TILE, scores_held
from reid_cckd.evaluation.products import chunk_size, multiply
from reid_cckd.evaluation.reranking import Reranking
from reid_cckd.evaluation.rows import BLOCK, choose_device
from reid_cckd.evaluation.search import search_chunk
from reid_cckd.evaluation.verification import similarities

_OVERHEAD = 1.3  # time of counting ranks beside the product
_PER_PAIR = 64  # bytes of a pair: its score and the sorting of the ROC
_FIXED = 2**25  # bytes that libraries and threads take for themselves
_PER_MATCH = 64  # bytes that a true match takes while its chunk is ranked


@dataclass(frozen=True)
class Prediction:
    """Bytes beyond the inputs at the peak, and multiply-adds of the matrix products."""

    memory: int
    products: int

    def seconds(self, rate: float) -> float:
        """Time at ``rate`` multiply-adds a second."""
        return self.products * _OVERHEAD / rate


def predict_retrieval(queries: int, items: int, width: int, reranking: Reranking | None = None) -> Prediction:
    """Of `evaluate_retrieval` on the CPU; a device needs the scores and the rows on top.

    Linear in either set but for the time of re-ranking, which compares all rows with all.
    """
    held = min(2 * chunk_size(queries, items), queries)  # two chunks take turns
    scores = 4 * held * (items + width) + 4 * width * min(items, BLOCK)
    columns = 40 * (queries + items) + _PER_MATCH * items
    if reranking is None:
        return Prediction(scores + columns, queries * items * width)
    rows = queries + items
    neighbours = rows * reranking.depth * 16  # numbers, and whether they are mutual
    members = 2 * reranking.k1 * min(reranking.k2, 8)  # of an averaged neighbourhood
    peak = max(scores + 40 * rows * members, _search_memory(rows, width))  # the search is over before the rest begins
    return Prediction(peak + columns + neighbours, (rows * rows + queries * items) * width)


def _search_memory(rows: int, width: int) -> int:
    """Of a search for the neighbours of all rows: each thread holds unit rows, and scores twice, to find the best."""
    together = search_chunk(rows)
    threads = min(torch.get_num_threads(), math.ceil(rows / together))
    return 4 * threads * together * (2 * min(rows, BLOCK) + width)


def predict_identification(
    probes: int, distractors: int, width: int, highest_fpr: float = 1e-4, *, converted: bool = False
) -> Prediction:
    """Of `evaluate_identification`, whose distractors may lie on disk, ``converted`` if they are not float32."""
    kept = 8 * int(highest_fpr * probes * distractors)  # twice the scores above the highest rate
    entries = width * (probes + 2 * min(TILE, distractors))  # of the probes and two tiles
    copies = entries * (4 * converted + 2 * coarse.available())
    return Prediction(_FIXED + 4 * scores_held() + copies + kept, probes * distractors * width)


def predict_pairs(rows: int, pairs: int, width: int) -> Prediction:
    """Of `evaluate_pairs`; its seconds are at `pair_rate`."""
    return Prediction(_PER_PAIR * pairs + 4 * rows + 32 * min(pairs, BLOCK) * width, pairs * width)


def pair_rate(width: int, device: torch.device | str | None = None) -> float:
    """Multiply-adds a second of comparing rows pair by pair, measured in about a tenth of a second."""
    left = torch.ones(1024, width, device=choose_device(device))
    return left.numel() * _rounds_a_second(lambda: similarities(left + 0, left + 0))


def product_rate(width: int, device: torch.device | str | None = None) -> float:
    """Multiply-adds a second of this machine's float32 matrix product, measured in about a tenth of a second."""
    place = choose_device(device)
    left, right = torch.ones(256, width, device=place), torch.ones(4096, width, device=place)
    out = torch.empty(256, 4096, device=place)

    def work() -> None:
        multiply(left, right, out)
        float(out[0, 0])  # waits for a device

    return out.numel() * width * _rounds_a_second(work)


def _rounds_a_second(work: Callable[[], object]) -> float:
    work()  # starts threads
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < 0.1:
        work()
        done += 1
    return done / (time.perf_counter() - start)
