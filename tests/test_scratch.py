"""Memory to work in: where it begins, how long it stays, and whose it is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from reid_cckd.losses import CorrelationCongruenceLoss
from reid_cckd.scratch import Scratch, empty

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [0, 1, 1000, 3_000_000])
def test_empty_begins_with_a_page(count: int, dtype: torch.dtype) -> None:
    numbers = empty(count, CPU, dtype)
    assert numbers.shape == (count,)
    assert numbers.dtype == dtype
    assert numbers.data_ptr() % 4096 == 0 or not count
    numbers.fill_(1)


def test_a_piece_stays_until_more_is_asked_for() -> None:
    scratch, like = Scratch(), torch.zeros(1)
    first = scratch.take("a", (10, 20), like).fill_(3)
    again, other = scratch.take("a", (5, 7), like), scratch.take("b", (10, 20), like)
    assert again.shape == (5, 7)
    assert again.data_ptr() == first.data_ptr() != other.data_ptr()
    assert scratch.take("a", (20, 20), like).data_ptr() != first.data_ptr()
    assert scratch.take("a", (2, 2), like.double()).dtype == torch.float64


def test_each_thread_has_its_own() -> None:
    scratch, like = Scratch(), torch.zeros(1)
    mine = scratch.take("a", (10,), like)
    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(scratch.take, "a", (10,), like).result()
    assert mine.data_ptr() != theirs.data_ptr()


def gradient_of(student: Tensor, teacher: Tensor) -> Tensor:
    own = student.clone().requires_grad_()
    CorrelationCongruenceLoss()(own, ref_emb=teacher).backward()
    assert own.grad is not None
    return own.grad


def test_a_loss_in_inference_mode_leaves_memory_that_training_can_use() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(700, 40), torch.randn(700, 30)
    expected = gradient_of(student, teacher)

    def infer_then_train() -> Tensor:
        with torch.inference_mode():
            CorrelationCongruenceLoss()(student, ref_emb=teacher)
        return gradient_of(student, teacher)

    with ThreadPoolExecutor(1) as pool:  # a thread that has no memory yet
        assert torch.equal(pool.submit(infer_then_train).result(), expected)


def test_threads_at_work_together_do_not_disturb_one_another() -> None:
    torch.manual_seed(0)
    pairs = [(torch.randn(600, 20), torch.randn(600, 20)) for _ in range(8)]
    expected = [gradient_of(*pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda pair: gradient_of(*pair), pairs))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)
