"""The examples of the losses run, and their students learn from their teachers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def history(script: str) -> list[dict[str, float]]:
    """What the example prints at every epoch: the terms by name."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(EXAMPLES / script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = re.findall(r"^epoch \d+ (.+)$", done.stdout, flags=re.MULTILINE)
    return [{name: float(value) for name, value in re.findall(r"(\w+) ([\d.]+)", line)} for line in lines]


def check(epochs: list[dict[str, float]], terms: list[str]) -> None:
    assert len(epochs) == 20
    assert sorted(epochs[0]) == sorted(terms)
    assert all(0 <= epochs[-1][term] < epochs[0][term] for term in terms)
    assert epochs[-1][terms[-1]] < 0.6 * epochs[0][terms[-1]]


def test_a_plain_script_of_pytorch_metric_learning() -> None:
    check(history("losses_pml.py"), ["triplet", "mimic", "correlation"])
    assert len((EXAMPLES / "losses_pml.py").read_text().splitlines()) < 60


def test_a_task_of_timm() -> None:
    pytest.importorskip("timm.task")  # timm has had tasks since 1.0.23
    check(history("losses_timm.py"), ["loss", "ce", "kd", "cc"])


@pytest.mark.slow
def test_lightning_on_two_processes() -> None:
    pytest.importorskip("lightning")
    check(history("losses_lightning.py"), ["mimic", "correlation"])
