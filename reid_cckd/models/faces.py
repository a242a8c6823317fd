"""Face networks for 112 x 112 images in [-1, 1]: ``iresnet{18, 34, 50, 100}``, ``mobilefacenet``.

The published networks end in a layer over all positions of the last map instead of its mean. Here that is the
embedder's: ``model: {backbone: iresnet50, pooling: flatten, embedding: 512}`` and ``{backbone: mobilefacenet,
pooling: gdc, embedding: 128}``, each with ``neck: bn``. The modules of IResNet have insightface's names, so that its
weight files load as ``model.pretrained``.
"""

from __future__ import annotations

from torch import Tensor, nn

from reid_cckd.models.families import Family, MapClassifier

SETTINGS = {
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "input_size": (3, 112, 112),
    "num_classes": 1000,
    "first_conv": "conv1",
    "classifier": "fc",
}

BLOCKS = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
}
BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))  # of MobileFaceNet


class IBasicBlock(nn.Module):
    """BN conv BN PReLU conv BN + shortcut, the stride on the second convolution."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != width:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.prelu(self.bn2(self.conv1(self.bn1(maps))))
        joined: Tensor = self.bn3(self.conv2(inner)) + self.downsample(maps)
        return joined


class IResNet(MapClassifier):
    """ResNet with improved blocks, halved at each of its four stages: 112 pixels become 7.

    Source: Deng et al., "ArcFace", CVPR 2019, and insightface's recognition/arcface_torch/backbones/iresnet.py.
    """

    def __init__(self, blocks: tuple[int, int, int, int], num_classes: int = 0) -> None:
        super().__init__(512, num_classes)
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        inputs = 64
        for stage, (width, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True), start=1):
            parts = [IBasicBlock(inputs, width, 2), *(IBasicBlock(width, width, 1) for _ in range(count - 1))]
            self.add_module(f"layer{stage}", nn.Sequential(*parts))
            inputs = width
        self.bn2 = nn.BatchNorm2d(512)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, std=0.1)

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 512, H / 16, W / 16)."""
        maps = self.prelu(self.bn1(self.conv1(images)))
        for stage in range(1, 5):
            maps = self.get_submodule(f"layer{stage}")(maps)
        last: Tensor = self.bn2(maps)
        return last


class DepthWise(nn.Module):
    """1 x 1 up to ``groups`` channels, 3 x 3 in each, 1 x 1 down to ``width``; with a shortcut if ``residual``."""

    def __init__(self, inputs: int, width: int, groups: int, stride: int, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        self.layers = nn.Sequential(
            *_convolution(inputs, groups, 1),
            *_convolution(groups, groups, 3, stride, groups),
            nn.Conv2d(groups, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, maps: Tensor) -> Tensor:
        inner: Tensor = self.layers(maps)
        return maps + inner if self.residual else inner


class MobileFaceNet(MapClassifier):
    """Inverted bottlenecks with PReLU: 112 pixels become 7, of 512 channels.

    Source: Chen et al., "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile Devices",
    CCBR 2018, table 1 without its last two rows.
    """

    def __init__(self, num_classes: int = 0) -> None:
        super().__init__(512, num_classes)
        layers: list[nn.Module] = [*_convolution(3, 64, 3, 2), *_convolution(64, 64, 3, 1, 64)]
        inputs = 64
        for expansion, width, count, stride in BOTTLENECKS:
            for number in range(count):
                first = number == 0
                residual = not first or (stride == 1 and inputs == width)
                layers.append(DepthWise(inputs, width, expansion * inputs, stride if first else 1, residual))
                inputs = width
        self.layers = nn.Sequential(*layers, *_convolution(inputs, 512, 1))

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 512, H / 16, W / 16)."""
        maps: Tensor = self.layers(images)
        return maps


def _convolution(inputs: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.PReLU(width)]


FACES = (
    Family(IResNet, {name: {"blocks": blocks} for name, blocks in BLOCKS.items()}, SETTINGS),
    Family(MobileFaceNet, {"mobilefacenet": {}}, SETTINGS),
)
