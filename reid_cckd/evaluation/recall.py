"""Image retrieval where every image searches all others: Recall@k, MAP@R and R-precision (CUB, SOP and their like)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from reid_cckd.evaluation.options import check_chunk, check_counts
from reid_cckd.evaluation.products import product_chunks, workers
from reid_cckd.evaluation.ranking import Positions, Progress, Relevance, match_positions
from reid_cckd.evaluation.rows import Embeddings, Ids, codes_of, exact_float32, same_length, two_sets


@dataclass(frozen=True)
class RecallResult:
    """Scores are fractions in [0, 1] over the images that have a match; the arrays hold NaN (rank 0) for the others."""

    per_query: ClassVar[tuple[str, ...]] = ("ap_at_r", "precision_at_r")  # arrays whose means are scores

    recall: dict[int, float]
    map_at_r: float
    r_precision: float
    num_valid_queries: int
    num_queries: int
    valid: NDArray[np.bool_]
    ap_at_r: NDArray[np.float64]
    precision_at_r: NDArray[np.float64]
    first_rank: NDArray[np.int64]  # 1 is the top

    def scores(self) -> dict[str, float]:
        """Recall@k, MAP@R and R-precision by name."""
        recall = {f"recall@{k}": value for k, value in self.recall.items()}
        return {**recall, "map_at_r": self.map_at_r, "r_precision": self.r_precision}

    def summary(self) -> dict[str, Any]:
        """The numbers without the arrays, ready for JSON."""
        counts = {"num_valid_queries": self.num_valid_queries, "num_queries": self.num_queries}
        return {**self.scores(), **counts}


def evaluate_recall(
    embeddings: Embeddings,
    ids: Ids,
    ranks: Sequence[int] = (1, 2, 4, 8),
    *,
    device: torch.device | str | None = None,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> RecallResult:
    """Rank all other rows of ``embeddings`` (N, D) by cosine similarity to each row.

    With R the number of other rows of the same id, R-precision is the share of them among the first R, and MAP@R the
    mean over those R places of the precision at each hit. Rows alone in their id are counted, not scored. Equal
    similarities keep the order of the rows.

    Raises:
        ValueError: no id has two rows, different lengths, ranks or chunk below 1, a row that is zero or not finite.
        TypeError: embeddings or ids of a wrong type.

    Source: Musgrave et al., A Metric Learning Reality Check, ECCV 2020, section 3.2.
    """
    check_counts(ranks, "ranks")
    check_chunk(chunk)
    same_length(embeddings=embeddings, ids=ids)
    rows, _ = two_sets(embeddings, embeddings[:1], device, ("embeddings", "embeddings"))
    codes, own = codes_of(ids, "ids"), np.arange(len(rows))
    with exact_float32(rows.device), workers() as pool:
        relevance = Relevance(codes, codes, own, own)
        chunks = product_chunks(rows, rows, chunk, pool)
        positions = match_positions(chunks, rows.lengths, relevance, pool, progress)
    if not positions.counts.any():
        raise ValueError("ids: every id has a single row, so there is nothing to find")
    return _score(positions, ranks)


def _score(positions: Positions, ranks: Sequence[int]) -> RecallResult:
    counts, valid = positions.counts, positions.counts > 0
    owners = np.repeat(np.arange(len(counts)), counts)
    hits = np.arange(len(owners)) - positions.offsets[:-1][owners]
    within = positions.places < counts[owners]
    precision = np.where(within, (hits + 1) / (positions.places + 1), 0.0)
    first = np.zeros(len(valid), dtype=np.int64)
    first[valid] = positions.places[positions.offsets[:-1][valid]] + 1
    ap, precision_at_r = np.full(len(valid), np.nan), np.full(len(valid), np.nan)
    ap[valid] = np.bincount(owners, precision, len(valid))[valid] / counts[valid]
    precision_at_r[valid] = np.bincount(owners, within, len(valid))[valid] / counts[valid]
    return RecallResult(
        recall={int(k): float(np.mean(first[valid] <= k)) for k in ranks},
        map_at_r=float(ap[valid].mean()),
        r_precision=float(precision_at_r[valid].mean()),
        num_valid_queries=int(valid.sum()),
        num_queries=len(valid),
        valid=valid,
        ap_at_r=ap,
        precision_at_r=precision_at_r,
        first_rank=first,
    )
