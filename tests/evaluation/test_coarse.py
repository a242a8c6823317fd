"""What bfloat16 products leave out lies below the threshold for certain."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_cckd.evaluation import coarse


def unit_rows(seed, count, width):
    """Unit rows in float32, some of few entries, so that products reach from 0 to 1."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, width)) * (rng.random((count, width)) < rng.uniform(0.05, 1, (count, 1)))
    rows[:, 0] += 0.1 + rng.random(count)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def halved(rows):
    return coarse.halve(torch.from_numpy(rows), torch.from_numpy(np.linalg.norm(rows, axis=1)))


def everything(monkeypatch):
    monkeypatch.setattr(coarse, "_FEW", 1.0)


@pytest.mark.parametrize("width", [3, 64, 2048])
@given(seed=st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_all_that_reach_the_threshold_are_found(width, seed):
    left, right = unit_rows(seed, 20, width), unit_rows(seed + 1, 300, width)
    exact = left.astype(np.float64) @ right.astype(np.float64).T
    least = np.quantile(exact, 0.9, axis=1).astype(np.float32)
    least = np.maximum(least, np.float32(2 * coarse.margin(width)))
    with pytest.MonkeyPatch.context() as patch:
        everything(patch)
        found = coarse.reaching(halved(left), halved(right), least)
    near = set(zip(*(part.tolist() for part in found), strict=True))
    wanted = set(zip(*(part.tolist() for part in np.nonzero(exact >= least[:, None])), strict=True))
    slack = exact >= least[:, None] - 3 * coarse.margin(width)
    assert wanted <= near
    assert all(slack[pair] for pair in near)


def test_a_threshold_in_the_way_of_rounding_is_met(monkeypatch):
    """Nearly every entry is rounded down as far as it goes, on both sides, and the product of 1 still counts."""
    everything(monkeypatch)
    row = np.full((1, 256), (1 + 2**-8 - 2**-15) / 16)
    row[0, 250:] = np.sqrt((1 - (row[0, :250] ** 2).sum()) / 6)
    halves = halved(row.astype(np.float32))
    assert float(halves.double() @ halves.double().T) < 1 - 0.95 * 2**-7
    assert [part.tolist() for part in coarse.reaching(halves, halves, np.ones(1, np.float32))] == [[0], [0]]


def test_blocks_do_not_matter(monkeypatch):
    everything(monkeypatch)
    left, right = halved(unit_rows(0, 9, 16)), halved(unit_rows(1, 101, 16))
    least = np.full(9, 0.3, np.float32)
    whole = coarse.reaching(left, right, least)
    monkeypatch.setattr(coarse, "_BLOCK", 7)
    parts = coarse.reaching(left, right, least)
    assert len(whole[0]) > 50
    assert sorted(zip(*whole, strict=True)) == sorted(zip(*parts, strict=True))


@pytest.mark.parametrize("least", [-np.inf, -0.5, 0.0, 0.005])
def test_thresholds_that_are_not_positive_are_not_compared(least):
    rows = halved(unit_rows(0, 4, 16))
    assert coarse.reaching(rows, rows, np.array([0.5, least, 0.5, 0.5], np.float32)) is None


def test_many_are_not_listed():
    rows = halved(unit_rows(0, 50, 16))
    assert coarse.reaching(rows, rows, np.full(50, 0.1, np.float32)) is None


def test_unit_rows_are_those_of_any_length(monkeypatch):
    monkeypatch.setattr(coarse, "_TOGETHER", 3)
    rows = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    lengths = torch.linalg.vector_norm(rows, dim=1)
    assert torch.equal(coarse.halve(rows, lengths), (rows / lengths[:, None]).bfloat16())
