"""From a feature map to a vector."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reid_cckd.errors import ConfigError


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


class GDC(nn.Module):
    """Global depthwise convolution with batch norm: a learned weight for each place, (N, F, h, w) -> (N, F).

    Source: Chen et al., "MobileFaceNets", CCBR 2018, sec. 3.2.
    """

    def __init__(self, features: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(features, features, size, groups=features, bias=False)
        self.norm = nn.BatchNorm2d(features)

    def forward(self, feature_map: Tensor) -> Tensor:
        vector: Tensor = self.norm(self.convolution(feature_map))
        return vector.flatten(1)


def create_pooling(name: str, features: int, size: tuple[int, int]) -> tuple[nn.Module, int]:
    """``gap``, ``gem``, ``gdc`` or ``flatten`` over maps (N, features, *size), and the width of its vectors.

    Raises:
        ConfigError: there is no such pooling.
    """
    height, width = size
    makes: dict[str, Callable[[], nn.Module]] = {"gap": GAP, "gem": GeM, "flatten": nn.Flatten}
    makes["gdc"] = lambda: GDC(features, size)
    if name not in makes:
        raise ConfigError(f"model.pooling: expected one of {', '.join(makes)}, got {name!r}")
    return makes[name](), features * height * width if name == "flatten" else features
