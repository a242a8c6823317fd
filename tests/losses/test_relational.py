"""Relational losses equal their twins, and RKD's angles do not hold N^3 numbers."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from reid_cckd.losses import relational
from reid_cckd.losses.against_teacher import AgainstTeacher
from reid_cckd.losses.relational import PKT, RKDAngle, RKDDistance, SimilarityPreserving
from tests.losses.test_against_teacher import POOR_BATCHES, rows
from tests.reference import relational as twin

LOSSES: dict[str, tuple[Callable[[], AgainstTeacher], Callable[..., float]]] = {
    "rkd_distance": (RKDDistance, twin.rkd_distance),
    "rkd_angle": (RKDAngle, twin.rkd_angle),
    "sp": (SimilarityPreserving, twin.sp),
    "pkt": (PKT, twin.pkt),
    "pkt eps": (lambda: PKT(eps=0.1), lambda s, t: twin.pkt(s, t, eps=0.1)),
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks of vertices, the last of them short, in every test."""
    monkeypatch.setattr(relational, "CHUNK_NUMBERS", 200)


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("name", LOSSES)
def test_value_equals_the_twin(name: str, count: int) -> None:
    make, reference = LOSSES[name]
    student, teacher = 3 * rows(count), rows(count, width=3, seed=1) + 0.5
    np.testing.assert_allclose(make()(student, ref_emb=teacher), reference(student.numpy(), teacher.numpy()), rtol=1e-9)


@pytest.mark.parametrize("batch", POOR_BATCHES)
@pytest.mark.parametrize("name", LOSSES)
def test_poor_batches_equal_the_twin(name: str, batch: str) -> None:
    make, reference = LOSSES[name]
    student, teacher = POOR_BATCHES[batch]
    expected = reference(student.numpy(), teacher.numpy())
    np.testing.assert_allclose(make()(student, ref_emb=teacher), expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient(name: str) -> None:
    student, teacher = rows(6).requires_grad_(), rows(6, width=3, seed=1)
    assert torch.autograd.gradcheck(lambda x: LOSSES[name][0]()(x, ref_emb=teacher), student)


def test_one_chunk_of_angles_is_computed_once_and_several_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls, found = relational._cosines_at, [], []

    def counted(some: Tensor, vertices: Tensor) -> Tensor:
        calls.append(len(vertices))
        return plain(some, vertices)

    monkeypatch.setattr(relational, "_cosines_at", counted)
    for numbers in (200, 2**22):
        monkeypatch.setattr(relational, "CHUNK_NUMBERS", numbers)
        calls.clear()
        student = rows(8).requires_grad_()
        RKDAngle()(student, ref_emb=rows(8, seed=1)).backward()
        found.append(student.grad)
    assert calls == [8, 8]  # of the student and of the teacher
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
@pytest.mark.parametrize("make", [RKDDistance, RKDAngle, SimilarityPreserving])
def test_a_common_scale_neither_matters_nor_overflows(make: Callable[[], AgainstTeacher], scale: float) -> None:
    student, teacher = rows(6).float(), rows(6, seed=1).float()
    torch.testing.assert_close(make()(scale * student, ref_emb=teacher), make()(student, ref_emb=teacher))


@pytest.mark.parametrize("make", [RKDDistance, RKDAngle])
def test_moving_and_rotating_a_space_changes_nothing(make: Callable[[], AgainstTeacher]) -> None:
    student, teacher = rows(6), rows(6, seed=1)
    moved = student @ torch.linalg.qr(rows(5, seed=2)).Q + rows(1, seed=3)
    torch.testing.assert_close(make()(moved, ref_emb=teacher), make()(student, ref_emb=teacher))


def test_distances_are_linear_in_large_gaps() -> None:
    student, teacher = torch.tensor([[0.0], [0.0], [0.0], [1.0]]), torch.tensor([[0.0], [1.0], [1.0], [1.0]])
    # of the 12 ordered pairs 6 are apart in each space, all at relative distance 1; 8 pairs differ, by 1 each
    assert float(RKDDistance()(student, ref_emb=teacher)) == 8 * 0.5 / 16
    far = torch.tensor([[0.0], [1e-3], [2e-3], [1.0]])  # relative distances of up to 2 beside 0
    assert float(RKDDistance()(far, ref_emb=torch.zeros(4, 1))) == pytest.approx(6 * (2 - 0.5) / 16, rel=1e-2)


def test_opposite_rows_of_rounded_cosine_are_no_logarithm_of_a_negative() -> None:
    student = torch.randn(200, 7, generator=torch.Generator().manual_seed(0))
    student = torch.cat([student, -student])
    assert PKT(eps=1e-12)(student, ref_emb=student.flip(0)).isfinite()


class Live(TorchDispatchMode):
    """Counts the numbers held in results of operations at any one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, list | tuple) else [result]:
            if isinstance(part, torch.Tensor):
                self._count(part.untyped_storage(), part.element_size())
        return result

    def _count(self, storage: torch.UntypedStorage, element_size: int) -> None:
        key, numbers = storage._cdata, storage.nbytes() // element_size
        if key not in self.seen:
            self.seen.add(key)
            self.now += numbers
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._release, key, numbers)

    def _release(self, key: int, numbers: int) -> None:
        self.seen.discard(key)
        self.now -= numbers


def test_angles_never_hold_n_cubed_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relational, "CHUNK_NUMBERS", 2 * 60 * (60 + 4))
    student = rows(60, 4).requires_grad_()
    with Live() as live:
        RKDAngle()(student, ref_emb=rows(60, 4, seed=1)).backward()
    assert 2 * 60**2 < live.peak < 60**3 / 3
