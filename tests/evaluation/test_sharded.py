"""Two processes with a gallery each half of which only one reads get what one process gets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

from reid_cckd.evaluation import evaluate_retrieval, evaluate_sharded

BLOCK = 64
KINDS = ("random", "tied", "junk only in one half", "fewer blocks than processes", "market1501", "no match", "bad row")


def data(kind):
    rng = np.random.default_rng(3)
    items = 40 if kind == "fewer blocks than processes" else 333
    ids = [rng.integers(0, 12, n) for n in (30, items)]
    cameras = [rng.integers(0, 3, n) for n in (30, items)]
    rows = [rng.standard_normal((n, 8)).astype(np.float32) for n in (30, items)]
    if kind == "tied":  # rows of one entry: similarities are exact
        rows = [np.eye(5, dtype=np.float32)[rng.integers(0, 5, n)] for n in (30, items)]
    if kind == "junk only in one half":
        cameras[1][:192] = 7
    if kind == "no match":
        ids[0] += 100
    if kind == "bad row":
        rows[1][300] = 0  # in the second process's part
    return *rows, *ids, *cameras


def options(kind):
    return {"convention": "market1501"} if kind == "market1501" else {}


def outcome(evaluate, kind, **more):
    try:
        result = evaluate(*data(kind), (1, 5), chunk=7, **options(kind), **more)
    except ValueError as error:
        return str(error)
    return {**result.summary(), "ap": result.ap, "first": result.first_rank, "inp": result.inp}


def process(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    try:
        torch.save([outcome(evaluate_sharded, kind, block=BLOCK) for kind in KINDS], f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("sharded")
    multiprocessing.spawn(process, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_has_the_result_of_one(outcomes, kind, rank):
    found, expected = outcomes[rank][KINDS.index(kind)], outcome(evaluate_retrieval, kind)
    if isinstance(expected, str):
        assert found == expected
        assert ("share no id" in expected) if kind == "no match" else ("row 300 is a zero vector" in expected)
    else:
        assert found.keys() == expected.keys()
        for name in found:
            np.testing.assert_array_equal(found[name], expected[name])
