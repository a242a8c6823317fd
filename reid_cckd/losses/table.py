"""The names by which a configuration asks for a loss."""

from __future__ import annotations

from torch import nn

from reid_cckd.losses.instance import CosineMimic, CrossEntropy, HintonKD

LOSSES: dict[str, type[nn.Module]] = {"cross_entropy": CrossEntropy, "kd": HintonKD, "cosine_mimic": CosineMimic}
