"""Networks for 32 x 32 images with the shapes of the distillation literature (Tian et al., CRD, ICLR 2020).

``cifar_resnet{8, 14, 20, 32, 44, 56, 110, 8x4, 32x4}``, ``wrn_{16, 40}_{1, 2}``, ``cifar_vgg{8, 13}``.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from reid_cckd.models.families import Family, MapClassifier, initialise

# CIFAR-10's statistics; those of CIFAR-100 differ by 0.02 at most.
SETTINGS = {
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2470, 0.2435, 0.2616),
    "input_size": (3, 32, 32),
    "num_classes": 10,
    "first_conv": "conv1",
    "classifier": "fc",
}

DEPTHS = (8, 14, 20, 32, 44, 56, 110)  # 6n + 2
NARROW, WIDE = (16, 16, 32, 64), (32, 64, 128, 256)  # of the stem and of the three stages
VGG = {"cifar_vgg8": (1, 1, 1, 1, 1), "cifar_vgg13": (2, 2, 2, 2, 2)}  # convolutions of each stage


class BasicBlock(nn.Module):
    """conv BN ReLU conv BN + shortcut, ReLU."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv3x3(inputs, width, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv3x3(width, width), nn.BatchNorm2d(width)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != width:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, maps: Tensor) -> Tensor:
        inner = torch.relu_(self.bn1(self.conv1(maps)))
        joined: Tensor = self.bn2(self.conv2(inner)) + self.downsample(maps)
        return joined.relu_()


class PreActBlock(nn.Module):
    """BN ReLU conv BN ReLU conv + shortcut; the shortcut of a wider block starts after the first ReLU."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), _conv3x3(inputs, width, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), _conv3x3(width, width)
        self.shortcut = None if inputs == width else nn.Conv2d(inputs, width, 1, stride, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        active = torch.relu_(self.bn1(maps))
        inner: Tensor = self.conv2(torch.relu_(self.bn2(self.conv1(active))))
        kept: Tensor = maps if self.shortcut is None else self.shortcut(active)
        return inner + kept


class CifarResNet(MapClassifier):
    """ResNet of depth 6n + 2 with n blocks in each of three stages, at 32, 16 and 8 pixels.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, sec. 4.2; shortcuts of stages 2 and 3
    are 1 x 1 convolutions, as in the distillation literature.
    """

    def __init__(self, depth: int, widths: tuple[int, int, int, int] = NARROW, num_classes: int = 10) -> None:
        super().__init__(widths[3], num_classes)
        self.conv1, self.bn1 = _conv3x3(3, widths[0]), nn.BatchNorm2d(widths[0])
        self.layers = _stages(BasicBlock, (depth - 2) // 6, widths)
        initialise(self)

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, widths[3], H / 4, W / 4)."""
        maps: Tensor = self.layers(torch.relu_(self.bn1(self.conv1(images))))
        return maps


class WideResNet(MapClassifier):
    """WRN-depth-width: n = (depth - 4) / 6 pre-activation blocks a stage, ``width`` times as wide as a CIFAR ResNet.

    Source: Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016.
    """

    def __init__(self, depth: int, width: int, num_classes: int = 10) -> None:
        widths = (16, 16 * width, 32 * width, 64 * width)
        super().__init__(widths[3], num_classes)
        self.conv1 = _conv3x3(3, widths[0])
        self.layers = _stages(PreActBlock, (depth - 4) // 6, widths)
        self.bn1 = nn.BatchNorm2d(widths[3])
        initialise(self)

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 64 width, H / 4, W / 4)."""
        return torch.relu_(self.bn1(self.layers(self.conv1(images))))


class CifarVGG(MapClassifier):
    """VGG with batch norm: five stages of 3 x 3 convolutions, halved after the first three, at 4 pixels in the end."""

    def __init__(self, convolutions: tuple[int, ...], num_classes: int = 10) -> None:
        super().__init__(512, num_classes)
        layers: list[nn.Module] = []
        inputs = 3
        for stage, (width, count) in enumerate(zip((64, 128, 256, 512, 512), convolutions, strict=True)):
            if 1 <= stage <= 3:
                layers.append(nn.MaxPool2d(2))
            for _ in range(count):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                inputs = width
        self.layers = nn.Sequential(*layers)
        initialise(self)

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 512, H / 8, W / 8)."""
        maps: Tensor = self.layers(images)
        return maps


def _conv3x3(inputs: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)


def _stages(block: type[nn.Module], count: int, widths: tuple[int, int, int, int]) -> nn.Sequential:
    """Three stages of ``count`` blocks, the second and the third at half the size of the one before."""
    layers: list[nn.Module] = []
    for stage, (inputs, width) in enumerate(pairwise(widths)):
        layers.append(block(inputs, width, 1 if stage == 0 else 2))
        layers += [block(width, width, 1) for _ in range(count - 1)]
    return nn.Sequential(*layers)


RESNETS = {f"cifar_resnet{depth}": {"depth": depth} for depth in DEPTHS}
RESNETS_X4 = {f"cifar_resnet{depth}x4": {"depth": depth, "widths": WIDE} for depth in (8, 32)}
WIDE_RESNETS = {f"wrn_{depth}_{width}": {"depth": depth, "width": width} for depth in (16, 40) for width in (1, 2)}
CIFAR = (
    Family(CifarResNet, {**RESNETS, **RESNETS_X4}, SETTINGS),
    Family(WideResNet, WIDE_RESNETS, SETTINGS),
    Family(CifarVGG, {name: {"convolutions": counts} for name, counts in VGG.items()}, SETTINGS),
)
