"""The memory of pairs: a queue with a length and an age, correlated with each batch."""

from __future__ import annotations

import io
import itertools
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.reducers import DoNothingReducer
from torch import Tensor

from reid_cckd.losses import Bilinear, CorrelationCongruenceLoss, GaussianRBF, PairMemory, memory, tiles
from tests.reference import correlation as twin


def rows(count: int, width: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def held(queue: PairMemory) -> list[int]:
    """The numbers in the memory, of rows that are one number each."""
    return [int(row) for block in queue.blocks(torch.zeros(1)) for row in block.student[:, 0]]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "EVEN", 1)
    monkeypatch.setattr(tiles, "TILE_ROWS", 3)
    monkeypatch.setattr(tiles, "TILE_COLUMNS", 6)
    monkeypatch.setattr(memory, "BLOCK_ROWS", 4)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.none() | st.integers(1, 4), st.lists(st.integers(1, 12), max_size=8))
def test_holds_what_a_simple_queue_would(size: int, max_age: int | None, batches: list[int]) -> None:
    queue, wanted = PairMemory(size, max_age), deque[tuple[int, int]](maxlen=size)
    numbers = itertools.count()
    for now, count in enumerate(batches):
        batch = [next(numbers) for _ in range(count)]
        queue.add(torch.tensor(batch)[:, None].float(), torch.tensor(batch)[:, None].double(), torch.tensor(batch))
        wanted.extend((number, now) for number in batch)
        fresh = [number for number, then in wanted if max_age is None or now - then < max_age]
        assert held(queue) == fresh
        assert len(queue) == len(fresh)
        assert [int(label) for block in queue.blocks(torch.zeros(1)) for label in block.labels] == fresh


def test_small_batches_are_put_together() -> None:
    queue = PairMemory(100)
    for _ in range(40):
        queue.add(torch.zeros(1, 2), torch.zeros(1, 3))
    assert [block.number for block in queue.blocks(torch.zeros(1))] == [4] * 10


@pytest.mark.parametrize("distance", [GaussianRBF(), GaussianRBF(order=None), Bilinear(), LpDistance()], ids=str)
@pytest.mark.parametrize("weights", [{}, {"within_weight": 2.0, "between_weight": 0.5}], ids=["plain", "weighted"])
def test_batch_is_correlated_with_itself_and_the_past(distance: Any, weights: dict[str, float]) -> None:
    loss = CorrelationCongruenceLoss(distance, memory=PairMemory(9), reducer=DoNothingReducer(), **weights)
    student, teacher, labels = rows(15), rows(15, 3, seed=1), torch.arange(15) % 3
    for start in (0, 5):
        part = slice(start, start + 5)
        loss(student[part], labels[part], ref_emb=teacher[part])
    found = loss(student[10:], labels[10:], ref_emb=teacher[10:])["loss"]["losses"]
    columns = [*range(10, 15), *range(1, 10)]  # the batch, and the nine rows before it
    same = labels[10:, None] == labels[columns][None]
    table = None if not weights else np.where(same, weights["within_weight"], weights["between_weight"])
    unit = twin.unit(student), twin.unit(teacher)
    phi = {
        "GaussianRBF": lambda x, y: twin.taylor(x, y, 0.4, 2),
        "Bilinear": twin.bilinear,
        "LpDistance": twin.mmd,
    }[type(distance).__name__]
    if getattr(distance, "order", 0) is None:
        phi = lambda x, y: twin.rbf(x, y, 0.4)  # noqa: E731
    wanted = twin.row_losses(phi, unit[0][10:], unit[1][10:], table, unit[0][1:10], unit[1][1:10])
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


@pytest.mark.parametrize("reducer", [None, DoNothingReducer()], ids=["equal rows", "unequal rows"])
@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_gradient_reaches_the_batch_only(reducer: Any, weight: float) -> None:
    loss = CorrelationCongruenceLoss(memory=PairMemory(9), reducer=reducer, within_weight=weight)
    past = rows(8, seed=3).requires_grad_()
    loss(past, torch.arange(8) % 2, ref_emb=rows(8, seed=4))
    loss.eval()  # hold the memory still
    teacher, labels = rows(4, seed=1), torch.arange(4) % 2

    def value(student: Tensor) -> Tensor:
        result = loss(student, labels, ref_emb=teacher)
        return result if reducer is None else result["loss"]["losses"]

    assert torch.autograd.gradcheck(value, rows(4).requires_grad_(), nondet_tol=1e-12)
    assert torch.autograd.gradgradcheck(value, rows(4).requires_grad_())
    value(rows(4).requires_grad_()).sum().backward()
    assert past.grad is None


def test_backward_sees_the_rows_that_forward_saw() -> None:
    def gradient(further: int) -> Tensor:
        loss = CorrelationCongruenceLoss(memory=PairMemory(6), reducer=DoNothingReducer())
        loss(rows(6, seed=3), ref_emb=rows(6, seed=4))
        student = rows(4).requires_grad_()
        values = loss(student, ref_emb=rows(4, seed=1))["loss"]["losses"]
        for seed in range(further):
            loss(rows(6, seed=seed), ref_emb=rows(6, seed=seed + 9))
        (values * torch.arange(4)).sum().backward()
        assert student.grad is not None
        return student.grad

    torch.testing.assert_close(gradient(3), gradient(0), rtol=0, atol=0)


def test_only_training_fills_it_and_only_with_sound_rows() -> None:
    loss = CorrelationCongruenceLoss(memory=PairMemory(9))
    assert loss.memory is not None
    loss.eval()(rows(4), ref_emb=rows(4))
    assert len(loss.memory) == 0
    with pytest.raises(ValueError, match="embeddings"):
        loss.train()(rows(4) * torch.nan, ref_emb=rows(4))
    assert len(loss.memory) == 0
    student = rows(4)
    loss(student, ref_emb=rows(4))
    student.zero_()  # a caller may use its buffer again
    torch.testing.assert_close(loss.memory.blocks(student)[0].student, rows(4))


def test_checkpoint_continues_exactly() -> None:
    def made() -> CorrelationCongruenceLoss:
        return CorrelationCongruenceLoss(memory=PairMemory(12, max_age=3), within_weight=2.0)

    def call(loss: CorrelationCongruenceLoss, seed: int) -> float:
        return float(loss(rows(5, seed=seed), torch.arange(5), ref_emb=rows(5, 3, seed=seed + 50)))

    whole, first, second = made(), made(), made()
    for seed in range(4):
        assert call(whole, seed) == call(first, seed)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(4, 9):
        np.testing.assert_allclose(call(second, seed), call(whole, seed), rtol=1e-12)
    assert second.memory is not None
    assert whole.memory is not None
    assert len(second.memory) == len(whole.memory) == 12
    empty = made()
    empty.load_state_dict(made().state_dict())


def test_bad_use_is_named() -> None:
    with pytest.raises(ValueError, match="size"):
        PairMemory(0)
    with pytest.raises(ValueError, match="max_age"):
        PairMemory(5, max_age=0)
    queue = PairMemory(5)
    queue.add(rows(2), rows(2))
    with pytest.raises(ValueError, match="student: rows of width 3"):
        queue.add(rows(2, 3), rows(2))
    with pytest.raises(ValueError, match="labels"):
        queue.add(rows(2), rows(2), torch.arange(2))
    loss = CorrelationCongruenceLoss(memory=PairMemory(5))
    pairs = tuple(torch.tensor([number]) for number in (0, 1, 2))
    with pytest.raises(ValueError, match="indices_tuple"):
        loss(rows(4), None, pairs, ref_emb=rows(4))
