"""The embedding network: timm backbone, pooling, optional projection, BNNeck, class head."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn

from reid_cckd.batch import Output
from reid_cckd.errors import ConfigError
from reid_cckd.models.backbone import create_backbone, feature_map, normalisation
from reid_cckd.models.pooling import create_pooling

BRIGHTEST_NORMALISED = 4.0  # of images in [0, 1], or divided by a deviation of a quarter of that
TAKES = "expected uint8, or floats from 0 to 255: the network normalises by itself; hand it images as they were decoded"


class Embedder(nn.Module):
    """uint8 images in, `Output` out; normalises its input by its own backbone's statistics.

    The neck is Luo et al.'s BNNeck ("Bag of Tricks", CVPRW 2019): metric losses see the embedding before the
    batch norm, the classifier (without bias) and retrieval the one after it. ``num_classes`` None, or 0 as in timm,
    gives no head.
    ``keep_classifier`` leaves the backbone its own, for `PublishedClassifier`.

    Raises:
        ConfigError: no such backbone, pooling or neck, a refused option, or images of this size do not fit it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str,
        *,
        image_size: tuple[int, int],
        num_classes: int | None = None,
        pretrained: bool | str = False,
        options: dict[str, Any] | None = None,
        pooling: Literal["gap", "gem", "gdc", "flatten"] = "gap",
        embedding: int | None = None,
        neck: Literal["bn", "none"] = "bn",
        keep_classifier: bool = False,
    ) -> None:
        super().__init__()
        self._seen = False  # images of floats that tell their range
        self.image_size = image_size
        self.backbone = create_backbone(backbone, pretrained, options or {}, keep_classifier)
        mean, std = normalisation(self.backbone)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)
        self.map_shape = self._map_shape(backbone)
        self.pool, features = create_pooling(pooling, *self.map_shape)
        self.width = embedding or features
        self.project = nn.Linear(features, self.width) if embedding else nn.Identity()
        self.neck = _neck(neck, self.width)
        self.head: nn.Module | None = _head(self.width, num_classes) if num_classes else None

    def forward(self, images: Tensor) -> Output:
        """``images``: (N, 3, H, W) uint8 (or float in [0, 255])."""
        maps = feature_map(self.backbone, self.normalise(images))
        embedding: Tensor = self.project(self.pool(maps))
        neck: Tensor = self.neck(embedding)
        logits = None if self.head is None else self.head(neck)
        return Output(embedding, neck, logits, maps)

    def normalise(self, images: Tensor) -> Tensor:
        """Zero mean and unit variance by the backbone's own statistics; warns if somebody seems to have done it before.

        Floats are looked at until a batch is not all black, once as a rule: a GPU would be waited for.
        """
        if images.is_floating_point() and not (self._seen or torch.compiler.is_compiling()):
            self._seen = (brightest := float(images.max())) > 0
            if 0 < brightest <= BRIGHTEST_NORMALISED:
                warnings.warn(f"images: floats up to {brightest:.3g}, {TAKES}", stacklevel=3)
        return (images.to(self.mean.dtype) - self.mean) / self.std

    def _map_shape(self, name: str) -> tuple[int, tuple[int, int]]:
        """Features and (height, width), found by one blank image, which also shows whether the size fits."""
        training = self.backbone.training
        self.backbone.eval()
        try:
            with torch.no_grad():
                _, features, height, width = feature_map(self.backbone, torch.zeros(1, 3, *self.image_size)).shape
                return features, (height, width)
        except (RuntimeError, AssertionError, ValueError) as error:
            height, width = self.image_size
            raise ConfigError(
                f"model.backbone: {name} does not take images of {height} x {width} (height x width): {error}. "
                f"Change data.image_size, or for a transformer set model.options: {{img_size: [{height}, {width}]}}."
            ) from error
        finally:
            self.backbone.train(training)


def _neck(name: str, width: int) -> nn.Module:
    if name == "none":
        return nn.Identity()
    if name != "bn":
        raise ConfigError(f"model.neck: expected 'bn' or 'none', got {name!r}")
    neck = nn.BatchNorm1d(width)
    neck.bias.requires_grad_(False)  # the space stays centred, as the classifier without bias needs
    return neck


def _head(width: int, num_classes: int) -> nn.Module:
    head = nn.Linear(width, num_classes, bias=False)
    nn.init.normal_(head.weight, std=0.001)
    return head
