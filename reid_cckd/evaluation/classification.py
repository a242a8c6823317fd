"""Classification: top-k accuracy, calibration, and what the worst classes are taken for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reid_cckd.evaluation.options import check_counts
from reid_cckd.evaluation.rows import Embeddings, Ids, as_array, as_tensor, codes_of, same_length

_ENTRIES = 2**22  # of the logits that are looked at together; in float64 32 MiB


@dataclass(frozen=True)
class Confusion:
    """A class and the wrong class it is most often taken for (-1: it never is)."""

    label: int
    accuracy: float
    count: int
    taken_for: int
    share: float  # of the class's images


@dataclass(frozen=True)
class ClassificationResult:
    """Fractions in [0, 1]; ``class_accuracy`` (C,) is NaN for a class without images."""

    accuracy: dict[int, float]
    ece: float
    num_images: int
    class_accuracy: NDArray[np.float64]
    worst: list[Confusion]  # lowest accuracy first

    def summary(self) -> dict[str, Any]:
        """The numbers without the arrays, ready for JSON."""
        worst = [vars(confusion) for confusion in self.worst]
        top = {f"top{k}": value for k, value in self.accuracy.items()}
        return {**top, "ece": self.ece, "num_images": self.num_images, "worst": worst}


def evaluate_classification(
    logits: Embeddings, labels: Ids, *, top: Sequence[int] = (1, 5), bins: int = 15, worst: int = 10
) -> ClassificationResult:
    """Score ``logits`` (N, C), before softmax, against ``labels`` (N,) in 0 ... C - 1.

    Equal logits are ranked by class number. ``ece`` is the mean gap between confidence and accuracy in ``bins`` equal
    intervals of confidence, weighted by their images; it depends on the scale of the logits.

    Raises:
        ValueError: no images, different lengths, a label that is no class, a logit that is not finite (with its row),
            top below 1, fewer than one bin. TypeError: labels that are not whole numbers.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 3.
    """
    table = as_tensor(logits, "logits")
    truth = _labels(labels, len(table), table.shape[1])
    check_counts(top, "top")
    check_counts([bins], "bins")
    classes = table.shape[1]
    step = max(1, _ENTRIES // classes)
    blocks = [_block(table[a : a + step], truth[a : a + step], a) for a in range(0, len(table), step)]
    places, predicted, confidence = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    images, right = (np.bincount(labels, minlength=classes) for labels in (truth, truth[predicted == truth]))
    with np.errstate(invalid="ignore"):
        class_accuracy = right / images
    return ClassificationResult(
        accuracy={int(k): float(np.mean(places < k)) for k in top},
        ece=_calibration_error(confidence, predicted == truth, bins),
        num_images=len(truth),
        class_accuracy=class_accuracy,
        worst=_worst(truth, predicted, images, class_accuracy, worst),
    )


def _labels(labels: Ids, images: int, classes: int) -> NDArray[np.int64]:
    same_length(logits=range(images), labels=labels)
    codes_of(labels, "labels")  # whole numbers or text
    truth = as_array(labels)
    if images == 0:
        raise ValueError("logits is empty")
    if truth.dtype.kind not in "iu":
        raise TypeError(f"labels must be whole numbers, is {truth.dtype}")
    if truth.min() < 0 or truth.max() >= classes:
        raise ValueError(f"labels must lie in 0 ... {classes - 1}, go from {truth.min()} to {truth.max()}")
    return truth.astype(np.int64)


def _block(
    logits: torch.Tensor, truth: NDArray[np.int64], start: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """0-based place of the true class, the predicted class, and its probability."""
    rows = logits.double().cpu().numpy()
    if not np.isfinite(rows).all():
        raise ValueError(f"logits: row {start + int(np.argmax(~np.isfinite(rows).all(axis=1)))} is not finite")
    own = np.take_along_axis(rows, truth[:, None], axis=1)
    earlier = np.arange(rows.shape[1]) < truth[:, None]
    places = np.count_nonzero((rows > own) | ((rows == own) & earlier), axis=1)
    confidence = 1 / np.exp(rows - rows.max(axis=1, keepdims=True)).sum(axis=1)
    return places, rows.argmax(axis=1), confidence


def _calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int) -> float:
    """Intervals are open on the left and closed on the right, as in the paper."""
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(place, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def _worst(
    truth: NDArray[np.int64],
    predicted: NDArray[np.int64],
    images: NDArray[np.int64],
    accuracy: NDArray[np.float64],
    count: int,
) -> list[Confusion]:
    """Of all pairs of classes only those that were confused are counted."""
    present, classes = np.flatnonzero(images), len(images)
    chosen = present[np.argsort(accuracy[present], kind="stable")][:count]
    pairs, times = np.unique((truth * classes + predicted)[predicted != truth], return_counts=True)
    found = []
    for label in chosen.tolist():
        first, last = np.searchsorted(pairs, [label * classes, (label + 1) * classes])
        most = first + int(times[first:last].argmax()) if first < last else None
        other, share = (-1, 0.0) if most is None else (int(pairs[most]) % classes, float(times[most] / images[label]))
        found.append(Confusion(label, float(accuracy[label]), int(images[label]), other, share))
    return found
