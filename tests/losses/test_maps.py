"""Losses of feature maps equal their twins, at any pair of sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reid_cckd.losses.maps import AttentionTransfer, FitNetHint
from tests.losses.test_against_teacher import rows
from tests.reference import maps as twin

SIZES = [((4, 3), (4, 3)), ((8, 6), (4, 3)), ((2, 2), (5, 3)), ((1, 4), (3, 1))]


def maps(count: int = 3, channels: int = 4, size: tuple[int, int] = (4, 3), seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, *size, dtype=torch.float64, generator=generator)


def expected_hint(loss: FitNetHint, student: Tensor, teacher: Tensor) -> float:
    layer = loss.projection
    arrays = [part.detach().double().numpy() for part in (student, teacher, layer.weight, layer.bias)]
    return float(twin.fitnet(*arrays))


@pytest.mark.parametrize(("mine", "theirs"), SIZES)
@pytest.mark.parametrize("p", [1.0, 2.0, 3.5])
def test_attention_equals_the_twin(mine: tuple[int, int], theirs: tuple[int, int], p: float) -> None:
    student, teacher = maps(size=mine), maps(channels=6, size=theirs, seed=1)
    student[1] = 0.0
    expected = twin.attention_transfer(student.numpy(), teacher.numpy(), p)
    np.testing.assert_allclose(AttentionTransfer(p)(student, ref_emb=teacher), expected, rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_attention_does_not_see_a_common_scale(scale: float) -> None:
    student, teacher = maps().float(), maps(seed=1).float()
    expected = AttentionTransfer()(student, ref_emb=teacher)
    torch.testing.assert_close(AttentionTransfer()(scale * student, ref_emb=scale * teacher), expected)


@pytest.mark.parametrize(("mine", "theirs"), SIZES)
def test_hint_of_maps_equals_the_twin(mine: tuple[int, int], theirs: tuple[int, int]) -> None:
    loss, student, teacher = FitNetHint(4, 6), maps(size=mine), maps(channels=6, size=theirs, seed=1)
    np.testing.assert_allclose(
        loss(student, ref_emb=teacher).detach(), expected_hint(loss, student, teacher), rtol=1e-9
    )


def test_hint_of_rows_equals_the_twin() -> None:
    loss, student, teacher = FitNetHint(5, 3), rows(6), rows(6, width=3, seed=1)
    np.testing.assert_allclose(
        loss(student, ref_emb=teacher).detach(), expected_hint(loss, student, teacher), rtol=1e-9
    )


@pytest.mark.parametrize("loss", [AttentionTransfer(), FitNetHint(4, 4)])
def test_gradient(loss: nn.Module) -> None:
    student, teacher = maps(size=(3, 2)).requires_grad_(), maps(size=(2, 3), seed=1)
    assert torch.autograd.gradcheck(lambda x: loss(x, ref_emb=teacher), student)


@pytest.mark.parametrize("make", [AttentionTransfer, lambda: FitNetHint(4, 4)])
def test_half_precision_is_widened_and_only_the_student_learns(make: Any) -> None:
    loss, student, teacher = make(), maps().half().requires_grad_(), maps(seed=1).half().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, ref_emb=teacher)
        value.backward()
    assert value.dtype == torch.float32
    expected = loss(student.double(), ref_emb=teacher.double())
    torch.testing.assert_close(value.double(), expected, rtol=2e-5, atol=1e-7)
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.norm() > 0


def test_the_projection_trains_and_is_saved() -> None:
    torch.manual_seed(0)
    loss, student, teacher = FitNetHint(5, 3), rows(32), rows(32) @ rows(5, width=3, seed=1)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.5)
    before = loss(student, ref_emb=teacher)
    for _ in range(50):
        optimizer.zero_grad()
        loss(student, ref_emb=teacher).backward()
        optimizer.step()
    after = loss(student, ref_emb=teacher)
    assert after < 0.01 * before
    again = FitNetHint(5, 3)
    again.load_state_dict(loss.state_dict())
    assert again(student, ref_emb=teacher) == after


@pytest.mark.parametrize(
    ("message", "loss", "arguments"),
    [
        ("ref_emb:", AttentionTransfer(), {}),
        ("ref_emb: 2 rows for 3", AttentionTransfer(), {"ref_emb": maps(2)}),
        ("ref_emb: expected maps", AttentionTransfer(), {"ref_emb": rows(3)}),
        ("embeddings: expected maps", AttentionTransfer(), {"embeddings": rows(3), "ref_emb": maps()}),
        ("embeddings: 3 of 3 rows", AttentionTransfer(), {"embeddings": maps() / 0, "ref_emb": maps()}),
        ("ref_emb: shape", FitNetHint(4, 4), {"ref_emb": rows(3, width=4)}),
        ("ref_emb: width 5, expected 4", FitNetHint(4, 4), {"ref_emb": maps(channels=5)}),
        ("embeddings: width 4, expected 5", FitNetHint(5, 4), {"ref_emb": maps()}),
        ("embeddings: expected a matrix or maps", FitNetHint(4, 4), {"embeddings": maps()[0], "ref_emb": maps()}),
    ],
)
def test_bad_input_is_named(message: str, loss: nn.Module, arguments: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        loss(**{"embeddings": maps(), **arguments})


def test_a_bad_power_is_named() -> None:
    with pytest.raises(ValueError, match=r"^p:"):
        AttentionTransfer(p=0.5)
