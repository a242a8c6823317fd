"""What a network costs: parameters, multiply-accumulates, milliseconds per image."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from reid_cckd.engine.mode import evaluating


class Count(NamedTuple):
    """``parameters``: numbers in the parameters called ``read``. ``macs``: multiply-accumulates of one image."""

    parameters: int
    macs: int
    read: frozenset[str]


@torch.no_grad()
def count(network: nn.Module, image_size: tuple[int, int]) -> Count:
    """What the forward pass of one image of (height, width) reads and computes, in eval mode.

    Parameters are trainable and frozen ones; buffers are left out, and so is what the pass never looks at: timm's
    MobileNetV3 and V4 hold a last convolution, half of a small one's parameters, which only their classifiers use.
    Multiply-accumulates are those of matrix products and convolutions.
    """
    own = {name: parameter.detach() for name, parameter in network.named_parameters()}  # views of these need no grad_fn
    images = torch.zeros(1, 3, *image_size, dtype=torch.uint8, device=next(iter(own.values())).device)
    with evaluating(network), FlopCounterMode(display=False) as counter, _Reads() as reads:
        torch.func.functional_call(network, own, (images,))
    read = {name: value.numel() for name, value in own.items() if id(value) in reads.seen}
    return Count(sum(read.values()), int(counter.get_total_flops()) // 2, frozenset(read))


class _Reads(TorchDispatchMode):
    """Notes every tensor that an operation takes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.seen.update(map(id, tree_leaves((args, kwargs))))
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def milliseconds_per_image(
    network: nn.Module, image_size: tuple[int, int], batch_size: int = 32, rounds: int = 10
) -> float:
    """Median over ``rounds`` of the forward time of a batch, divided by its size, after a warm-up."""
    device = next(network.parameters()).device
    images = torch.randint(0, 256, (batch_size, 3, *image_size), dtype=torch.uint8, device=device)
    with evaluating(network):
        seconds = [_timed(network, images) for _ in range(rounds + 2)][2:]
    return 1000 * statistics.median(seconds) / batch_size


def _timed(network: nn.Module, images: torch.Tensor) -> float:
    start = time.perf_counter()
    network(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - start
