"""Verification of pairs: 10-fold accuracy, TAR at FAR, equal error rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from reid_cckd.evaluation.options import accepted, check_rates
from reid_cckd.evaluation.rows import BLOCK, Embeddings, exact_float32, flags, row_numbers, same_length, two_sets

Floats = NDArray[np.float64]

_DISTANCES = np.arange(0, 4, 0.01)  # squared Euclidean distances tried as thresholds


@dataclass(frozen=True)
class VerificationResult:
    """Fractions in [0, 1]; ``accuracy`` is the mean over the folds and ``accuracy_std`` their standard deviation."""

    accuracy: float
    accuracy_std: float
    threshold: float  # cosine similarity, mean over the folds
    tar: dict[float, float]
    eer: float
    auc: float
    num_same: int
    num_different: int
    fold_accuracy: Floats
    scores: Floats  # cosine similarity of each pair
    same: NDArray[np.bool_]

    def summary(self) -> dict[str, Any]:
        """The numbers without the arrays, ready for JSON."""
        names = ("accuracy", "accuracy_std", "threshold", "eer", "auc", "num_same", "num_different")
        return {name: getattr(self, name) for name in names} | {f"tar@{far:g}": v for far, v in self.tar.items()}


def evaluate_verification(
    first: Embeddings,
    second: Embeddings,
    same: ArrayLike | Tensor,
    *,
    folds: int = 10,
    fars: Sequence[float] = (1e-4, 1e-3, 1e-2),
    device: torch.device | str | None = None,
) -> VerificationResult:
    """Tell pairs (row i of ``first`` and of ``second``, each (N, D)) of one person, ``same`` (N,) true, from others.

    Folds are consecutive. For each, the squared distance of the normalised rows, out of 0, 0.01 ... 3.99, that
    separates the other folds best (the smallest of equals) is applied to it. TAR at FAR f is the share of same pairs
    above all different pairs but the highest floor(f x their number); with fewer than 1 / f of them that is none.

    Raises:
        ValueError: different lengths or widths, only same or only different pairs, fewer pairs than folds, fewer than
            two folds, rates outside (0, 1), a row that is zero or not finite.

    Source: Huang et al., Labeled Faces in the Wild, 2007; thresholds as public face evaluators have them.
    """
    left, right = two_sets(first, second, device, ("first", "second"))
    truth = flags(same, "same")
    same_length(first=left, second=right, same=truth)
    _check(truth, folds, fars)
    with exact_float32(left.device):
        blocks = [similarities(left.unit(a, a + BLOCK), right.unit(a, a + BLOCK)) for a in range(0, len(left), BLOCK)]
    return _score(torch.cat(blocks).numpy(), truth, folds, fars)


def evaluate_pairs(
    embeddings: Embeddings,
    first: ArrayLike | Tensor,
    second: ArrayLike | Tensor,
    same: ArrayLike | Tensor,
    *,
    folds: int = 10,
    fars: Sequence[float] = (1e-4, 1e-3, 1e-2),
    device: torch.device | str | None = None,
) -> VerificationResult:
    """As `evaluate_verification`, of pairs given by row: ``first[i]`` and ``second[i]`` of ``embeddings`` (N, D).

    A row may stand in many pairs and is kept once: 15 million pairs of IJB-C take about 1 GB beyond the inputs. Of the
    2N images of an LFW-type set, pair i being images 2i and 2i + 1, ``first`` is range(0, 2N, 2) and ``second``
    range(1, 2N, 2).

    Raises:
        ValueError: as `evaluate_verification`; a number that is no row. TypeError: numbers that are not whole.
    """
    rows, _ = two_sets(embeddings, embeddings[:1], device, ("embeddings", "embeddings"))
    truth = flags(same, "same")
    sides = [row_numbers(first, "first", len(rows)), row_numbers(second, "second", len(rows))]
    same_length(first=sides[0], second=sides[1], same=truth)
    _check(truth, folds, fars)
    scores = np.empty(len(truth))
    with exact_float32(rows.device):
        for start in range(0, len(truth), BLOCK):
            left, right = (rows.take(side[start : start + BLOCK]) for side in sides)
            scores[start : start + BLOCK] = similarities(left, right).numpy()
    return _score(scores, truth, folds, fars)


def similarities(left: Tensor, right: Tensor) -> Tensor:
    """(N,) cosine similarities in float64 of unit rows (N, D), on the CPU."""
    return (left.double() * right).sum(dim=1).cpu()


def _score(scores: Floats, truth: NDArray[np.bool_], folds: int, fars: Sequence[float]) -> VerificationResult:
    accuracy, threshold = _fold_accuracy(2 - 2 * scores, truth, folds)
    fpr, tpr = roc(scores, truth)
    return VerificationResult(
        accuracy=float(accuracy.mean()),
        accuracy_std=float(accuracy.std()),
        threshold=float(1 - threshold.mean() / 2),
        tar={far: float(np.mean(scores[truth] > threshold_at(scores[~truth], far))) for far in fars},
        eer=_equal_error(fpr, tpr),
        auc=float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2)),
        num_same=int(truth.sum()),
        num_different=int((~truth).sum()),
        fold_accuracy=accuracy,
        scores=scores,
        same=truth,
    )


def threshold_at(impostors: NDArray[Any], rate: float) -> float:
    """The score above which lie the highest floor(rate x their number) impostors, at most."""
    place = accepted(rate, len(impostors))
    return float(-np.partition(-impostors, place)[place])


def roc(scores: Floats, same: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """False and true positive rates at every distinct score, from (0, 0) to (1, 1); equal scores are one point."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.cumsum(same[order])[last]
    tpr, fpr = hits / same.sum(), (last + 1 - hits) / (~same).sum()
    return np.concatenate([[0.0], fpr]), np.concatenate([[0.0], tpr])


def _fold_accuracy(distances: Floats, same: NDArray[np.bool_], folds: int) -> tuple[Floats, Floats]:
    """Accuracy of each fold and the threshold found on the others."""
    parts = np.array_split(np.arange(len(same)), folds)
    correct = np.array([_correct(distances[part], same[part]) for part in parts])
    best = np.argmax(correct.sum(axis=0) - correct, axis=1)
    sizes = np.array([len(part) for part in parts])
    return correct[np.arange(folds), best] / sizes, _DISTANCES[best]


def _correct(distances: Floats, same: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Pairs told right at each threshold: same ones below it, different ones not."""
    accepted = np.searchsorted(np.sort(distances[same]), _DISTANCES)
    refused = (~same).sum() - np.searchsorted(np.sort(distances[~same]), _DISTANCES)
    return np.asarray(accepted + refused, dtype=np.int64)


def _equal_error(fpr: Floats, tpr: Floats) -> float:
    """Where the line between two points of the ROC meets fpr = 1 - tpr."""
    gap = fpr + tpr - 1  # rises from -1 to 1
    after = int(np.argmax(gap >= 0))
    weight = gap[after] / (gap[after] - gap[after - 1])
    return float(fpr[after] - weight * (fpr[after] - fpr[after - 1]))


def _check(same: NDArray[np.bool_], folds: int, fars: Sequence[float]) -> None:
    if same.all() or not same.any():
        raise ValueError("same must hold both true and false pairs")
    if not 2 <= folds <= len(same):
        raise ValueError(f"folds must lie between 2 and the {len(same)} pairs, is {folds}")
    check_rates(fars, "fars")
