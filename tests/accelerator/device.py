"""The accelerator of the checks beside this file: a pretended one, or with ``ACCELERATOR=cuda`` the first GPU.

`WAITS` are the moments at which the device was waited for.
"""

from __future__ import annotations

import os
import traceback
import warnings
from typing import Any

import torch

if os.environ.get("ACCELERATOR") == "cuda":
    NAME, DEVICE = "cuda", torch.device("cuda", 0)
    WAITS: list[str] = []

    def _note(message: Any, *place: Any, **more: Any) -> None:
        if "synchronizing CUDA operation" in str(message):
            ours = [frame for frame in traceback.extract_stack()[:-1] if "/reid_cckd/" in frame.filename]
            WAITS.append(f"at {ours[-1].filename}:{ours[-1].lineno}" if ours else "in a test or in autograd")

    torch.backends.cudnn.allow_tf32 = False  # the numbers are compared with those of the CPU
    torch.cuda.set_sync_debug_mode("warn")
    warnings.simplefilter("always")
    warnings.showwarning = _note
else:
    from tests.accelerator.far import DEVICE, NAME, WAITS

__all__ = ["DEVICE", "NAME", "WAITS"]
