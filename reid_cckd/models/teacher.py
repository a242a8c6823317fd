"""A frozen network to learn from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_cckd.batch import Output
from reid_cckd.models.embedder import Embedder


class Teacher(nn.Module):
    """An `Embedder` that never trains: always in eval mode, without gradients, at its own image size.

    `train()` leaves it in eval mode. A teacher whose batch norms follow the student's batches is another network
    at every step, which is what two well-known toolkits do.
    """

    def __init__(self, network: Embedder) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode, whatever is asked."""
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> Output:
        """``images``: (N, 3, H, W) uint8 at any size; resized to the size the teacher was trained at."""
        if images.shape[-2:] != self.network.image_size:
            images = functional.interpolate(
                images.float(), self.network.image_size, mode="bilinear", antialias=True, align_corners=False
            )
        output: Output = self.network(images)
        return output
