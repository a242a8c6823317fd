"""Losses of student and teacher rows share their manners: poor batches, precision, order of rows, bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from reid_cckd.losses import CorrelationCongruenceLoss
from reid_cckd.losses.against_teacher import AgainstTeacher
from reid_cckd.losses.instance import CosineMimic
from reid_cckd.losses.ranking import CSD, D3still, DarkRankHard, DarkRankSoft
from reid_cckd.losses.relational import PKT, RKDAngle, RKDDistance, SimilarityPreserving

MAKES: dict[str, Callable[[], AgainstTeacher]] = {
    "rkd_distance": RKDDistance,
    "rkd_angle": RKDAngle,
    "sp": SimilarityPreserving,
    "pkt": PKT,
    "darkrank_hard": DarkRankHard,
    "darkrank_hard raw": lambda: DarkRankHard(beta=1, normalize_embeddings=False),
    "darkrank_soft": DarkRankSoft,
    "csd": CSD,
    "d3still": D3still,
}
ZERO_WHEN_EQUAL = ["rkd_distance", "rkd_angle", "sp", "pkt", "darkrank_soft", "d3still"]


def rows(count: int, width: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def repeated(*indices: int, seed: int = 0) -> Tensor:
    return rows(max(indices) + 1, seed=seed)[list(indices)]


def zeroed(count: int, *indices: int, seed: int = 0) -> Tensor:
    return rows(count, seed=seed).index_fill(0, torch.tensor(indices), 0.0)


POOR_BATCHES = {  # student, teacher
    "one row": (rows(1), rows(1, seed=1)),
    "one zero row": (zeroed(1, 0), rows(1, seed=1)),
    "two rows": (rows(2), rows(2, seed=1)),
    "zero rows": (zeroed(6, 0, 3), zeroed(6, 0, 2, seed=1)),
    "nothing but zeros": (torch.zeros(4, 5).double(), torch.zeros(4, 5).double()),
    "equal students": (repeated(0, 0, 0, 0), rows(4, seed=1)),
    "equal teachers": (rows(4), repeated(0, 0, 0, 0, seed=1)),
    "nothing but equal rows": (repeated(0, 0, 0), repeated(0, 0, 0, seed=1)),
    "pairs of equal rows": (repeated(0, 0, 1, 1, 2, 2), repeated(0, 0, 1, 1, 2, 2, seed=1)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", POOR_BATCHES)
@pytest.mark.parametrize("name", MAKES)
def test_poor_batches_have_a_finite_value_and_gradient(name: str, batch: str, dtype: torch.dtype) -> None:
    student, teacher = (part.to(dtype) for part in POOR_BATCHES[batch])
    student = student.clone().requires_grad_()
    value = MAKES[name]()(student, ref_emb=teacher)
    value.backward()
    assert value.shape == ()
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 1e3  # nor does rounding blow it up


@pytest.mark.parametrize("make", [*MAKES.values(), CorrelationCongruenceLoss, CosineMimic])
def test_a_teacher_may_have_answered_in_inference_mode(make: Callable[[], Any]) -> None:
    with torch.inference_mode():
        teacher = rows(6, seed=1)
    values = []
    for answer in (teacher, rows(6, seed=1)):
        student = rows(6).requires_grad_()
        make()(student, ref_emb=answer).backward()
        values.append(student.grad)
    torch.testing.assert_close(*values, rtol=0, atol=0)


@pytest.mark.parametrize("name", MAKES)
def test_only_the_student_learns(name: str) -> None:
    student, teacher = rows(6).requires_grad_(), rows(6, seed=1).requires_grad_()
    MAKES[name]()(student, ref_emb=teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.norm() > 0


@pytest.mark.parametrize("name", ZERO_WHEN_EQUAL)
def test_a_student_equal_to_its_teacher_is_at_zero(name: str) -> None:
    both = rows(7)
    assert abs(float(MAKES[name]()(both, ref_emb=both))) < 1e-14
    assert float(MAKES[name]()(both, ref_emb=rows(7, seed=1))) > 1e-4


@pytest.mark.parametrize("name", MAKES)
def test_the_order_of_the_batch_does_not_matter(name: str) -> None:
    student, teacher = rows(9), rows(9, seed=1)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    loss = MAKES[name]()
    torch.testing.assert_close(loss(student[order], ref_emb=teacher[order]), loss(student, ref_emb=teacher))
    assert not torch.isclose(loss(student[order], ref_emb=teacher), loss(student, ref_emb=teacher))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", MAKES)
def test_half_precision_and_autocast_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    student, teacher = rows(8).to(dtype).requires_grad_(), rows(8, seed=1).to(dtype)
    loss = MAKES[name]()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, ref_emb=teacher)
        value.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), loss(student.double(), ref_emb=teacher.double()), rtol=2e-5, atol=1e-7)
    assert student.grad is not None
    assert student.grad.dtype == dtype


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize(
    ("names", "arguments"),
    [
        ("ref_emb", {}),
        ("ref_emb", {"ref_emb": rows(5)}),
        ("ref_emb", {"ref_emb": rows(1)[0]}),
        ("ref_emb", {"ref_emb": rows(4).index_fill(1, torch.tensor([2]), torch.inf)}),
        ("embeddings", {"embeddings": rows(4).unsqueeze(0), "ref_emb": rows(4)}),
        ("embeddings", {"embeddings": rows(0), "ref_emb": rows(0)}),
        ("embeddings", {"embeddings": rows(4).index_fill(1, torch.tensor([2]), torch.nan), "ref_emb": rows(4)}),
        ("indices_tuple", {"indices_tuple": (torch.tensor([0]),) * 3, "ref_emb": rows(4)}),
    ],
)
def test_bad_input_is_named(name: str, names: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{names}:"):
        MAKES[name]()(**{"embeddings": rows(4), **arguments})


@pytest.mark.parametrize("make", [CSD, D3still])
def test_spaces_that_are_compared_have_one_width(make: Callable[[], AgainstTeacher]) -> None:
    with pytest.raises(ValueError, match=r"^ref_emb: width 3.*embeddings: 5"):
        make()(rows(4), ref_emb=rows(4, width=3))
