"""What runs on the CPU runs on an accelerator: on a pretended one, and on a GPU where there is one.

In processes that pretend nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.utils.backend_registration as backends

CHECKS = Path(__file__).parent / "accelerator"
CAN_PRETEND = hasattr(backends, "_setup_privateuseone_for_python_backend")
DEVICES = [
    pytest.param("far", marks=pytest.mark.skipif(not CAN_PRETEND, reason="this torch cannot pretend a device")),
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("checks", ["losses", "evaluation", "training"])
def test_on_an_accelerator(checks: str, device: str) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:warnings"]
    found = subprocess.run(
        [*command, str(CHECKS / f"check_{checks}.py")],
        cwd=CHECKS.parent.parent,
        env={**os.environ, "ACCELERATOR": device},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]
