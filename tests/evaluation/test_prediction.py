"""What is predicted before an evaluation is what it takes, within a factor."""

import subprocess
import sys

import pytest
import torch

from reid_cckd.evaluation import Reranking, predict_identification, predict_retrieval, product_rate
from reid_cckd.evaluation.rows import BLOCK

MEASURE = """
import pathlib, sys
import numpy as np
import reid_cckd.evaluation as e
rng = np.random.default_rng(0)
def rows(count, width):
    return rng.standard_normal((count, width), dtype=np.float32)
def ids(count, people):
    return rng.integers(0, people, count)
{data}
def work(*data):
    {work}
work(*(part[:50] if part.ndim > 1 else part[:50] * 0 for part in data))
status, reset = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")
memory = lambda field: next(int(l.split()[1]) for l in status.read_text().splitlines() if l.startswith(field))
reset.write_text("5")
before = memory("VmRSS")
work(*data)
print((memory("VmHWM") - before) * 1024)
"""
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def measured(data: str, work: str) -> float:
    """Bytes beyond the inputs that ``work`` takes in a process of its own, after a small round."""
    program = [sys.executable, "-c", MEASURE.format(data=data, work=work)]
    return float(subprocess.run(program, capture_output=True, text=True, check=True).stdout)


@linux_only
@pytest.mark.parametrize("size", [(2000, 12000, 64), (300, 40000, 128)])
@pytest.mark.parametrize("reranking", [None, Reranking()])
def test_memory_is_what_it_takes_within_a_factor(size, reranking):
    if reranking is not None:
        size = (size[0] // 4, size[1] // 4, size[2])
    queries, items, width = size
    people = items // 20
    data = f"data = rows({queries}, {width}), rows({items}, {width}), ids({queries}, {people}), ids({items}, {people})"
    taken = measured(data, f"e.evaluate_retrieval(*data, reranking={'e.Reranking()' if reranking else None})")
    predicted = predict_retrieval(*size, reranking).memory
    assert 0.4 < predicted / taken < 2.5, (predicted, taken)


@linux_only
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_memory_of_identification_is_what_it_takes_within_a_factor(dtype):
    data = f"data = rows(500, 512), ids(500, 20), rows(60_000, 512).astype(np.{dtype})"
    taken = measured(data, "e.evaluate_identification(*data, [len(data[2])])")
    predicted = predict_identification(500, 60_000, 512, converted=dtype == "float16").memory
    assert 0.85 < predicted / taken < 2, (predicted, taken)


def test_prediction_is_linear_without_reranking():
    one, two = (predict_retrieval(1000, n, 512).products for n in (10_000, 20_000))
    assert two == 2 * one
    assert predict_retrieval(10**4, 10**7, 512).memory < 3.2e9


def test_threads_that_search_for_neighbours_hold_scores_each(monkeypatch):
    few = predict_retrieval(2000, 78_000, 64, Reranking()).memory
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert predict_retrieval(2000, 78_000, 64, Reranking()).memory > max(few, 64 * 1000 * BLOCK * 4)
    assert predict_retrieval(100, 200, 64, Reranking()).memory < 2e7  # all the rows are fewer than they could hold


def test_rate_gives_seconds():
    rate = product_rate(64)
    assert 1e8 < rate < 1e15
    assert predict_retrieval(100, 1000, 64).seconds(rate) > 0
