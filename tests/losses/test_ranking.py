"""Ranking losses equal their twins, and do what their papers say of orders and lists."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from reid_cckd.losses.against_teacher import AgainstTeacher
from reid_cckd.losses.ranking import CSD, D3still, DarkRankHard, DarkRankSoft
from tests.losses.test_against_teacher import POOR_BATCHES, rows
from tests.reference import ranking as twin

LOSSES: dict[str, tuple[Callable[[], AgainstTeacher], Callable[..., float]]] = {
    "hard": (DarkRankHard, twin.darkrank_hard),
    "hard of 2": (lambda: DarkRankHard(list_length=2), lambda s, t: twin.darkrank_hard(s, t, size=2)),
    "hard raw": (
        lambda: DarkRankHard(1, 1, 20, normalize_embeddings=False),
        lambda s, t: twin.darkrank_hard(s, t, 1, 1, 20, normalize=False),
    ),
    "soft": (DarkRankSoft, twin.darkrank_soft),
    "soft of 3": (lambda: DarkRankSoft(2, 1.5, 3), lambda s, t: twin.darkrank_soft(s, t, 2, 1.5, 3)),
    "csd": (CSD, twin.csd),
    "csd of 3": (lambda: CSD(3, 0.5, 0.2), lambda s, t: twin.csd(s, t, 3, 0.5, 0.2)),
    "d3still": (D3still, twin.d3still),
    "d3still of 4": (lambda: D3still(4, 1, 3, 0.5), lambda s, t: twin.d3still(s, t, 4, 1, 3, 0.5)),
}


@pytest.mark.parametrize("count", [2, 3, 9, 14])
@pytest.mark.parametrize("name", LOSSES)
def test_value_equals_the_twin(name: str, count: int) -> None:
    make, reference = LOSSES[name]
    student, teacher = rows(count), 2 * rows(count, seed=1)
    expected = reference(student.numpy(), teacher.numpy())
    np.testing.assert_allclose(make()(student, ref_emb=teacher), expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("batch", POOR_BATCHES)
@pytest.mark.parametrize("name", LOSSES)
def test_poor_batches_equal_the_twin(name: str, batch: str) -> None:
    make, reference = LOSSES[name]
    student, teacher = POOR_BATCHES[batch]
    expected = reference(student.numpy(), teacher.numpy())
    np.testing.assert_allclose(make()(student, ref_emb=teacher), expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient(name: str) -> None:
    student, teacher = rows(6).requires_grad_(), rows(6, seed=1)
    assert torch.autograd.gradcheck(lambda x: LOSSES[name][0]()(x, ref_emb=teacher), student)


def test_of_all_orders_the_scores_own_is_the_likeliest() -> None:
    teacher = torch.tensor([[0.0], [1.0], [2.1], [3.3]])
    loss = DarkRankHard(alpha=1, beta=1, normalize_embeddings=False)
    reversed_ends = teacher[[0, 2, 1, 3]]
    assert loss(teacher, ref_emb=teacher) < loss(reversed_ends, ref_emb=teacher)
    assert loss(5 * teacher, ref_emb=teacher) < loss(teacher, ref_emb=teacher)  # the surer the better


def test_equal_rows_make_every_order_equally_likely() -> None:
    same, teacher = torch.ones(6, 3), rows(6, 3).float()
    assert float(DarkRankHard()(same, ref_emb=teacher)) == pytest.approx(math.log(math.factorial(4)))


def test_lists_are_the_teachers_nearest_rows() -> None:
    teacher = rows(6) + torch.tensor([-9.0, -9, -9, 9, 9, 9]).double().unsqueeze(1)  # two clusters of three
    student = rows(6, seed=1)
    for loss in (DarkRankHard(1, 1, 2, False), DarkRankSoft(1, 1, 2, False), CSD(3), D3still(3, 0)):
        parts = [loss(student[half], ref_emb=teacher[half]) for half in (slice(3), slice(3, 6))]
        torch.testing.assert_close(loss(student, ref_emb=teacher), sum(parts) / 2)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_context_of_an_equal_student_is_at_zero_for_one_temperature(temperature: float) -> None:
    both = rows(7)
    assert abs(float(CSD(4, temperature, temperature)(both, ref_emb=both))) < 1e-14
    assert float(CSD(4, temperature, 2 * temperature)(both, ref_emb=both)) > 1e-5


def test_context_aligns_spaces_where_relations_do_not() -> None:
    teacher = rows(7)
    rotated = teacher @ torch.linalg.qr(rows(5, seed=2)).Q
    assert CSD(7, 0.1, 0.1)(rotated, ref_emb=teacher) > 0.1
    assert abs(float(DarkRankSoft()(rotated, ref_emb=teacher))) < 1e-13


def test_wrong_orders_weigh_by_beta_and_right_ones_by_gamma() -> None:
    teacher, student = rows(8), rows(8, seed=1)
    features, hard, easy = (D3still(10, *weights)(student, ref_emb=teacher) for weights in np.eye(3).tolist())
    assert min(features, hard, easy) > 0
    torch.testing.assert_close(D3still(10, 50, 2, 1)(student, ref_emb=teacher), 50 * features + 2 * hard + easy)
    assert D3still(10, 0, 1, 0)(teacher + 1e-6 * student, ref_emb=teacher) == 0  # no order is wrong


@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("alpha", lambda: DarkRankHard(alpha=0)),
        ("beta", lambda: DarkRankSoft(beta=0.5)),
        ("list_length", lambda: DarkRankHard(list_length=0)),
        ("list_length", lambda: DarkRankSoft(list_length=7)),
        ("top_k", lambda: CSD(top_k=0)),
        ("student_temperature", lambda: CSD(student_temperature=0.0)),
        ("teacher_temperature", lambda: CSD(teacher_temperature=math.nan)),
        ("top_k", lambda: D3still(top_k=1)),
        ("gamma", lambda: D3still(gamma=-1.0)),
    ],
)
def test_bad_options_are_named(argument: str, make: Callable[[], AgainstTeacher]) -> None:
    with pytest.raises(ValueError, match=f"^{argument}:"):
        make()
