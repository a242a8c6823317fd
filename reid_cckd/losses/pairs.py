"""Weights of pairs: by class, or restricted to the pairs that a miner lists."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from reid_cckd.losses.checks import check_tensor, out_of_range
from reid_cckd.losses.fused import Weights


class Listed(NamedTuple):
    """Weights (N, N), 0 where a pair is not listed, and how many partners of each anchor are, (N,)."""

    weights: Tensor
    counts: Tensor

    def tile(self, i: slice, j: slice) -> Tensor:
        """Weights of anchors i and partners j."""
        return self.weights[i, j]


def label_weights(labels: Tensor, column_labels: Tensor, like: Tensor, within: float, between: float) -> Weights:
    """``within`` where the labels of row and column agree, ``between`` elsewhere; compared as the integers they are."""
    same, other = like.new_full((), within), like.new_full((), between)

    def tile(i: slice, j: slice) -> Tensor:
        return torch.where(labels[i].unsqueeze(1) == column_labels[j], same, other)

    return tile


def listed_weights(indices_tuple: tuple[Tensor, ...], like: Tensor, within: float, between: float) -> Listed:
    """Weights of the pairs in a miner's triplets (a, p, n) or pairs (a1, p, a2, n) among the rows of ``like``.

    Raises:
        ValueError: another tuple, or indices out of range.
    """
    positives, negatives = _as_pairs(indices_tuple, len(like))
    weights = like.new_zeros(len(like), len(like))
    weights[positives] = weights[negatives] = 1.0
    counts = weights.sum(dim=1)
    weights[positives], weights[negatives] = within, between
    return Listed(weights, counts)


def _as_pairs(indices_tuple: tuple[Tensor, ...], count: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    if len(indices_tuple) not in (3, 4):
        raise ValueError(f"indices_tuple: expected triplets (3 tensors) or pairs (4 tensors), got {len(indices_tuple)}")
    for indices in indices_tuple:
        if indices.ndim != 1 or indices.is_floating_point() or indices.dtype == torch.bool:
            raise ValueError(
                f"indices_tuple: expected 1-D integers, got {indices.dtype} of shape {tuple(indices.shape)}"
            )
        if out_of_range(indices, count):
            raise ValueError(f"indices_tuple: index out of range for {count} rows")
    anchors, positives, *rest = (indices.long() for indices in indices_tuple)  # uint8 would be a mask
    others, negatives = rest if len(rest) == 2 else (anchors, rest[0])
    for left, right in ((anchors, positives), (others, negatives)):
        if len(left) != len(right):
            raise ValueError(f"indices_tuple: {len(left)} anchors for {len(right)} partners")
    return (anchors, positives), (others, negatives)


def refuse_pairs(indices_tuple: Any) -> None:
    """A loss of the whole batch.

    Raises:
        ValueError: a miner's pairs are given all the same.
    """
    if indices_tuple is not None:
        raise ValueError("indices_tuple: this loss looks at the whole batch and takes no mined pairs")


def class_labels(labels: Tensor | None, rows: Tensor, num_classes: int) -> Tensor:
    """The labels as int64 beside the rows, one in 0 ... num_classes - 1 for each.

    Raises:
        ValueError: none given, another shape, no integers, or one out of range.
    """
    if labels is None:
        raise ValueError("labels: pass the classes, loss(embeddings, labels)")
    check_labels(labels, len(rows))
    if labels.is_floating_point() or out_of_range(labels, num_classes):
        found = f"{labels.dtype} from {labels.min()} to {labels.max()}"
        raise ValueError(f"labels: expected integers from 0 to {num_classes - 1}, got {found}")
    return labels.to(rows.device, torch.int64)


def check_labels(labels: Tensor | None, count: int) -> None:
    """One label for each row.

    Raises:
        ValueError: another shape.
        TypeError: no tensor.
    """
    if labels is None:
        return
    check_tensor("labels", labels)
    if labels.shape != (count,):
        raise ValueError(f"labels: expected shape ({count},), got {tuple(labels.shape)}")
