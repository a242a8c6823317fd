"""How sure a score is, and whether one model is better than another on the same queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid_cckd.evaluation.recall import RecallResult
from reid_cckd.evaluation.retrieval import RetrievalResult
from reid_cckd.evaluation.rows import Ids, codes_of

Floats = NDArray[np.float64]
Result = RetrievalResult | RecallResult

_BLOCK = 4 * 2**20  # random numbers drawn together


@dataclass(frozen=True)
class Comparison:
    """B against A on the same queries; ``difference`` is mean(B) - mean(A), a fraction."""

    difference: float
    low: float  # bootstrap confidence interval of the difference
    high: float
    p_value: float  # chance of a gain at least as large if A and B were equally good
    num_better: int  # queries on which B scores higher than A
    num_worse: int
    num_queries: int
    num_groups: int  # that were drawn and flipped as a whole: queries, if no groups were given


def bootstrap_interval(
    values: Floats, *, confidence: float = 0.95, resamples: int = 2_000, seed: int = 0, groups: Ids | None = None
) -> tuple[float, float]:
    """Percentile confidence interval of the mean of per-query ``values`` (Q,), NaN left out.

    ``groups`` (Q,): draw whole groups rather than single queries. Queries of one person are not independent; the
    person's id makes the interval honest for new people.

    Raises:
        ValueError: no value, different lengths, a confidence outside (0, 1), fewer than one resample.
    """
    _check(confidence, resamples)
    sums, counts = _grouped(values, groups)
    means = [
        sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
        for drawn in _blocks(np.random.default_rng(seed), len(sums), len(sums), resamples)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def compare(
    a: Result,
    b: Result,
    *,
    metric: str | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    groups: Ids | None = None,
) -> Comparison:
    """Is B better than A? A paired sign-flip test and a bootstrap interval over the queries both have scored.

    ``metric``: one of the results' ``per_query``, by default the first: "ap" or "inp" of retrieval, "ap_at_r" or
    "precision_at_r" of recall.

    Were the two equally good, each query's difference could as well have the other sign: ``p_value`` is the share of
    random signs (drawn per group, see `bootstrap_interval`) that give at least the difference seen. One-sided.

    Raises:
        ValueError: the results have different queries, galleries, conventions or camera policies, are of different
            kinds, or have no such metric; as `bootstrap_interval`.
    """
    _check(confidence, resamples)
    metric = a.per_query[0] if metric is None else metric
    if type(a) is not type(b) or metric not in a.per_query:
        raise ValueError(f"metric: {type(a).__name__} and {type(b).__name__} do not both hold {metric!r} of each query")
    for name in ("num_queries", "num_gallery", "convention", "camera_policy", "reranking"):
        first, second = (getattr(result, name, None) for result in (a, b))  # recall has no gallery of its own
        if first != second:
            raise ValueError(f"a and b cannot be compared: {name} is {first} and {second}")
    if not np.array_equal(a.valid, b.valid):
        raise ValueError("a and b cannot be compared: they have different queries with a match")
    differences = getattr(b, metric) - getattr(a, metric)
    sums, counts = _grouped(differences, groups)
    flips = _blocks(np.random.default_rng([seed, 1]), 2, len(sums), resamples)
    # The hair's breadth keeps equal sums equal, whatever the order they were added in.
    reached = sum(int(np.count_nonzero((2 * flip - 1) @ sums >= sums.sum() - 1e-12)) for flip in flips)
    low, high = bootstrap_interval(differences, confidence=confidence, resamples=resamples, seed=seed, groups=groups)
    return Comparison(
        difference=float(sums.sum() / counts.sum()),
        low=low,
        high=high,
        p_value=(1 + reached) / (1 + resamples),
        num_better=int(np.count_nonzero(differences > 0)),
        num_worse=int(np.count_nonzero(differences < 0)),
        num_queries=int(counts.sum()),
        num_groups=len(counts),
    )


def _check(confidence: float, resamples: int) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, is {confidence}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, is {resamples}")


def _grouped(values: Floats, groups: Ids | None) -> tuple[Floats, NDArray[np.int64]]:
    """Sum and count of the values of each group; without groups each value is its own."""
    used = ~np.isnan(values)
    if not used.any():
        raise ValueError("values holds no number")
    if groups is None:
        return values[used], np.ones(int(used.sum()), dtype=np.int64)
    if len(groups) != len(values):
        raise ValueError(f"lengths differ: values {len(values)}, groups {len(groups)}")
    _, codes = np.unique(codes_of(groups, "groups")[used], return_inverse=True)
    return np.bincount(codes, weights=values[used]).astype(np.float64), np.bincount(codes).astype(np.int64)


def _blocks(random: np.random.Generator, below: int, width: int, rows: int) -> Iterator[NDArray[np.int64]]:
    """(rows, width) random whole numbers below ``below``, a block of rows at a time."""
    step = max(1, _BLOCK // width)
    for start in range(0, rows, step):
        yield random.integers(0, below, (min(step, rows - start), width))
