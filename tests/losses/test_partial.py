"""Partial class sampling: the twin over the classes drawn, which classes these are, and what is spared."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from reid_cckd.losses import PartialMargin
from tests.reference import margin as twin

LABELS = torch.tensor([3, 3, 17, 40, 0, 5])


def made(**options: object) -> PartialMargin:
    torch.manual_seed(0)
    return PartialMargin(**{"num_classes": 50, "width": 4, "share": 0.3, **options}).double()  # type: ignore[arg-type]


def rows(count: int = len(LABELS)) -> torch.Tensor:
    return torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("kind", "margin"), [("arc", 0.45), ("cos", 0.35)])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_value_and_gradient_are_those_of_the_drawn_classes(kind: str, margin: float, share: float) -> None:
    loss, embeddings = made(kind=kind, share=share), rows().requires_grad_()
    classes = loss.classes_of(LABELS).tolist()
    places = [classes.index(label) for label in LABELS.tolist()]
    expected = twin.margin_softmax(
        embeddings.detach().numpy(), places, loss.weight.detach().numpy()[classes], kind, 64.0, margin
    )
    value = loss(embeddings, LABELS)
    np.testing.assert_allclose(value.item(), expected, rtol=1e-9)
    value.backward()
    assert loss.weight.grad is not None
    used = (loss.weight.grad != 0).any(dim=1).nonzero().flatten().tolist()
    assert used == classes
    assert len(classes) == (50 if share == 1 else 15)


def test_all_classes_of_the_batch_are_drawn_and_the_others_change() -> None:
    loss = made(share=0.2)
    drawn = []
    for _ in range(150):
        drawn.append(set(loss.classes_of(LABELS).tolist()))
        loss(rows(), LABELS)
    assert all(set(LABELS.tolist()) <= classes and len(classes) == 10 for classes in drawn)
    assert len(set().union(*drawn)) == 50
    many = torch.arange(30)
    assert made(share=0.02).classes_of(many).tolist() == many.tolist()  # a batch of more classes than the share


def test_every_class_has_the_same_chance_whatever_was_drawn_before() -> None:
    loss = made(share=0.2, seed=3)
    steps = torch.zeros(2000, 50)
    for step in steps:
        step[loss.classes_of(LABELS)] = 1
        loss.step += 1
    steps = steps[:, [label for label in range(50) if label not in LABELS]]  # 5 places are the batch's, 5 for 45
    deviation = math.sqrt(2000 * (1 / 9) * (8 / 9))
    assert (steps.sum(dim=0) - 2000 / 9).abs().max() < 4 * deviation
    again = (steps[1:] * steps[:-1]).sum() / 1999
    assert again == pytest.approx(5 / 9, abs=4 * math.sqrt(5 / 9 / 1999))


def test_the_draw_goes_on_from_a_checkpoint_and_rests_in_eval_mode() -> None:
    first, second = made(), made(seed=0)
    for _ in range(3):
        first(rows(), LABELS)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.classes_of(LABELS), second.classes_of(LABELS))
    assert not torch.equal(first.classes_of(LABELS), made().classes_of(LABELS))
    assert not torch.equal(made(seed=1).classes_of(LABELS), made().classes_of(LABELS))
    before = first.eval().classes_of(LABELS)
    first(rows(), LABELS)
    assert torch.equal(before, first.classes_of(LABELS))


def test_a_small_share_of_few_classes_is_not_a_softmax_over_one() -> None:
    loss, embeddings = made(num_classes=8, share=0.1), rows(3).requires_grad_()
    value = loss(embeddings, torch.tensor([5, 5, 5]))
    value.backward()
    assert value > 0
    assert embeddings.grad is not None
    assert embeddings.grad.abs().max() > 0


class Largest(TorchDispatchMode):
    """The largest number of elements of any result with a row for each of ``count`` images."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count, self.found = count, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, torch.Tensor) and one.ndim == 2 and len(one) == self.count:
                self.found = max(self.found, one.numel())
        return out


def test_no_score_of_a_class_that_was_left_out_is_computed() -> None:
    labels = torch.arange(7)
    for share, columns in ((0.1, 100), (1.0, 1000)):
        loss = PartialMargin(1000, 4, share=share)
        with Largest(7) as watch:
            loss(torch.randn(7, 4, requires_grad=True), labels).backward()
        assert watch.found == 7 * columns


@pytest.mark.parametrize(("name", "value"), [("share", 0.0), ("share", 1.5), ("kind", "sub"), ("scale", 0.0)])
def test_bad_arguments_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name}:"):
        made(**{name: value})
    with pytest.raises(ValueError, match=r"^labels:"):
        made()(rows(2), torch.tensor([0, 50]))
    with pytest.raises(ValueError, match=r"^labels:"):
        made()(rows(2), None)
    with pytest.raises(ValueError, match=r"^indices_tuple:"):
        made()(rows(2), torch.tensor([0, 1]), (torch.tensor([0]),) * 3)
    with pytest.raises(ValueError, match=r"^embeddings: 2 of 2 rows hold NaN"):
        made()(rows(2) * torch.nan, torch.tensor([0, 1]))
