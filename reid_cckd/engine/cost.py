"""What a network costs: parameters, multiply-accumulates, milliseconds per image."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(network: nn.Module) -> int:
    """Trainable and frozen parameters, buffers left out."""
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def count_macs(network: nn.Module, image_size: tuple[int, int]) -> int:
    """Multiply-accumulates of matrix products and convolutions for one image of (height, width)."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, *image_size, dtype=torch.uint8, device=device))
    network.train(was_training)
    return int(counter.get_total_flops()) // 2


@torch.no_grad()
def milliseconds_per_image(
    network: nn.Module, image_size: tuple[int, int], batch_size: int = 32, rounds: int = 10
) -> float:
    """Median over ``rounds`` of the forward time of a batch, divided by its size, after a warm-up."""
    device = next(network.parameters()).device
    images = torch.randint(0, 256, (batch_size, 3, *image_size), dtype=torch.uint8, device=device)
    was_training = network.training
    network.eval()
    seconds = [_timed(network, images) for _ in range(rounds + 2)][2:]
    network.train(was_training)
    return 1000 * statistics.median(seconds) / batch_size


def _timed(network: nn.Module, images: torch.Tensor) -> float:
    start = time.perf_counter()
    network(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - start
