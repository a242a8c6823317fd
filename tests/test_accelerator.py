"""What runs on the CPU runs on an accelerator: tried on a pretended one, in processes that pretend nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch.utils.backend_registration as backends

CHECKS = Path(__file__).parent / "accelerator"


@pytest.mark.skipif(
    not hasattr(backends, "_setup_privateuseone_for_python_backend"), reason="this torch cannot pretend a device"
)
@pytest.mark.parametrize("checks", ["losses", "evaluation", "training"])
def test_on_a_pretended_accelerator(checks: str) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(CHECKS / f"check_{checks}.py")]
    found = subprocess.run(command, cwd=CHECKS.parent.parent, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]
