"""What is kept per class or per image is updated once a batch, however often the class or image is in it."""

from __future__ import annotations

import torch
from torch import Tensor


def group_means(rows: Tensor, groups: Tensor) -> Tensor:
    """The mean of the rows of each row's group: (N, D), (N,) -> (N, D), the same numbers for all of a group.

    As many as there are rows, and not as there are groups, which an accelerator would have to be asked for.
    """
    ordered, order = groups.sort(stable=True)
    steps = torch.cat([ordered.new_zeros(1), (ordered[1:] != ordered[:-1]).cumsum(dim=0)])
    position = torch.empty_like(steps).scatter_(0, order, steps)
    sums = torch.zeros_like(rows).index_add_(0, position, rows)
    counts = rows.new_zeros(len(rows)).index_add_(0, position, rows.new_ones(len(rows)))
    return (sums / counts.clamp_min(1).unsqueeze(1))[position]
