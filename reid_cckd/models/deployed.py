"""What is left of a network for use without this package."""

from __future__ import annotations

from copy import copy

from torch import Tensor, nn
from torch.nn import functional

from reid_cckd.batch import Answer
from reid_cckd.models.embedder import Embedder


class Deployed(nn.Module):
    """Images in, rows out: one stage of an `Embedder` in eval mode, without what comes after that stage.

    Its modules are the network's own, which is left in eval mode and otherwise as it was.
    ``forward(images)``: (N, 3, H, W) uint8, RGB, to (N, D) float32, embeddings at length 1, so that their dot products
    are what evaluation compares; class scores (``logits``) as they are. ``flip`` adds those of the mirrored images
    before, as evaluation does unless told otherwise, at twice the work.

    Raises:
        ValueError: flip of class scores, which evaluation never adds.
    """

    def __init__(self, network: Embedder, answer: Answer, flip: bool = False) -> None:
        super().__init__()
        if flip and answer == "logits":
            raise ValueError("flip: the mirrored image is added to embeddings, not to class scores")
        self.network, self.answer, self.flip = _frame(network), answer, flip
        if answer != "logits":
            self.network.head = None
        if answer == "embedding":
            self.network.neck = nn.Identity()
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        rows: Tensor = getattr(self.network(images), self.answer)
        if self.flip:
            rows = rows + getattr(self.network(images.flip(-1)), self.answer)
        return rows if self.answer == "logits" else functional.normalize(rows)


def _frame(network: Embedder) -> Embedder:
    """The same modules in a network of its own, from which some can be taken away."""
    frame = copy(network)
    frame._modules = dict(network._modules)
    return frame
