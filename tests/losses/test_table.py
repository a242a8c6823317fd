"""Every loss of the table has a twin, takes the common call, and gives finite numbers for poor batches."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from reid_cckd.losses import LABEL_LOSSES, LOSSES, CorrelationCongruenceLoss
from tests.reference import contrastive, instance, logits, maps, margin, ranking, relational

WIDTH, CLASSES = 5, 3  # labels are below CLASSES, so that rows can be logits too
Twin = Callable[[nn.Module, np.ndarray, np.ndarray, list[int]], float]


@dataclass(frozen=True)
class Case:
    """The twin of a loss, given (loss, student, teacher, labels), and what the loss is made of."""

    twin: Twin
    options: dict[str, Any] = field(default_factory=dict)
    places: tuple[int, ...] = ()  # (H, W) of a loss of maps


def plain(twin: Callable[[np.ndarray, np.ndarray], float]) -> Twin:
    return lambda loss, student, teacher, labels: twin(student, teacher)


def array(tensor: Tensor) -> np.ndarray:
    found: np.ndarray = tensor.detach().double().numpy()
    return found


def fitnet(loss: Any, student: np.ndarray, teacher: np.ndarray, labels: list[int]) -> float:
    return float(maps.fitnet(student, teacher, array(loss.projection.weight), array(loss.projection.bias)))


def projected_mimic(loss: Any, student: np.ndarray, teacher: np.ndarray, labels: list[int]) -> float:
    layer = loss.projection
    return float(instance.projected_mimic(student, teacher, array(layer.weight), array(layer.bias)))


def crd(loss: Any, student: np.ndarray, teacher: np.ndarray, labels: list[int]) -> float:
    """Of a data set of one image, which leaves no choice of negatives."""
    pairs = ((student, loss.student_projection), (teacher, loss.teacher_projection))
    units = [contrastive.projected(rows, array(layer.weight), array(layer.bias)) for rows, layer in pairs]
    columns = [[0] * (1 + loss.negatives)] * len(student)
    value, _ = contrastive.crd(*units, array(loss.student_bank), array(loss.teacher_bank), columns)
    return float(value)


CASES: dict[str, Case] = {
    "cross_entropy": Case(lambda loss, student, teacher, labels: instance.cross_entropy(student, labels)),
    "kd": Case(plain(lambda s, t: instance.hinton_kd(s, t, 4.0))),
    "cosine_mimic": Case(plain(instance.cosine_mimic)),
    "l2_mimic": Case(plain(instance.l2_mimic)),
    "projected_mimic": Case(projected_mimic, {"student_width": WIDTH, "teacher_width": WIDTH}),
    "rkd_distance": Case(plain(relational.rkd_distance)),
    "rkd_angle": Case(plain(relational.rkd_angle)),
    "sp": Case(plain(relational.sp)),
    "pkt": Case(plain(relational.pkt)),
    "darkrank_hard": Case(plain(ranking.darkrank_hard)),
    "darkrank_soft": Case(plain(ranking.darkrank_soft)),
    "csd": Case(plain(ranking.csd)),
    "d3still": Case(plain(ranking.d3still)),
    "dist": Case(plain(logits.dist)),
    "dkd": Case(lambda loss, student, teacher, labels: logits.dkd(student, teacher, labels)),
    "attention": Case(plain(maps.attention_transfer), places=(3, 2)),
    "fitnet": Case(fitnet, {"student_width": WIDTH, "teacher_width": WIDTH}),
    "crd": Case(crd, {"student_width": WIDTH, "teacher_width": WIDTH, "num_images": 1, "dim": 4, "negatives": 3}),
    "adadistill": Case(
        lambda loss, student, teacher, labels: margin.margin_softmax(student, labels, array(loss.centres)),
        {"num_classes": CLASSES, "width": WIDTH},
    ),
    "partial_margin": Case(
        lambda loss, student, teacher, labels: margin.margin_softmax(student, labels, array(loss.weight)),
        {"num_classes": CLASSES, "width": WIDTH, "share": 1.0},
    ),
    "adaface": Case(
        lambda loss, student, teacher, labels: margin.adaface(student, labels, array(loss.weight), 20.0, 100.0),
        {"num_classes": CLASSES, "width": WIDTH},
    ),
}
everyone = pytest.mark.parametrize("name", sorted(CASES))
OPTION_NAMES = {  # one name for one thing; those of a formula (alpha, beta, gamma, h, p) are each loss's own
    *("alpha", "beta", "gamma", "h", "p", "eps", "kind", "margin", "scale", "share", "weighted", "label_smoothing"),
    *("temperature", "student_temperature", "teacher_temperature", "normalize_embeddings", "momentum", "seed", "shard"),
    *("num_classes", "num_images", "width", "student_width", "teacher_width", "dim", "student_classes"),
    *("teacher_classes", "list_length", "top_k", "negatives"),
}
NUMBERS = {"num_classes", "width", "num_images", "margin"}  # without a number as their default
WITH_TEACHER = sorted(CASES.keys() - LABEL_LOSSES)


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return LOSSES[name](**CASES[name].options)


def rows(name: str, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, WIDTH, *CASES[name].places, dtype=torch.float64, generator=generator)


def call(name: str, loss: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    """As `Objective` calls it: student, labels, mined pairs, and by name the teacher and the index where needed."""
    options: dict[str, Any] = {} if name in LABEL_LOSSES else {"ref_emb": teacher}
    if getattr(loss, "needs_index", False):
        options["index"] = torch.zeros(len(student)).long()
    value: Tensor = loss(student, torch.arange(len(student)) % CLASSES, None, **options)
    return value


def check_finite(name: str, student: Tensor, teacher: Tensor) -> None:
    """Value and gradients of two steps, of which the second one starts from what the first one left behind."""
    loss = made(name)
    student.requires_grad_()
    for _ in range(2):
        value = call(name, loss, student, teacher)
        value.backward()
        assert value.shape == ()
        assert value.isfinite()
    gradients = [part.grad for part in (student, *loss.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert all(part.isfinite().all() for part in loss.buffers())


def test_every_loss_has_a_case() -> None:
    assert LOSSES.keys() == CASES.keys()
    assert {"cross_entropy", "adaface", "partial_margin"} == LABEL_LOSSES


@everyone
def test_one_thing_has_one_name_in_all_losses(name: str) -> None:
    options = set(inspect.signature(made(name).__init__).parameters) - {"args", "kwargs"}  # type: ignore[misc]
    assert options <= OPTION_NAMES


@everyone
@pytest.mark.parametrize("value", [math.nan, -100.5])
def test_numbers_that_are_none_are_named(name: str, value: float) -> None:
    options = inspect.signature(made(name).__init__).parameters  # type: ignore[misc]
    numbers = [key for key, option in options.items() if type(option.default) in (int, float) or key in NUMBERS]
    for key in numbers:
        with pytest.raises(ValueError, match=f"^{key}:"):
            LOSSES[name](**{**CASES[name].options, key: value})


@everyone
@pytest.mark.parametrize("count", [1, 2, 6])
def test_value_equals_the_twin(name: str, count: int) -> None:
    loss, student, teacher = made(name).eval(), rows(name, count), rows(name, count, seed=1)
    labels = [i % CLASSES for i in range(count)]
    expected = CASES[name].twin(loss, student.numpy(), teacher.numpy(), labels)
    value = call(name, loss, student, teacher).detach()
    np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12)


@everyone
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("what", ["random", "identical", "zero", "zero student", "like the teacher"])
def test_poor_batches_are_finite(name: str, what: str, count: int, dtype: torch.dtype) -> None:
    student, teacher = rows(name, count).to(dtype), rows(name, count, seed=1).to(dtype)
    if what == "identical":
        student, teacher = student[:1].expand_as(student).clone(), teacher[:1].expand_as(teacher)
    elif what == "like the teacher":
        student = teacher.clone()
    elif what != "random":
        student, teacher = torch.zeros_like(student), teacher if "student" in what else torch.zeros_like(teacher)
    check_finite(name, student, teacher)


@everyone
@settings(max_examples=8, deadline=None, database=None)
@given(
    count=st.integers(1, 9),
    seed=st.integers(0, 2**16),
    scale=st.sampled_from([1e-12, 1e-4, 1.0, 1e3]),
    zeros=st.lists(st.integers(0, 8), max_size=3),
)
def test_any_batch_is_finite(name: str, count: int, seed: int, scale: float, zeros: list[int]) -> None:
    student, teacher = (scale * rows(name, count, seed + i).float() for i in range(2))
    student[[row for row in zeros if row < count]] = 0.0
    check_finite(name, student, teacher)


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_the_teacher_is_needed_and_learns_nothing(name: str) -> None:
    student, teacher = rows(name, 4).requires_grad_(), rows(name, 4, seed=1).requires_grad_()
    call(name, made(name), student, teacher).backward()
    assert teacher.grad is None
    for named in ("ref_emb", "embeddings"):
        given = {"embeddings": student, "labels": torch.zeros(4).long(), "ref_emb": teacher}
        given[named] = None if named == "ref_emb" else rows(name, 3)
        with pytest.raises(ValueError, match=r"^(ref_emb|labels):"):
            made(name)(**given)


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_a_teacher_that_is_no_tensor_is_named(name: str) -> None:
    with pytest.raises(TypeError, match="ref_emb: expected a tensor, got ndarray"):
        made(name)(rows(name, 4), ref_emb=rows(name, 4).numpy())


@pytest.mark.parametrize("name", [*sorted(LABEL_LOSSES), "adadistill", "dkd", "correlation"])
def test_labels_that_are_no_tensor_are_named(name: str) -> None:
    loss = CorrelationCongruenceLoss() if name == "correlation" else made(name)
    options = {} if name in LABEL_LOSSES else {"ref_emb": torch.ones(2, WIDTH)}
    with pytest.raises(TypeError, match="labels: expected a tensor, got list"):
        loss(torch.ones(2, WIDTH), [0, 1], **options)


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_the_teacher_matters(name: str) -> None:
    student, loss = rows(name, 6), made(name)
    values = [call(name, loss, student, rows(name, 6, seed=seed)).item() for seed in (1, 2)]
    assert values[0] != values[1]


@everyone
def test_the_state_can_be_carried_over(name: str) -> None:
    loss, student, teacher = made(name), rows(name, 4), rows(name, 4, seed=1)
    call(name, loss, student, teacher)
    torch.manual_seed(9)
    again = LOSSES[name](**CASES[name].options)
    again.load_state_dict(loss.state_dict())
    values = [call(name, module, student, teacher).item() for module in (loss, again)]
    assert values[0] == values[1]


def documented(page: str) -> str:
    return (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")


def test_scores_in_the_page_of_losses_are_those_of_the_results() -> None:
    scores = re.findall(r"\d+\.\d ± \d\.\d", documented("losses.md"))
    assert len(scores) > 20
    assert [score for score in scores if score not in documented("results.md")] == []


def test_every_loss_is_documented() -> None:
    text = documented("losses.md")
    for name, loss in LOSSES.items():
        assert f"| `{name}` | `{loss.__name__}` |" in text
