"""AdaDistill and AdaFace equal their twins over several batches, and PML where it has the same margin."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses as pml
from torch import Tensor

from reid_cckd.losses import AdaDistill, AdaFace, PartialMargin
from tests.losses.test_against_teacher import rows
from tests.reference import margin as twin

CLASSES = 4
LABELS = torch.tensor([2, 0, 2, 3, 2, 0])
KINDS = [{"kind": "arc"}, {"kind": "cos"}, {"kind": "arc", "weighted": False, "margin": 0.3, "scale": 16.0}]


def adadistill(**options: Any) -> AdaDistill:
    torch.manual_seed(0)
    return AdaDistill(CLASSES, 5, **options).double()


def adaface(**options: Any) -> AdaFace:
    torch.manual_seed(0)
    return AdaFace(CLASSES, 5, **options).double()


def batch(seed: int = 0, count: int = 6) -> tuple[Tensor, Tensor]:
    teacher = rows(count, seed=seed)
    return teacher + 0.5 * rows(count, seed=seed + 100), 3 * teacher


@pytest.mark.parametrize("options", KINDS)
def test_three_batches_of_adadistill_equal_the_twin(options: dict[str, Any]) -> None:
    loss = adadistill(**options)
    centres = loss.centres.numpy().copy()
    softmax = {"kind": options["kind"], "margin": {"arc": 0.45, "cos": 0.35}[options["kind"]]}
    softmax.update({name: value for name, value in options.items() if name in ("margin", "scale")})
    for step in range(3):
        student, teacher = batch(step)
        centres = twin.moved_centres(
            centres, student.numpy(), teacher.numpy(), LABELS.tolist(), options.get("weighted", True)
        )
        value = loss(student, LABELS, ref_emb=teacher)
        np.testing.assert_allclose(loss.centres, centres, rtol=1e-9, atol=1e-12)
        expected = twin.margin_softmax(student.numpy(), LABELS.tolist(), centres, **softmax)
        np.testing.assert_allclose(value, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("kind", "peer"),
    [
        ("arc", lambda: pml.ArcFaceLoss(CLASSES, 5, math.degrees(0.45), 64)),
        ("cos", lambda: pml.CosFaceLoss(CLASSES, 5)),
    ],
)
def test_adadistill_is_the_margin_softmax_of_its_centres(kind: Any, peer: Any) -> None:
    loss, other, (student, teacher) = adadistill(kind=kind).eval(), peer(), batch()
    other.W = torch.nn.Parameter(loss.centres.T.clone())
    expected = other(student, LABELS)
    torch.testing.assert_close(loss(student, LABELS, ref_emb=teacher), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", KINDS)
def test_gradient_of_adadistill(options: dict[str, Any]) -> None:
    loss, (student, teacher) = adadistill(**options).eval(), batch()
    assert torch.autograd.gradcheck(lambda x: loss(x, LABELS, ref_emb=teacher), student.requires_grad_())


def test_only_the_student_learns_from_adadistill() -> None:
    loss, (student, teacher) = adadistill(), batch()
    loss(student.requires_grad_(), LABELS, ref_emb=teacher.requires_grad_()).backward()
    assert list(loss.parameters()) == []
    assert teacher.grad is None
    assert not loss.centres.requires_grad
    assert student.grad is not None
    assert student.grad.norm() > 0


@pytest.mark.parametrize("kind", ["arc", "cos"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_student_on_its_centre_has_a_finite_gradient(kind: Any, sign: int) -> None:
    loss, teacher = adadistill(kind=kind).float().eval(), torch.eye(5)[:4]
    loss.centres.copy_(teacher)
    student = (sign * teacher).requires_grad_()
    loss(student, torch.arange(4), ref_emb=teacher).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("options", [{}, {"margin": 0.3, "h": 2.0, "scale": 16.0, "momentum": 0.5}])
def test_three_batches_of_adaface_equal_the_twin(options: dict[str, float]) -> None:
    loss = adaface(**options)
    weight, share = loss.weight.detach().numpy(), options.get("momentum", 0.01)
    mean, deviation = 20.0, 100.0
    arguments = {name: value for name, value in options.items() if name != "momentum"}
    for step in range(3):
        embeddings = rows(6, seed=step) * torch.tensor([0.0, 1e-5, 3.0, 10.0, 30.0, 200.0]).double().unsqueeze(1)
        lengths = twin.adaface_lengths(embeddings.numpy())
        mean += share * (np.mean(lengths) - mean)
        deviation += share * (np.std(lengths, ddof=1) - deviation)
        expected = twin.adaface(embeddings.numpy(), LABELS.tolist(), weight, mean, deviation, **arguments)
        np.testing.assert_allclose(loss(embeddings, LABELS).detach(), expected, rtol=1e-9)
        np.testing.assert_allclose([loss.length_mean, loss.length_deviation], [mean, deviation], rtol=1e-12)


def test_long_rows_get_their_margin_on_the_cosine_and_short_ones_on_the_angle() -> None:
    loss, direction = adaface(h=1.0, scale=1.0).eval(), rows(1)
    loss.length_mean.fill_(10.0)
    loss.length_deviation.fill_(1.0)
    cosines = twin.cosines(direction.numpy(), loss.weight.detach().numpy())
    for size, own in ((1, lambda c: math.cos(math.acos(c) + 0.4)), (50, lambda c: math.cos(math.acos(c) - 0.4) - 0.8)):
        changed = cosines.copy()
        changed[0, 1] = own(cosines[0, 1])
        expected = twin.cross_entropy(changed, [1])
        value = loss(size * direction / direction.norm(), torch.tensor([1]))
        np.testing.assert_allclose(value.detach(), expected, rtol=1e-9)


@pytest.mark.parametrize("sign", [1, -1])
def test_angles_of_adaface_end_at_0_and_pi(sign: int) -> None:
    loss = adaface(h=1.0).eval()
    embeddings = sign * (50.0 if sign > 0 else 0.01) * loss.weight.detach()
    labels = list(range(CLASSES))
    expected = twin.adaface(embeddings.numpy(), labels, loss.weight.detach().numpy(), 25.0, 10.0, h=1.0)
    loss.length_mean.fill_(25.0)
    loss.length_deviation.fill_(10.0)
    np.testing.assert_allclose(loss(embeddings, torch.tensor(labels)).detach(), expected, rtol=1e-9)


def test_gradient_of_adaface() -> None:
    embeddings = rows(6)
    loss = adaface().eval()
    with torch.no_grad():
        loss.length_deviation.fill_(1e9)  # the quality follows the length, which is a constant to the gradient
    assert torch.autograd.gradcheck(lambda x: loss(x, LABELS), embeddings.requires_grad_(), atol=1e-6)
    loss(embeddings, LABELS).backward()
    assert loss.weight.grad is not None
    assert loss.weight.grad.norm() > 0


def test_a_single_row_keeps_the_deviation() -> None:
    loss = adaface()
    assert loss(rows(1), LABELS[:1]).isfinite()
    assert loss.length_deviation == 100
    assert loss.length_mean != 20


@pytest.mark.parametrize("make", [adadistill, adaface])
def test_evaluation_leaves_no_trace_and_the_state_goes_on(make: Any) -> None:
    loss, (student, teacher) = make(), batch()
    options = {"ref_emb": teacher} if make is adadistill else {}
    loss(student, LABELS, **options)
    again = type(loss)(CLASSES, 5).double()
    again.load_state_dict(loss.state_dict())
    before = {name: part.clone() for name, part in loss.state_dict().items()}
    loss.eval()(student, LABELS, **options)
    assert all(torch.equal(before[name], part) for name, part in loss.state_dict().items())
    values = [[module(student, LABELS, **options).item() for _ in range(2)] for module in (loss.train(), again)]
    assert values[0] == values[1]
    assert any(not torch.equal(before[name], part) for name, part in loss.state_dict().items())


@pytest.mark.parametrize("make", [adadistill, adaface])
def test_half_precision_is_widened(make: Any) -> None:
    student, teacher = (part.half() for part in batch())
    options = {"ref_emb": teacher} if make is adadistill else {}
    student.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = make().float()(student, LABELS, **options)
        value.backward()
    assert value.dtype == torch.float32
    expected = make()(student.double(), LABELS, **{name: part.double() for name, part in options.items()})
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("make", [adadistill, adaface])
@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("labels: pass", {"labels": None}),
        ("labels: expected shape", {"labels": LABELS[:5]}),
        ("labels: expected integers from 0 to 3", {"labels": LABELS + 1}),
        ("labels: expected integers from 0 to 3", {"labels": LABELS - 1}),
        ("labels: expected integers", {"labels": LABELS.double()}),
        ("embeddings: expected", {"embeddings": rows(6)[0]}),
        ("embeddings: expected", {"embeddings": rows(0), "labels": LABELS[:0], "ref_emb": rows(0)}),
        ("embeddings: 6 of 6 rows", {"embeddings": rows(6) * math.inf}),
        ("indices_tuple:", {"indices_tuple": (LABELS,) * 3}),
    ],
)
def test_bad_input_is_named_and_not_remembered(make: Any, message: str, arguments: dict[str, Any]) -> None:
    loss = make()
    before = {name: part.clone() for name, part in loss.state_dict().items()}
    given = {"embeddings": rows(6), "labels": LABELS, "ref_emb": rows(6, seed=1), **arguments}
    if make is adaface:
        del given["ref_emb"]
    with pytest.raises(ValueError, match=f"^{message}"):
        loss(**given)
    assert all(torch.equal(before[name], part) for name, part in loss.state_dict().items())


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("ref_emb: pass", {"ref_emb": None}),
        ("ref_emb: 5 rows", {"ref_emb": rows(5)}),
        ("ref_emb: width 3", {"ref_emb": rows(6, width=3)}),
        ("ref_emb: 6 of 6 rows", {"ref_emb": rows(6) * math.nan}),
        ("embeddings: expected", {"embeddings": rows(6, width=3), "ref_emb": rows(6, width=3)}),
    ],
)
def test_a_bad_teacher_is_named_and_not_remembered(message: str, arguments: dict[str, Any]) -> None:
    loss = adadistill()
    before = loss.centres.clone()
    with pytest.raises(ValueError, match=f"^{message}"):
        loss(**{"embeddings": rows(6), "labels": LABELS, **arguments})
    assert torch.equal(before, loss.centres)


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (adadistill, "kind", "sub"),
        (adadistill, "scale", 0),
        (adadistill, "margin", 28.6),  # degrees
        (adaface, "scale", math.inf),
        (adaface, "momentum", 0),
        (adaface, "margin", 28.6),
    ],
)
def test_bad_options_are_named(make: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}:"):
        make(**{name: value})


@pytest.mark.parametrize("make", [AdaDistill, AdaFace, PartialMargin])
def test_a_softmax_over_one_class_which_is_always_1_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"^num_classes:"):
        make(1, 5)
