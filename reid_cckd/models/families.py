"""What the architectures of this toolkit that timm does not have share; timm's own registry knows them by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn


class MapClassifier(nn.Module):
    """A network in timm's manner: `forward_features` gives a map, its mean goes through a linear classifier.

    A family defines `forward_features`, (N, 3, H, W) -> (N, num_features, h, w); ``num_classes`` 0 leaves the
    classifier out.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.num_features, self.num_classes = num_features, num_classes
        self.fc = nn.Linear(num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, images: Tensor) -> Tensor:
        """The last map, before pooling."""
        raise NotImplementedError(f"{type(self).__name__} must define its features")

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Class scores of a map, or the pooled map they are made of."""
        pooled = features.mean(dim=(2, 3))
        return pooled if pre_logits else self.get_classifier()(pooled)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.fc

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


@dataclass(frozen=True)
class Family:
    """Networks of one class: what each name passes to it, and timm's default_cfg (statistics and size of the input)."""

    network: type[MapClassifier]
    shapes: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]


def register(families: Iterable[Family]) -> None:
    """Make `timm.create_model` build each name; timm refuses ``pretrained=True``, as there are no published weights."""
    for family in families:
        for name in family.shapes:
            register_model(_entrypoint(name, family))


def _entrypoint(name: str, family: Family) -> Callable[..., MapClassifier]:
    def create(pretrained: bool = False, pretrained_cfg: Any = None, **options: Any) -> MapClassifier:
        known = pretrained_cfg or {**family.settings, "architecture": name}
        shape = {**family.shapes[name], **options, "kwargs_filter": ("in_chans",)}  # all take three channels
        made: MapClassifier = build_model_with_cfg(family.network, name, pretrained, pretrained_cfg=known, **shape)
        return made

    create.__name__ = create.__qualname__ = name
    return create


def initialise(network: nn.Module) -> None:
    """He's normal weights for convolutions (fan out), batch norms at 1 and 0."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
