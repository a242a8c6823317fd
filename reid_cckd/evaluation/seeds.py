"""Is one recipe better than another when both were trained with the same seeds?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reid_cckd.evaluation.significance import bootstrap_interval


@dataclass(frozen=True)
class SeedDifference:
    """B - A over the seeds both have: the mean, and a confidence interval of it where there are two seeds or more."""

    mean: float
    low: float | None
    high: float | None
    num_seeds: int


def compare_seeds(
    a: Mapping[int, float],
    b: Mapping[int, float],
    *,
    interval: Literal["t", "bootstrap"] = "t",
    confidence: float = 0.95,
) -> SeedDifference:
    """The paired difference of a score: seed -> value for A and for B.

    ``t``: Student's interval of the mean of paired differences, which holds for few seeds if they are about normal.
    ``bootstrap``: percentiles over resampled seeds; with fewer than about ten seeds it is too narrow.

    Raises:
        ValueError: no seed in common, or a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, is {confidence}")
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        raise ValueError(f"a and b have no seed in common: {sorted(a)} and {sorted(b)}")
    differences = np.array([b[seed] - a[seed] for seed in seeds])
    mean, count = float(differences.mean()), len(seeds)
    if count < 2:
        return SeedDifference(mean, None, None, count)
    if interval == "bootstrap":
        return SeedDifference(mean, *bootstrap_interval(differences, confidence=confidence), count)
    from scipy.stats import t  # comes with albumentations and pytorch-metric-learning; slow to import

    reach = float(t.ppf((1 + confidence) / 2, count - 1) * differences.std(ddof=1) / count**0.5)
    return SeedDifference(mean, mean - reach, mean + reach, count)
