"""DIST and DKD equal their twins, also where there is nothing to correlate or to choose from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reid_cckd.losses.instance import HintonKD
from reid_cckd.losses.logits import DIST, DKD, dkd
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


DECOUPLED = [{}, {"alpha": 2.0, "beta": 0.5}, {"alpha": 0.0}, {"beta": 0.0}, {"temperature": 1.0}]


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("options", DECOUPLED)
def test_decoupled_kd_equals_the_twin(options: dict[str, float], count: int) -> None:
    student, teacher, labels = 3 * rows(count), 2 * rows(count, seed=1), torch.arange(count) % 5
    expected = twin.dkd(student.numpy(), teacher.numpy(), labels.tolist(), **options)
    np.testing.assert_allclose(DKD(**options)(student, labels, ref_emb=teacher), expected, rtol=1e-9, atol=1e-12)


def test_gradient_of_decoupled_kd() -> None:
    student, teacher, labels = rows(6).requires_grad_(), rows(6, seed=1), torch.tensor([0, 4, 2, 2, 1, 3])
    assert torch.autograd.gradcheck(lambda x: DKD()(x, labels, ref_emb=teacher), student)


def test_kd_is_its_parts_by_how_likely_the_teacher_finds_the_others() -> None:
    student, teacher, labels = rows(6), rows(6, seed=1), torch.tensor([0, 4, 2, 2, 1, 3])
    likely = torch.softmax(teacher / 4.0, dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
    own, others = (dkd(student, teacher, labels, alpha, 1.0 - alpha) for alpha in (1.0, 0.0))
    torch.testing.assert_close((own + (1 - likely) * others).mean(), HintonKD()(student, ref_emb=teacher))


def test_a_teacher_that_is_sure_still_tells_the_others_apart() -> None:
    student, teacher = torch.zeros(2, 4, requires_grad=True), torch.tensor([[900.0, 3, 1, 0], [0, 900.0, 3, 1]])
    DKD()(student, torch.tensor([0, 1]), ref_emb=teacher).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad[0, 1] < student.grad[0, 2] < student.grad[0, 3]


def test_two_classes_leave_one_other() -> None:
    student, teacher, labels = rows(4, width=2), rows(4, width=2, seed=1), torch.tensor([0, 1, 1, 0])
    torch.testing.assert_close(DKD()(student, labels, ref_emb=teacher), HintonKD()(student, ref_emb=teacher))


def test_bad_input_of_decoupled_kd_is_named() -> None:
    with pytest.raises(ValueError, match=r"^labels: pass the classes"):
        DKD()(rows(4), ref_emb=rows(4))
    with pytest.raises(ValueError, match=r"^labels: expected integers from 0 to 4, got torch.int64 from 0 to 5"):
        DKD()(rows(2), torch.tensor([0, 5]), ref_emb=rows(2))
    with pytest.raises(ValueError, match=r"^embeddings: expected logits of two classes or more, got \(4, 1\)"):
        DKD()(rows(4, width=1), torch.zeros(4).long(), ref_emb=rows(4, width=1))
    with pytest.raises(ValueError, match=r"^ref_emb: width 3.*logits of the same classes"):
        DKD()(rows(4), torch.zeros(4).long(), ref_emb=rows(4, width=3))
