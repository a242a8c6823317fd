"""What is kept per class or per image is updated once a batch, however often the class or image is in it."""

from __future__ import annotations

import torch
from torch import Tensor


def group_means(rows: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Groups that occur, ascending, and the mean of each one's rows: (N, D), (N,) -> (G,), (G, D)."""
    found, position, counts = torch.unique(groups, return_inverse=True, return_counts=True)
    sums = rows.new_zeros(len(found), rows.shape[1]).index_add_(0, position, rows)
    return found, sums / counts.unsqueeze(1)
