"""CRD equals its twin over several batches, remembers in training only, and goes on from its state."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reid_cckd.batch import Output
from reid_cckd.losses import CRD, Objective, Term, contrastive
from tests.losses.test_against_teacher import rows
from tests.reference import contrastive as twin

IMAGES = 12
INDEX = torch.tensor([3, 11, 3, 0, 7])  # one image twice


def made(**options: Any) -> CRD:
    torch.manual_seed(0)
    return CRD(5, 4, IMAGES, **{"dim": 6, "negatives": 8, **options}).double()


def batch(seed: int = 0, count: int = 5) -> tuple[Tensor, Tensor]:
    return rows(count, seed=seed), rows(count, width=4, seed=seed + 100)


def units(loss: CRD, student: Tensor, teacher: Tensor) -> list[list[np.ndarray]]:
    pairs = ((loss.student_projection, student), (loss.teacher_projection, teacher))
    return [
        twin.projected(part.numpy(), layer.weight.detach().numpy(), layer.bias.detach().numpy())
        for layer, part in pairs
    ]


@pytest.fixture(params=[0, 16])
def dense(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the bank are fetched (0), or all dot products are taken (16)."""
    monkeypatch.setattr(contrastive, "DENSE", request.param)


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The negatives of every call, the image itself among them."""
    found = torch.randint(IMAGES, (5, 8), generator=torch.Generator().manual_seed(7))
    monkeypatch.setattr(CRD, "_draw", lambda self, index: found)
    return found


@pytest.mark.usefixtures("dense")
def test_three_batches_equal_the_twin(draws: Tensor) -> None:
    loss = made()
    banks = [loss.student_bank.numpy().copy(), loss.teacher_bank.numpy().copy()]
    columns = torch.cat([INDEX.unsqueeze(1), draws], dim=1).tolist()
    constants = None
    for step in range(3):
        student, teacher = batch(step)
        both = units(loss, student, teacher)
        expected, constants = twin.crd(*both, *banks, columns, constants=constants)
        value = loss(student, ref_emb=teacher, index=INDEX)
        np.testing.assert_allclose(value.detach(), expected, rtol=1e-9)
        banks = [twin.remembered(bank, part, INDEX.tolist()) for bank, part in zip(banks, both, strict=True)]
        np.testing.assert_allclose(loss.student_bank, banks[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(loss.teacher_bank, banks[1], rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("dense", "draws")
def test_gradient() -> None:
    loss, (student, teacher) = made().eval(), batch()
    loss.log_means.fill_(0.5)  # the scale of the noise is a constant to the gradient
    weights = [loss.student_projection.weight, loss.teacher_projection.weight]
    assert torch.autograd.gradcheck(lambda x: loss(x, ref_emb=teacher, index=INDEX), student.requires_grad_())
    loss(student, ref_emb=teacher, index=INDEX).backward()
    assert all(weight.grad is not None and weight.grad.norm() > 0 for weight in weights)


@pytest.mark.usefixtures("dense", "draws")
def test_remembering_before_the_backward_does_not_change_the_gradient() -> None:
    gradients = []
    for training in (True, False):
        loss, (student, teacher) = made().train(training), batch()
        loss(student.requires_grad_(), ref_emb=teacher, index=INDEX).backward()
        gradients.append(student.grad)
    assert gradients[0] is not None
    assert torch.equal(gradients[0], gradients[1])


@pytest.mark.usefixtures("draws")
def test_a_step_with_the_loss_compiles() -> None:
    loss, (student, teacher) = made(), batch()
    found = []
    for run in (loss.forward, torch.compile(made().forward)):
        rows = student.clone().requires_grad_()
        value = run(rows, ref_emb=teacher, index=INDEX)
        value.backward()
        found.append((value.detach(), rows.grad))
    torch.testing.assert_close(found[1], found[0])


def test_evaluation_leaves_no_trace() -> None:
    loss, (student, teacher) = made().eval(), batch()
    before = {name: part.clone() for name, part in loss.state_dict().items()}
    loss(student, ref_emb=teacher, index=INDEX)
    assert all(torch.equal(before[name], part) for name, part in loss.state_dict().items())
    loss.train()(student, ref_emb=teacher, index=INDEX)
    assert not torch.equal(before["student_bank"], loss.student_bank)
    assert loss.log_means.isfinite().all()


def test_the_state_goes_on_where_it_was() -> None:
    loss, again = made(), CRD(5, 4, IMAGES, dim=6, negatives=8).double()
    loss(batch()[0], ref_emb=batch()[1], index=INDEX)
    again.load_state_dict(loss.state_dict())
    values = []
    for module in (loss, again):
        torch.manual_seed(1)
        values.append([module(batch(s)[0], ref_emb=batch(s)[1], index=INDEX).item() for s in (1, 2)])
    assert values[0] == values[1]


def test_draws_follow_the_seed_and_cover_all_images() -> None:
    loss = CRD(5, 4, IMAGES, negatives=500)
    torch.manual_seed(3)
    first = loss._draw(INDEX)
    assert not torch.equal(first, loss._draw(INDEX))
    torch.manual_seed(3)
    assert torch.equal(first, loss._draw(INDEX))
    assert first.unique().tolist() == list(range(IMAGES))


def test_the_own_image_is_told_from_others_after_some_steps() -> None:
    torch.manual_seed(0)
    loss, teacher = CRD(5, 4, IMAGES, dim=16, negatives=32), rows(IMAGES, width=4).float()
    student = teacher @ rows(4, seed=1).float()
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(student, ref_emb=teacher, index=torch.arange(IMAGES))
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert np.mean(values[-5:]) < 0.7 * np.mean(values[:5])


@pytest.mark.parametrize("count", [1, 5])
def test_half_precision_is_widened_and_the_teacher_learns_nothing(count: int) -> None:
    loss, (student, teacher) = made().float(), batch(count=count)
    student, teacher = student.half().requires_grad_(), teacher.half().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, ref_emb=teacher, index=INDEX[:count])
        value.backward()
    assert value.dtype == torch.float32
    torch.manual_seed(0)
    exact = made()  # leaves the generator where it left the other one
    expected = exact(student.detach().double(), ref_emb=teacher.detach().double(), index=INDEX[:count])
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-4)
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_zero_rows_are_defined() -> None:
    loss = CRD(5, 4, IMAGES, dim=6, negatives=8)
    torch.nn.init.zeros_(loss.student_projection.bias)
    student = torch.zeros(5, 5, requires_grad=True)
    value = loss(student, ref_emb=torch.zeros(5, 4), index=INDEX)
    value.backward()
    assert value.isfinite()
    assert student.grad is not None
    assert torch.equal(student.grad, torch.zeros(5, 5))  # without direction there is nothing to turn


def test_the_objective_hands_over_the_index() -> None:
    loss, (student, teacher) = made(), batch()
    objective = Objective([Term("crd", loss, needs_teacher=True)])
    outputs = [Output(part, part, None, part) for part in (student, teacher)]
    before = loss.student_bank.clone()
    objective(outputs[0], torch.zeros(5).long(), outputs[1], index=INDEX)
    changed = (before != loss.student_bank).any(dim=1).nonzero().squeeze(1)
    assert changed.tolist() == [0, 3, 7, 11]


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("ref_emb:", {"ref_emb": None}),
        ("ref_emb: 4 rows", {"ref_emb": rows(4, width=4)}),
        ("ref_emb: width 5, expected 4", {"ref_emb": rows(5)}),
        ("embeddings: width 4, expected 5", {"embeddings": rows(5, width=4)}),
        ("embeddings: expected a matrix", {"embeddings": rows(5)[0]}),
        ("embeddings: 5 of 5 rows", {"embeddings": rows(5) * math.nan}),
        ("indices_tuple:", {"indices_tuple": (INDEX,) * 3}),
        ("index: pass", {"index": None}),
        ("index: expected", {"index": INDEX[:4]}),
        ("index: expected", {"index": INDEX.double()}),
        ("index: out of range", {"index": INDEX + 1}),
        ("index: out of range", {"index": INDEX - 1}),
    ],
)
def test_bad_input_is_named_and_not_remembered(message: str, arguments: dict[str, Any]) -> None:
    loss, (student, teacher) = made(), batch()
    before = loss.student_bank.clone()
    with pytest.raises(ValueError, match=f"^{message}"):
        loss(**{"embeddings": student, "ref_emb": teacher, "index": INDEX, **arguments})
    assert torch.equal(before, loss.student_bank)


def test_an_index_that_is_no_tensor_is_named() -> None:
    student, teacher = batch()
    with pytest.raises(TypeError, match="index: expected a tensor, got list"):
        made()(student, ref_emb=teacher, index=INDEX.tolist())


@pytest.mark.parametrize(
    ("name", "value"), [("num_images", 0), ("negatives", 0), ("temperature", 0.0), ("momentum", 1.0)]
)
def test_bad_options_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name}:"):
        CRD(**{"student_width": 5, "teacher_width": 4, "num_images": IMAGES, name: value})
