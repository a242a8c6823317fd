"""What must stay small: working memory for each image, and what an import brings along."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from reid_cckd.samplers import ClassUniformSampler, SuperclassUniformSampler

BYTES_PER_IMAGE = 250 * 2**20 / 5_800_000  # 250 MB for the largest face data set


@pytest.mark.parametrize(
    "make",
    [
        lambda labels: ClassUniformSampler(labels, 16, 4),
        lambda labels: SuperclassUniformSampler(labels % 100, 8, 8),
        lambda labels: SuperclassUniformSampler(labels % 100, 8, 8, labels=labels, samples_per_class=2),
    ],
    ids=["cur", "sur", "sur by class"],
)
def test_memory_beyond_the_labels_is_bounded(make: Callable[[np.ndarray], Any]) -> None:
    labels = np.random.default_rng(0).integers(0, 20_000, 1_400_000)
    tracemalloc.start()
    batches = iter(make(labels))
    for _ in range(100):
        next(batches)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / len(labels) < BYTES_PER_IMAGE


def test_sampling_imports_neither_heavy_packages_nor_other_rooms() -> None:
    code = """
import sys
from reid_cckd.samplers import *
list(ClassUniformSampler([0, 0, 1, 1], 2, 2)), list(SuperclassUniformSampler([0, 0, 1, 1], 2, 2)), UniformSampler(9, 3)
superclass_report([0, 1], [0, 1])
heavy = {"timm", "albumentations", "pytorch_metric_learning", "matplotlib", "faiss", "cv2", "sklearn", "torchvision"}
rooms = {name.split(".")[1] for name in sys.modules if name.startswith("reid_cckd.")}
print(sorted(heavy & set(sys.modules)), sorted(rooms))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] ['errors', 'files', 'samplers']"
