"""The samplers' examples run, and every process of theirs sees the batches that it should."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reid_cckd.samplers import ClassUniformSampler, SuperclassUniformSampler

EXAMPLES = Path(__file__).parents[2] / "examples"
LABELS = np.repeat(np.arange(12), 5)
Batches = list[list[int]]


def printed(script: str, *launcher: str) -> dict[str, Batches]:
    """What the example prints: names and lists; two processes may share a line."""
    command = [sys.executable, *launcher, str(EXAMPLES / script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    lists = re.findall(r"(rank \d|batches|superclasses) (\[\[.*?\]\]|\[[\d, ]*\])", done.stdout)
    return {name: ast.literal_eval(values) for name, values in lists}


def expected(epochs: int) -> Batches:
    sampler = ClassUniformSampler(LABELS, 4, 2, seed=0)
    batches = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        batches += list(sampler)
    return batches


def test_a_plain_loop_goes_on_where_it_was_interrupted() -> None:
    assert printed("samplers_plain.py")["batches"] == expected(epochs=3)


@pytest.mark.slow
def test_lightning_on_two_processes() -> None:
    pytest.importorskip("lightning")
    seen = printed("samplers_lightning.py")
    assert seen["rank 0"] == expected(epochs=2)[0::2]
    assert seen["rank 1"] == expected(epochs=2)[1::2]


@pytest.mark.slow
def test_accelerate_on_two_processes() -> None:
    pytest.importorskip("accelerate")
    seen = printed("samplers_accelerate.py", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert seen["rank 0"] == expected(epochs=2)[0::2]
    assert seen["rank 1"] == expected(epochs=2)[1::2]


def test_the_trainer_of_pytorch_metric_learning() -> None:
    seen = printed("samplers_pml.py")
    sampler = SuperclassUniformSampler(seen["superclasses"], 2, 4, seed=0)
    batches = list(sampler)
    sampler.set_epoch(1)
    assert seen["batches"] == batches + list(sampler)
