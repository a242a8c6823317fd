"""Memory for numbers that are soon written over."""

from __future__ import annotations

import math
import threading

import numpy as np
import torch
from torch import Tensor

_PAGE = 4096


def empty(count: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers to be written; on the CPU from the start of a page on, and in huge pages where numpy gets them."""
    if device.type != "cpu":
        return torch.empty(count, device=device, dtype=dtype)
    size = count * dtype.itemsize
    memory = np.empty(size + _PAGE, np.uint8)
    start = -memory.ctypes.data % _PAGE
    return torch.from_numpy(memory[start : start + size]).view(dtype)


class Scratch(threading.local):
    """Pieces of memory by name, which stay with a thread: new ones cost a fault at the first touch of each page.

    On an accelerator they do not stay, for torch keeps what is freed there.
    """

    def __init__(self) -> None:
        self.pieces: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """A tensor of the type of ``like``, its values left from before; valid until this name is taken again."""
        if like.device.type != "cpu":
            return like.new_empty(shape)
        count, key = math.prod(shape), (name, like.dtype)
        if key not in self.pieces or len(self.pieces[key]) < count:
            with torch.inference_mode(False):  # a later caller may record gradients
                self.pieces[key] = empty(count, like.device, like.dtype)
        return self.pieces[key][:count].view(shape)
