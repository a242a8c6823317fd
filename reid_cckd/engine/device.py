"""Where a run computes and in which precision."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Literal

import torch

from reid_cckd.errors import ConfigError

Amp = Literal["auto", "off", "bfloat16"]


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` is the first accelerator, or the CPU.

    Raises:
        ConfigError: the device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type != "cuda":
            torch.empty(1, device=device)
        elif (device.index or 0) >= torch.cuda.device_count():  # without memory on a GPU that is another process's
            raise RuntimeError(f"{torch.cuda.device_count()} GPUs are seen")
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"train.device: {name!r} cannot be used here ({reason}). Expected auto, cpu or cuda."
        ) from error
    return device


def in_bfloat16(device: torch.device, amp: Amp) -> bool:
    """Whether networks compute in bfloat16: ``auto`` does on GPUs that have it.

    CPUs gain from it only with special units, so there it is used when asked for.
    """
    supported = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return amp == "bfloat16" or (amp == "auto" and supported)


def autocast(device: torch.device, amp: Amp) -> AbstractContextManager[object]:
    """The context of a network's forward pass; losses always compute in float32."""
    if in_bfloat16(device, amp):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()
