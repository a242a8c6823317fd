"""From a feature map to a vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GAP(nn.Module):
    """Global average pooling, (N, F, h, w) -> (N, F)."""

    def forward(self, feature_map: Tensor) -> Tensor:
        return feature_map.mean(dim=(2, 3))


class GeM(nn.Module):
    """Generalised mean pooling with a learned exponent, (N, F, h, w) -> (N, F); p = 1 is the average.

    Source: Radenovic, Tolias, Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation", 2018, eq. (3).
    """

    def __init__(self, exponent: float = 3.0, floor: float = 1e-6) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(float(exponent)))
        self.floor = floor  # the map is clamped here: negative values have no real power

    def forward(self, feature_map: Tensor) -> Tensor:
        with torch.autocast(feature_map.device.type, enabled=False):  # cubes overflow half precision
            powered = feature_map.float().clamp(min=self.floor).pow(self.exponent)
            return powered.mean(dim=(2, 3)).pow(1.0 / self.exponent)
