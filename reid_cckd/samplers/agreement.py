"""How well superclasses agree with labels, and what a sampler makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid_cckd.samplers.chance import Ints
from reid_cckd.samplers.checks import Labels, as_labels, same_length


@dataclass(frozen=True)
class SuperclassReport:
    """``sizes`` of the superclasses; ``purity``: share of images whose label is the commonest of their superclass;
    ``nmi``: normalised mutual information (arithmetic mean); ``pairs_within``: share of pairs of images in a batch
    that are of one superclass, ``pairs_within_uniform``: the same in batches drawn uniformly. Shares in [0, 1]."""

    sizes: Ints
    purity: float
    nmi: float
    pairs_within: float | None
    pairs_within_uniform: float


def superclass_report(
    superclasses: Labels, labels: Labels, batches: Iterable[Sequence[int]] | None = None
) -> SuperclassReport:
    """Compare superclasses with labels, or with true superclasses; ``batches``: any sampler, to measure its pairs.

    Raises:
        ValueError: the two are of different lengths, empty or not labels.
    """
    groups, classes = as_labels(superclasses, "superclasses"), as_labels(labels)
    same_length(groups, "superclasses", classes, "labels")
    sizes = np.unique(groups, return_counts=True)[1]
    pairs = (sizes * (sizes - 1)).sum() / max(len(groups) * (len(groups) - 1), 1)
    within = None if batches is None else pairs_within(groups, batches)
    return SuperclassReport(sizes, purity(groups, classes), nmi(groups, classes), within, float(pairs))


def purity(groups: Ints, classes: Ints) -> float:
    """Share of images whose class is the commonest of their group."""
    counts, rows, _ = _contingency(groups, classes)
    first = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1]]))
    return float(np.maximum.reduceat(counts, first).sum() / counts.sum())


def nmi(groups: Ints, classes: Ints) -> float:
    """Normalised mutual information with the arithmetic mean; 1.0 when both put everything into one group."""
    counts, rows, columns = _contingency(groups, classes)
    total = counts.sum()
    of_row, of_column = np.bincount(rows, counts), np.bincount(columns, counts)
    joint = counts / total
    mutual = (joint * (np.log(counts * total) - np.log(of_row[rows] * of_column[columns]))).sum()
    mean = (_entropy(of_row / total) + _entropy(of_column / total)) / 2
    return float(np.clip(mutual / mean, 0.0, 1.0)) if mean > 0 else 1.0


def pairs_within(groups: Ints, batches: Iterable[Sequence[int]]) -> float:
    """Share of the pairs of different places of a batch that are of one group, over all batches."""
    within = total = 0
    for batch in batches:
        sizes = np.unique(groups[np.asarray(batch)], return_counts=True)[1]
        within += int((sizes * (sizes - 1)).sum())
        total += len(batch) * (len(batch) - 1)
    return within / max(total, 1)


def _contingency(groups: Ints, classes: Ints) -> tuple[Ints, Ints, Ints]:
    """Counts of the pairs (group, class) that occur, sorted by group, and the ranks of group and class."""
    row, column = np.unique(groups, return_inverse=True)[1], np.unique(classes, return_inverse=True)[1]
    width = int(column.max()) + 1
    cells, counts = np.unique(row * width + column, return_counts=True)
    rows, columns = np.divmod(cells, width)
    return counts, rows, columns


def _entropy(shares: NDArray[np.float64]) -> float:
    return float(-(shares * np.log(shares)).sum())
