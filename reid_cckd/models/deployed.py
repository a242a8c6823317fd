"""What is left of a network for use without this package."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from reid_cckd.models.embedder import Embedder

Answer = Literal["neck", "embedding", "logits"]


class Deployed(nn.Module):
    """Images in, rows out: one stage of an `Embedder` in eval mode, without what that stage does not need.

    Takes the network over. ``forward(images)``: (N, 3, H, W) uint8, RGB, to (N, D) float32, embeddings at length 1, so
    that their dot products are what evaluation compares; class scores (``logits``) as they are.
    """

    def __init__(self, network: Embedder, answer: Answer) -> None:
        super().__init__()
        self.network, self.answer = network.eval(), answer
        if answer != "logits":
            network.head = None
        if answer == "embedding":
            network.neck = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        rows: Tensor = getattr(self.network(images), self.answer)
        return rows if self.answer == "logits" else functional.normalize(rows)
