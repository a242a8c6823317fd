"""Losses: correlation congruence, its kernels and memory, and the losses it is compared with or added to."""

from reid_cckd.losses.correlation import CorrelationCongruenceLoss
from reid_cckd.losses.distributed import gather_rows
from reid_cckd.losses.kernels import MMD, Bilinear, GaussianRBF
from reid_cckd.losses.memory import PairMemory

__all__ = [
    "MMD",
    "Bilinear",
    "CorrelationCongruenceLoss",
    "GaussianRBF",
    "PairMemory",
    "gather_rows",
]
