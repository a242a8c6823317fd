"""DIST equals its twin, also where there is nothing to correlate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reid_cckd.losses.logits import DIST
from tests.losses.test_against_teacher import POOR_BATCHES, rows
from tests.reference import logits as twin

OPTIONS = [{}, {"beta": 2.0, "gamma": 0.5}, {"temperature": 4.0}]


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("options", OPTIONS)
def test_value_equals_the_twin(options: dict[str, float], count: int) -> None:
    student, teacher = 3 * rows(count), 2 * rows(count, seed=1)
    expected = twin.dist(student.numpy(), teacher.numpy(), **options)
    np.testing.assert_allclose(DIST(**options)(student, ref_emb=teacher), expected, rtol=1e-9)


@pytest.mark.parametrize("batch", POOR_BATCHES)
def test_poor_batches_equal_the_twin(batch: str) -> None:
    student, teacher = POOR_BATCHES[batch]
    expected = twin.dist(student.numpy(), teacher.numpy())
    np.testing.assert_allclose(DIST()(student, ref_emb=teacher), expected, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", POOR_BATCHES)
def test_rounding_is_no_direction(batch: str, dtype: torch.dtype) -> None:
    student, teacher = (7.3 + part.to(dtype) for part in POOR_BATCHES[batch])  # softmax takes the 7.3 out, nearly
    student.requires_grad_()
    DIST()(student, ref_emb=teacher).backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 1e3


def test_gradient() -> None:
    student, teacher = rows(6).requires_grad_(), rows(6, seed=1)
    assert torch.autograd.gradcheck(lambda x: DIST(temperature=2.0)(x, ref_emb=teacher), student)


def test_a_linear_change_of_the_probabilities_is_free() -> None:
    teacher = rows(6)
    likely = 0.5 * torch.softmax(teacher, dim=1) + 0.5 / teacher.shape[1]
    assert float(DIST()(likely.log(), ref_emb=teacher)) < 1e-6
    assert float(DIST()(rows(6, seed=1), ref_emb=teacher)) > 0.1


def test_only_the_student_learns_and_half_precision_is_widened() -> None:
    student, teacher = rows(6).half().requires_grad_(), rows(6, seed=1).half().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = DIST()(student, ref_emb=teacher)
        value.backward()
    assert value.dtype == torch.float32
    expected = DIST()(student.double(), ref_emb=teacher.double())
    torch.testing.assert_close(value.double(), expected, rtol=2e-5, atol=1e-7)
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.norm() > 0


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"^ref_emb: width 3.*logits of the same classes"):
        DIST()(rows(4), ref_emb=rows(4, width=3))
    with pytest.raises(ValueError, match=r"^ref_emb:"):
        DIST()(rows(4))
    with pytest.raises(ValueError, match=r"^embeddings:"):
        DIST()(rows(4).reshape(4, 5, 1, 1), ref_emb=rows(4))
    with pytest.raises(ValueError, match=r"^temperature:"):
        DIST(temperature=0)
