"""What is predicted before an evaluation is what it takes, within a factor."""

import subprocess
import sys

import pytest
import torch

from reid_cckd.evaluation import Reranking, predict_retrieval, product_rate
from reid_cckd.evaluation.rows import BLOCK

MEASURE = """
import pathlib, sys
import numpy as np
from reid_cckd.evaluation import Reranking, evaluate_retrieval
queries, items, width, rerank = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
ids = [rng.integers(0, items // 20, n) for n in (queries, items)]
rows = [rng.standard_normal((n, width), dtype=np.float32) for n in (queries, items)]
evaluate_retrieval(rows[0][:20], rows[1][:50], ids[0][:20] * 0, ids[1][:50] * 0)
status, reset = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")
memory = lambda field: next(int(l.split()[1]) for l in status.read_text().splitlines() if l.startswith(field))
reset.write_text("5")
before = memory("VmRSS")
evaluate_retrieval(*rows, *ids, reranking=Reranking() if rerank else None)
print((memory("VmHWM") - before) * 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("size", [(2000, 12000, 64), (300, 40000, 128)])
@pytest.mark.parametrize("reranking", [None, Reranking()])
def test_memory_is_what_it_takes_within_a_factor(size, reranking):
    if reranking is not None:
        size = (size[0] // 4, size[1] // 4, size[2])
    arguments = [*map(str, size), str(int(reranking is not None))]
    done = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=True)
    predicted = predict_retrieval(*size, reranking).memory
    assert 0.4 < predicted / float(done.stdout) < 2.5, (predicted, done.stdout)


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
