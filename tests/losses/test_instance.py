"""Losses of each image by itself equal their twins, and refuse what they cannot compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reid_cckd.losses.instance import CosineMimic, CrossEntropy, EmbeddingMimic, HintonKD, ProjectedMimic
from tests.reference import instance as twin

AGAINST_TEACHER: dict[str, tuple[Callable[[], nn.Module], Callable[..., float]]] = {
    "kd": (HintonKD, lambda s, t: twin.hinton_kd(s, t, 4.0)),
    "kd, tau 1": (lambda: HintonKD(temperature=1.0), lambda s, t: twin.hinton_kd(s, t, 1.0)),
    "cosine_mimic": (CosineMimic, twin.cosine_mimic),
    "l2_mimic": (EmbeddingMimic, twin.l2_mimic),
    "l2_mimic, rows as they are": (
        lambda: EmbeddingMimic(normalize_embeddings=False),
        lambda s, t: twin.l2_mimic(s, t, normalize=False),
    ),
}
everyone = pytest.mark.parametrize("name", AGAINST_TEACHER)


def rows(count: int = 6, width: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return (3 * torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))).to(dtype)


def made(name: str) -> nn.Module:
    return AGAINST_TEACHER[name][0]()


@everyone
@pytest.mark.parametrize("count", [1, 6])
def test_value_equals_the_twin(name: str, count: int) -> None:
    student, teacher = rows(count), rows(count, seed=1)
    expected = AGAINST_TEACHER[name][1](student.numpy(), teacher.numpy())
    assert float(made(name)(student, ref_emb=teacher)) == pytest.approx(expected, rel=1e-12)


@everyone
def test_gradient(name: str) -> None:
    student, teacher = rows(3).requires_grad_(), rows(3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: made(name)(s, ref_emb=teacher), student)
    made(name)(student, ref_emb=teacher).backward()
    assert teacher.grad is None


@everyone
def test_zero_where_student_and_teacher_agree(name: str) -> None:
    assert float(made(name)(rows(), ref_emb=rows())) == pytest.approx(0, abs=1e-12)
    assert float(made(name)(rows(), ref_emb=rows(seed=1))) > 0.01


@everyone
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rows_are_compared_in_float32(name: str, dtype: torch.dtype) -> None:
    student, teacher = rows(dtype=dtype).requires_grad_(), rows(seed=1, dtype=dtype)
    value = made(name)(student, ref_emb=teacher)
    expected = AGAINST_TEACHER[name][1](student.detach().double().numpy(), teacher.double().numpy())
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(expected, rel=1e-5)
    value.backward()
    assert student.grad is not None
    assert student.grad.dtype == dtype


@everyone
def test_extreme_numbers_stay_finite(name: str) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0], [-1e4, 1e4, 1e4]]).requires_grad_()
    teacher = torch.tensor([[-1e4, 1e4, 0.0], [1e4, 0.0, 0.0], [0.0, 0.0, 0.0]])
    value = made(name)(student, ref_emb=teacher)
    value.backward()
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("loss", [CosineMimic(), EmbeddingMimic()])
def test_a_zero_row_is_orthogonal_to_all_and_gets_no_gradient(loss: nn.Module) -> None:
    student = torch.tensor([[0.0, 0.0], [3.0, 4.0]]).requires_grad_()
    value = loss(student, ref_emb=torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
    value.backward()
    assert float(value) == pytest.approx(0.5)
    assert student.grad is not None
    assert student.grad[0].tolist() == [0, 0]


def test_the_l2_mimic_of_unit_rows_is_twice_the_cosine_mimic() -> None:
    student, teacher = rows(), rows(seed=1)
    l2, cosine = EmbeddingMimic()(student, ref_emb=teacher), CosineMimic()(student, ref_emb=teacher)
    torch.testing.assert_close(l2, 2 * cosine)


def test_a_projected_mimic_is_of_any_two_widths() -> None:
    loss, student, teacher = ProjectedMimic(5, 3).double(), rows().requires_grad_(), rows(width=3, seed=1)
    weight, bias = (one.detach().numpy() for one in (loss.projection.weight, loss.projection.bias))
    expected = twin.projected_mimic(student.detach().numpy(), teacher.numpy(), weight, bias)
    assert float(loss(student, ref_emb=teacher)) == pytest.approx(expected, rel=1e-9)
    assert torch.autograd.gradcheck(lambda rows, *_: loss(rows, ref_emb=teacher), (student, *loss.parameters()))
    with pytest.raises(ValueError, match="ref_emb: width 5, expected 3"):
        loss(student, ref_emb=rows())
    with pytest.raises(ValueError, match="embeddings: width 3, expected 5"):
        loss(teacher, ref_emb=teacher)


def test_a_projected_mimic_finds_the_teachers_space_and_leaves_the_student_its_own() -> None:
    torch.manual_seed(0)
    student, loss = rows(32), ProjectedMimic(5, 3).double()
    teacher = student @ rows(5, width=3, seed=1)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    before = float(loss(student, ref_emb=teacher))
    for _ in range(200):
        optimizer.zero_grad()
        loss(student, ref_emb=teacher).backward()
        optimizer.step()
    assert float(loss(student, ref_emb=teacher)) < 1e-3 < before


def test_a_temperature_far_above_the_logits_matches_them() -> None:
    """Hinton, sec. 2.1: tau^2 KL tends to |z_s - z_t|^2 / (2 C) of zero-mean logits."""
    student, teacher = (z - z.mean(dim=1, keepdim=True) for z in (rows(), rows(seed=1)))
    expected = (student - teacher).square().sum(dim=1).mean() / (2 * student.shape[1])
    assert float(HintonKD(temperature=1e4)(student, ref_emb=teacher)) == pytest.approx(float(expected), rel=1e-3)


@everyone
def test_bad_input_names_the_argument(name: str) -> None:
    loss = made(name)
    holed = rows()
    holed[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"^ref_emb: pass the teacher"):
        loss(rows())
    with pytest.raises(ValueError, match=r"^ref_emb: 5 rows for 6"):
        loss(rows(), ref_emb=rows(5))
    with pytest.raises(ValueError, match=r"^ref_emb: width 4, embeddings: 5"):
        loss(rows(), ref_emb=rows(width=4))
    with pytest.raises(ValueError, match=r"^embeddings: expected a matrix"):
        loss(rows(0), ref_emb=rows(0))
    with pytest.raises(ValueError, match=r"^embeddings: .*first is row 2"):
        loss(holed, ref_emb=rows())
    with pytest.raises(ValueError, match=r"^ref_emb: .*first is row 2"):
        loss(rows(), ref_emb=holed)


@pytest.mark.parametrize("temperature", [0, -1, float("inf"), float("nan")])
def test_a_temperature_is_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"^temperature"):
        HintonKD(temperature)


def test_kd_of_label_spaces_that_overlap_in_part() -> None:
    student, teacher = rows(width=4).requires_grad_(), rows(width=5, seed=1)
    loss = HintonKD(student_classes=[30, 10, 20, 99], teacher_classes=[10, 11, 20, 12, 30])
    expected = twin.hinton_kd(student.detach().numpy()[:, [0, 1, 2]], teacher.numpy()[:, [4, 0, 2]], 4.0)
    value = loss(student, ref_emb=teacher)
    value.backward()
    assert value.item() == pytest.approx(expected, rel=1e-12)
    assert student.grad is not None
    assert student.grad[:, :3].all()
    assert not student.grad[:, 3].any()  # the teacher does not know this class
    assert not loss.state_dict()


def test_kd_of_the_same_classes_in_another_order_is_kd() -> None:
    student, teacher, order = rows(), rows(seed=1), [3, 1, 4, 0, 2]
    reordered = HintonKD(student_classes=range(5), teacher_classes=order)(student, ref_emb=teacher[:, order])
    torch.testing.assert_close(reordered, HintonKD()(student, ref_emb=teacher))


@pytest.mark.parametrize(
    ("student_classes", "teacher_classes", "named"),
    [
        ([1, 2], None, "^student_classes, teacher_classes: give both"),
        (None, [1, 2], "^student_classes, teacher_classes: give both"),
        ([1, 2, 1], [1, 2], "^student_classes: a class is in it twice"),
        ([1, 2], [2, 2, 1], "^teacher_classes: a class is in it twice"),
        ([1, 2], [2, 3], "two or more in common, found 1"),
    ],
)
def test_class_lists_of_kd_are_checked(student_classes: Any, teacher_classes: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        HintonKD(student_classes=student_classes, teacher_classes=teacher_classes)


def test_class_lists_of_kd_may_be_tensors() -> None:
    lists = {"student_classes": [7, 3, 9, 1, 4], "teacher_classes": [9, 2, 7, 3, 5]}
    tensors = {name: torch.tensor(classes) for name, classes in lists.items()}
    value = HintonKD(**tensors)(rows(), ref_emb=rows(seed=1))
    assert torch.equal(value, HintonKD(**lists)(rows(), ref_emb=rows(seed=1)))


def test_kd_wants_a_column_for_each_class() -> None:
    loss = HintonKD(student_classes=range(5), teacher_classes=range(4))
    with pytest.raises(ValueError, match=r"^embeddings: 4 columns for 5 classes"):
        loss(rows(width=4), ref_emb=rows(width=4))
    with pytest.raises(ValueError, match=r"^ref_emb: 5 columns for 4 classes"):
        loss(rows(), ref_emb=rows())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_equals_the_twin(smoothing: float) -> None:
    logits, labels = rows(), torch.tensor([0, 4, 2, 2, 1, 3])
    expected = twin.cross_entropy(logits.numpy(), labels.numpy(), smoothing)
    assert float(CrossEntropy(smoothing)(logits, labels)) == pytest.approx(expected, rel=1e-12)


def test_cross_entropy_of_extreme_and_of_half_precision_logits() -> None:
    assert float(CrossEntropy()(torch.tensor([[1e4, -1e4]]), torch.tensor([1]))) == 2e4
    assert CrossEntropy()(rows(dtype=torch.float16), torch.zeros(6, dtype=torch.long)).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_cross_entropy_takes_labels_of_any_integer_type(dtype: torch.dtype) -> None:
    labels = torch.tensor([0, 4, 2, 2, 1, 3])
    assert torch.equal(CrossEntropy()(rows(), labels.to(dtype)), CrossEntropy()(rows(), labels))


def test_cross_entropy_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"^label_smoothing"):
        CrossEntropy(1.5)
    with pytest.raises(ValueError, match=r"^labels: expected shape"):
        CrossEntropy()(rows(), torch.zeros(5, dtype=torch.long))
    with pytest.raises(ValueError, match=r"^labels: expected integers"):
        CrossEntropy()(rows(), torch.zeros(6))
    for label in (-1, 5):
        with pytest.raises(ValueError, match=r"^labels: expected integers from 0 to 4"):
            CrossEntropy()(rows(), torch.full((6,), label))
    with pytest.raises(ValueError, match=r"^embeddings"):
        CrossEntropy()(rows(0), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match=r"^labels: pass"):
        CrossEntropy()(rows())
    broken = rows()
    broken[1, 0] = torch.nan
    with pytest.raises(ValueError, match=r"^embeddings: 1 of 6 rows hold NaN"):
        CrossEntropy()(broken, torch.zeros(6, dtype=torch.long))
