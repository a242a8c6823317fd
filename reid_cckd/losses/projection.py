"""A learned change of width, so that networks of different widths can be compared."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Projection(nn.Linear):
    """A linear map of rows (N, D), which on maps (N, D, H, W) is the 1x1 convolution of the same weights.

    Computed in the precision of what comes in. ``of``: the argument that an error is to name.

    Raises:
        ValueError: in the call, another width.
    """

    def __init__(self, width: int, to_width: int, of: str = "embeddings") -> None:
        super().__init__(width, to_width)
        self.of = of

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[1] != self.in_features:
            raise ValueError(f"{self.of}: width {input.shape[1]}, expected {self.in_features}")
        weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
        if input.ndim == 4:
            return functional.conv2d(input, weight[:, :, None, None], bias)
        return functional.linear(input, weight, bias)

    def check_target(self, teacher: Tensor) -> None:
        """The teacher's rows or maps are as wide as what this gives.

        Raises:
            ValueError: they are not.
        """
        if teacher.shape[1] != self.out_features:
            raise ValueError(f"ref_emb: width {teacher.shape[1]}, expected {self.out_features}")
