"""A classifier as timm publishes it, with its own head: a teacher that was never trained here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reid_cckd.batch import Output
from reid_cckd.models.backbone import as_map
from reid_cckd.models.embedder import Embedder


class PublishedClassifier(Embedder):
    """uint8 images in, `Output` out; the embedding is what timm's classifier looks at, the logits are timm's.

    ``pretrained``: True, or the path of a local file that holds the classifier too; with ``options`` of num_classes 0
    it need not, and there are no logits.

    Raises:
        ConfigError: no such model or weights, or images of this size do not fit it.
        CheckpointError: the local file is damaged or belongs to another architecture or number of classes.
    """

    def __init__(
        self,
        backbone: str,
        *,
        image_size: tuple[int, int],
        pretrained: bool | str = True,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            backbone, image_size=image_size, pretrained=pretrained, options=options, neck="none", keep_classifier=True
        )
        self.num_classes = int(self.backbone.num_classes)  # type: ignore[arg-type]
        self.head = self.backbone.get_classifier() if self.num_classes else None  # type: ignore[operator]
        self.eval()
        with torch.no_grad():
            self.width = self(torch.zeros(1, 3, *image_size)).embedding.shape[1]

    def forward(self, images: Tensor) -> Output:
        """``images``: (N, 3, H, W) uint8 (or float in [0, 255])."""
        features = self.backbone.forward_features(self.normalise(images))  # type: ignore[operator]
        embedding: Tensor = self.backbone.forward_head(features, pre_logits=True)  # type: ignore[operator]
        logits: Tensor | None = None if self.head is None else self.backbone.forward_head(features)  # type: ignore[operator]
        return Output(embedding, embedding, logits, as_map(self.backbone, features))
