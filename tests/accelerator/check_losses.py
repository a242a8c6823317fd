"""Losses on an accelerator: the values and gradients of the CPU, and no step waits for the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from reid_cckd.batch import Output
from reid_cckd.losses import (
    LABEL_LOSSES,
    LOSSES,
    MMD,
    Bilinear,
    CorrelationCongruenceLoss,
    GaussianRBF,
    Objective,
    PairMemory,
    Term,
    comparison,
    tiles,
)
from reid_cckd.scratch import Scratch
from tests.accelerator.device import DEVICE, NAME, WAITS

ROWS, WIDTH, CLASSES = 24, 16, 6
CPU = torch.device("cpu")
OPTIONS: dict[str, dict[str, int]] = {
    "fitnet": {"student_width": 4, "teacher_width": 4},
    "projected_mimic": {"student_width": WIDTH, "teacher_width": WIDTH},
    "crd": {"student_width": WIDTH, "teacher_width": WIDTH, "num_images": 100},
    "adadistill": {"num_classes": CLASSES, "width": WIDTH},
    "adaface": {"num_classes": CLASSES, "width": WIDTH},
    "partial_margin": {"num_classes": 10 * CLASSES, "width": WIDTH, "share": 0.5},
}
CORRELATION: dict[str, Callable[[], nn.Module]] = {
    "taylor": CorrelationCongruenceLoss,
    "exact": lambda: CorrelationCongruenceLoss(GaussianRBF(order=None)),
    "median": lambda: CorrelationCongruenceLoss(GaussianRBF(gamma="median")),
    "bilinear": lambda: CorrelationCongruenceLoss(Bilinear()),
    "mmd": lambda: CorrelationCongruenceLoss(MMD()),
    "pml": lambda: CorrelationCongruenceLoss(LpDistance()),
    "weights": lambda: CorrelationCongruenceLoss(within_weight=2.0),
    "projection": lambda: CorrelationCongruenceLoss(project=(WIDTH, WIDTH)),
    "memory": lambda: CorrelationCongruenceLoss(memory=PairMemory(40)),
}
EVERY = CORRELATION | {name: lambda name=name: LOSSES[name](**OPTIONS.get(name, {})) for name in LOSSES}


def call(loss: nn.Module, name: str, device: torch.device, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Value and gradient of a batch on a device, both on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    shape = (ROWS, 4, 2, 2) if name in ("attention", "fitnet") else (ROWS, WIDTH)
    student = torch.randn(shape, generator=generator).to(device).requires_grad_()
    teacher = torch.randn(shape, generator=generator).to(device)
    labels = (torch.arange(ROWS) % CLASSES).to(device)
    options: dict[str, Any] = {} if name in LABEL_LOSSES else {"ref_emb": teacher}
    if name == "crd":
        torch.manual_seed(seed)  # of the negatives
        options["index"] = torch.arange(ROWS).to(device)
    WAITS.clear()
    value = loss(student, labels, **options)
    value.backward()
    waits = list(WAITS)
    assert student.grad is not None
    assert value.device.type == student.grad.device.type == device.type
    if seed:
        assert waits == [], "a step waits for the device"
    return value.detach().cpu(), student.grad.cpu()


@pytest.mark.parametrize("name", EVERY)
def test_a_loss_is_that_of_the_cpu_and_waits_for_nothing(name: str) -> None:
    torch.manual_seed(1)
    here = EVERY[name]()
    torch.manual_seed(1)
    there = EVERY[name]().to(DEVICE)
    for seed in (0, 1, 2):  # the first call may bring constants over
        value, gradient = call(here, name, CPU, seed)
        far_value, far_gradient = call(there, name, DEVICE, seed)
        if name == "crd" and NAME == "cuda":
            continue  # a GPU draws other negatives
        torch.testing.assert_close(far_value, value)
        torch.testing.assert_close(far_gradient, gradient)


@pytest.mark.parametrize("name", ["taylor", "exact", "bilinear", "weights"])
def test_a_loss_by_tiles_is_that_of_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "MOST_AT_ONCE", 0)
    monkeypatch.setattr(tiles, "EVEN", 1)
    monkeypatch.setattr(tiles, "ACCELERATOR_TILE", (5, 10))
    test_a_loss_is_that_of_the_cpu_and_waits_for_nothing(name)


@pytest.mark.parametrize(("most", "at_once"), [(ROWS - 1, False), (ROWS, True)])
def test_generated_code_compares_a_small_batch_at_once(
    most: int, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No code is generated for this device, so that both functions stand for themselves."""
    monkeypatch.setattr(comparison, "MOST_GENERATED", most)
    monkeypatch.setattr(comparison, "_compiled", lambda function: function)
    there, here = (CorrelationCongruenceLoss(compile=compile) for compile in (True, False))
    calls: list[int] = []
    monkeypatch.setattr(there.step, "at_once", lambda *batch: calls.append(1) or comparison.compare_at_once(*batch))
    for seed in (0, 1):
        for found, wanted in zip(call(there, "", DEVICE, seed), call(here, "", CPU, seed), strict=True):
            torch.testing.assert_close(found, wanted)
    assert bool(calls) is at_once


class Operations(TorchDispatchMode):  # type: ignore[misc]
    """Counts those that are called, on the way back too."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return op(*args, **(kwargs or {}))


def operations(work: Callable[[], Tensor]) -> int:
    """How many a value and its gradient take."""
    work().backward()  # constants
    with Operations() as made:
        work().backward()
    return made.count


@pytest.mark.parametrize("name", ["taylor", "exact", "bilinear"])
def test_a_small_batch_takes_half_the_operations_of_the_formula(name: str) -> None:
    """There the calls are what takes the time."""
    student, teacher = (torch.randn(ROWS, WIDTH).to(DEVICE) for _ in range(2))
    loss, student = CORRELATION[name](), student.requires_grad_()

    def formula() -> Tensor:
        one, two = (normalize(rows) @ normalize(rows).T for rows in (student, teacher))
        kernels = [0.4 * (1 + dots * (0.8 + dots * 0.32)) for dots in (one, two)]
        return (kernels[0] - kernels[1]).square().mean()

    assert operations(lambda: loss(student, ref_emb=teacher)) < 0.6 * operations(formula)


def test_memory_to_work_in_is_left_to_torch() -> None:
    """Which keeps that of a recorded CUDA graph for it: later calls, larger ones too, get other memory."""
    scratch, like = Scratch(), torch.zeros(1).to(DEVICE)
    first = scratch.take("a", (4,), like)
    first.fill_(1)
    scratch.take("a", (4,), like).fill_(2)
    assert first.cpu().tolist() == [1, 1, 1, 1]


def test_a_second_derivative_is_that_of_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(ROWS, WIDTH, generator=generator) for _ in range(2))
    found = []
    for device in (DEVICE, CPU):
        rows = student.to(device).requires_grad_()
        value = CorrelationCongruenceLoss()(rows, ref_emb=teacher.to(device))
        (gradient,) = torch.autograd.grad(value, rows, create_graph=True)
        gradient.square().sum().backward()
        assert rows.grad is not None
        found.append(rows.grad.cpu())
    torch.testing.assert_close(*found)


def test_mined_pairs_are_those_of_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(ROWS, WIDTH, generator=generator) for _ in range(2))
    pairs = [torch.tensor(part) for part in ([0, 1, 2], [3, 4, 5], [0, 1], [8, 9])]
    value, far_value = (
        CorrelationCongruenceLoss()(
            student.to(device), None, tuple(part.to(device) for part in pairs), ref_emb=teacher.to(device)
        )
        for device in (CPU, DEVICE)
    )
    torch.testing.assert_close(far_value.cpu(), value)


@pytest.mark.parametrize("name", [name for name in EVERY if name not in LABEL_LOSSES])
def test_nan_is_nan_unless_anomalies_are_looked_for(name: str) -> None:
    loss = EVERY[name]().to(DEVICE)
    shape = (ROWS, 4, 2, 2) if name in ("attention", "fitnet") else (ROWS, WIDTH)
    student, teacher = torch.randn(shape), torch.randn(shape)
    teacher[3] = torch.nan
    far = student.to(DEVICE), (torch.arange(ROWS) % CLASSES).to(DEVICE)
    options = {"ref_emb": teacher.to(DEVICE)} | ({"index": torch.arange(ROWS).to(DEVICE)} if name == "crd" else {})
    assert bool(loss(*far, **options).isnan())
    with torch.autograd.detect_anomaly(), pytest.raises(ValueError, match="ref_emb"):
        loss(*far, **options)


def test_an_objective_waits_for_nothing() -> None:
    objective = Objective(
        [
            Term("ce", LOSSES["cross_entropy"](), 0.5, "logits"),
            Term("kd", LOSSES["kd"](), 0.5, "logits", needs_teacher=True),
            Term("mimic", LOSSES["cosine_mimic"](), 30.0, "neck", needs_teacher=True),
            Term("cc", CorrelationCongruenceLoss(), 500.0, "neck", needs_teacher=True),
        ]
    ).to(DEVICE)
    rows = {stage: torch.randn(ROWS, WIDTH).to(DEVICE).requires_grad_() for stage in ("embedding", "neck", "logits")}
    student, teacher = Output(**rows), Output(**{name: value.detach() * 0.9 for name, value in rows.items()})
    labels = (torch.arange(ROWS) % CLASSES).to(DEVICE)
    objective(student, labels, teacher)
    WAITS.clear()
    objective(student, labels, teacher, progress=0.5)["loss"].backward()
    assert WAITS == []
