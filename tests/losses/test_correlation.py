"""The correlation loss equals its twin, whatever the tiles, the pairs, the weights and the reducer."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import distances, miners, reducers, regularizers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from reid_cckd.losses import MMD, Bilinear, CorrelationCongruenceLoss, GaussianRBF, PairMemory, tiles
from reid_cckd.losses.comparison import CompiledStep, compare_at_once
from reid_cckd.losses.kernels import DotKernel
from tests.reference import correlation as twin

KERNELS: dict[str, tuple[Callable[[], Any], Callable[..., float], bool]] = {  # make, twin, rows at unit length
    "taylor 2": (GaussianRBF, lambda x, y: twin.taylor(x, y, 0.4, 2), True),
    "taylor 0": (lambda: GaussianRBF(order=0), lambda x, y: 1.0, True),
    "taylor 1": (lambda: GaussianRBF(order=1), lambda x, y: twin.taylor(x, y, 0.4, 1), True),
    "taylor 6": (lambda: GaussianRBF(gamma=2.0, order=6), lambda x, y: twin.taylor(x, y, 2.0, 6), True),
    "exact": (lambda: GaussianRBF(gamma=0.7, order=None), lambda x, y: twin.rbf(x, y, 0.7), True),
    "bilinear": (Bilinear, twin.bilinear, True),
    "raw bilinear": (lambda: Bilinear(normalize_embeddings=False), twin.bilinear, False),
    "mmd": (MMD, twin.mmd, True),
    "any PML distance": (lambda: distances.LpDistance(power=2), lambda x, y: twin.mmd(x, y) ** 2, True),
}
ROWS = reducers.DoNothingReducer()


def rows(count: int, width: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def values(loss: CorrelationCongruenceLoss, *args: Any, **options: Any) -> Tensor:
    """One value per anchor."""
    result: Tensor = loss(*args, **options)["loss"]["losses"]
    return result


def expected(name: str, student: Tensor, teacher: Tensor, **options: Any) -> np.ndarray:
    _, phi, is_unit = KERNELS[name]
    prepare = twin.unit if is_unit else np.asarray
    return twin.row_losses(phi, prepare(student), prepare(teacher), **options)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles, the last of them short, in every test."""
    monkeypatch.setattr(tiles, "EVEN", 1)
    monkeypatch.setattr(tiles, "TILE_ROWS", 3)
    monkeypatch.setattr(tiles, "TILE_COLUMNS", 6)


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("name", KERNELS)
def test_value_equals_the_twin(name: str, count: int) -> None:
    student, teacher = rows(count), rows(count, width=3, seed=1)
    loss = CorrelationCongruenceLoss(KERNELS[name][0](), reducer=ROWS)
    np.testing.assert_allclose(
        values(loss, student, ref_emb=teacher), expected(name, student, teacher), rtol=1e-10, atol=1e-15
    )
    mean = CorrelationCongruenceLoss(KERNELS[name][0]())(student, ref_emb=teacher)
    np.testing.assert_allclose(mean, expected(name, student, teacher).mean(), rtol=1e-10, atol=1e-15)


def test_median_gamma_is_the_teachers_and_shared() -> None:
    student, teacher = rows(7), rows(7, seed=1)
    gamma = float(twin.median_gamma(teacher))
    found = CorrelationCongruenceLoss(GaussianRBF("median", order=None))(student, ref_emb=teacher)
    given = CorrelationCongruenceLoss(GaussianRBF(gamma, order=None))(student, ref_emb=teacher)
    torch.testing.assert_close(found, given)


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_of_equal_and_unequal_rows(name: str) -> None:
    teacher = rows(5, width=3, seed=1)
    labels = torch.tensor([0, 0, 1, 1, 1])
    for options in ({}, {"within_weight": 2.0, "between_weight": 0.3}):
        kernel = KERNELS[name][0]()
        by_row = CorrelationCongruenceLoss(kernel, reducer=ROWS, **options)
        mean = CorrelationCongruenceLoss(kernel, **options)
        student = rows(5, width=4).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, loss=by_row: values(loss, x, labels, ref_emb=teacher), student)
        assert torch.autograd.gradcheck(  # a second backward goes another way: equal up to rounding
            lambda x, loss=mean: loss(x, labels, ref_emb=teacher), student, nondet_tol=1e-12
        )


@pytest.mark.parametrize("name", KERNELS)
def test_gradient_through_listed_pairs(name: str) -> None:
    teacher, pairs = rows(5, seed=1), tuple(map(torch.tensor, ([0, 1, 4], [1, 0, 3], [0, 4], [2, 1])))
    student = rows(5, width=4).requires_grad_()
    loss = CorrelationCongruenceLoss(KERNELS[name][0](), within_weight=0.5, reducer=ROWS)
    assert torch.autograd.gradcheck(lambda x: values(loss, x, None, pairs, ref_emb=teacher), student)


@pytest.mark.parametrize(
    ("name", "compile"), [("taylor 2", False), ("exact", False), ("bilinear", False), ("taylor 2", True)]
)
def test_float32_is_exact_to_a_millionth(name: str, compile: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE_ROWS", 64)
    monkeypatch.setattr(tiles, "TILE_COLUMNS", 128)
    student, teacher = rows(200, width=256), rows(200, width=384, seed=1)
    student = student + 2 * student[:1]  # correlations away from zero
    results = []
    for dtype, compiled in ((torch.float32, compile), (torch.float64, False)):
        leaf = student.float().to(dtype).requires_grad_()
        loss = CorrelationCongruenceLoss(KERNELS[name][0](), compile=compiled)
        value = loss(leaf, ref_emb=teacher.float().to(dtype))
        value.backward()
        assert leaf.grad is not None
        results.append((value.item(), leaf.grad.double()))
    (value, gradient), (exact, exact_gradient) = results
    np.testing.assert_allclose(value, exact, rtol=1e-6)
    np.testing.assert_allclose(value, expected(name, student.float(), teacher.float()).mean(), rtol=1e-6)
    assert (gradient - exact_gradient).norm() < 1e-6 * exact_gradient.norm()


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 9), st.integers(1, 4), st.sampled_from(sorted(KERNELS)), st.integers(0, 99))
def test_permuting_the_batch_permutes_the_rows(count: int, width: int, name: str, seed: int) -> None:
    student, teacher = rows(count, width, seed), rows(count, 3, seed + 1)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    loss = CorrelationCongruenceLoss(KERNELS[name][0](), reducer=ROWS)
    torch.testing.assert_close(
        values(loss, student[order], ref_emb=teacher[order]), values(loss, student, ref_emb=teacher)[order]
    )


def test_rotating_a_space_changes_nothing() -> None:
    student, teacher = rows(6), rows(6, seed=1)
    rotation = torch.linalg.qr(rows(5, seed=2)).Q
    loss = CorrelationCongruenceLoss()
    torch.testing.assert_close(loss(student @ rotation, ref_emb=teacher), loss(student, ref_emb=teacher))


def test_classes_are_weighed_apart_by_exact_labels() -> None:
    student, teacher = rows(4), rows(4, seed=1)
    labels = torch.tensor([2**53, 2**53 + 1, 2**53, 2**53 + 1])  # one number as floats
    weights = np.where(labels[:, None] == labels[None], 3.0, 0.5)
    loss = CorrelationCongruenceLoss(within_weight=3.0, between_weight=0.5, reducer=ROWS)
    np.testing.assert_allclose(
        values(loss, student, labels, ref_emb=teacher), expected("taylor 2", student, teacher, weights=weights)
    )
    common = CorrelationCongruenceLoss(within_weight=0.5, between_weight=0.5, reducer=ROWS)
    np.testing.assert_allclose(values(common, student, ref_emb=teacher), 0.5 * expected("taylor 2", student, teacher))


def test_mined_pairs_and_triplets_restrict_the_pairs() -> None:
    student, teacher = rows(9), rows(9, seed=1)
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3])
    loss = CorrelationCongruenceLoss(within_weight=2.0, between_weight=0.5, reducer=ROWS)
    for miner in (miners.BatchHardMiner(), miners.TripletMarginMiner(), miners.BatchEasyHardMiner()):
        mined = miner(student, labels)
        anchors, positives, *rest = (part.tolist() for part in mined)
        others, negatives = rest if len(rest) == 2 else (anchors, rest[0])
        pairs = [*zip(anchors, positives, strict=True), *zip(others, negatives, strict=True)]
        found = loss(student, labels, mined, ref_emb=teacher)["loss"]
        wanted = twin.listed_row_losses(
            lambda x, y: twin.taylor(x, y, 0.4, 2),
            twin.unit(student),
            twin.unit(teacher),
            pairs,
            lambda i, j: 2.0 if labels[i] == labels[j] else 0.5,
        )
        assert found["indices"].tolist() == list(wanted)
        np.testing.assert_allclose(found["losses"], list(wanted.values()))


def test_no_listed_pair_is_a_loss_of_zero_that_can_be_differentiated() -> None:
    student, none = rows(4).requires_grad_(), torch.empty(0, dtype=torch.int64)
    value = CorrelationCongruenceLoss()(student, None, (none, none, none), ref_emb=rows(4, seed=1))
    value.backward()
    assert float(value.detach()) == 0
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize(
    "reducer",
    [
        reducers.MeanReducer(),
        reducers.SumReducer(),
        reducers.AvgNonZeroReducer(),
        reducers.ThresholdReducer(low=0.3),
        reducers.PerAnchorReducer(),
        reducers.ClassWeightedReducer(torch.tensor([1.0, 3.0, 0.2])),
    ],
    ids=lambda reducer: type(reducer).__name__,
)
def test_reducers_see_the_same_rows_and_send_the_same_gradient(reducer: Any) -> None:
    teacher, labels = rows(8, seed=1), torch.tensor([0, 0, 1, 1, 1, 2, 2, 2])
    results = []
    for distance in (Bilinear(), distances.DotProductSimilarity()):  # fused, and PML's own by autograd
        student = rows(8).requires_grad_()
        loss = CorrelationCongruenceLoss(distance, reducer=reducer)
        value = loss(student, labels, ref_emb=teacher)
        value.backward()
        results += [(value.detach(), student.grad)]
    assert float(results[0][0]) > 0
    torch.testing.assert_close(results[0], results[1])


def test_element_losses_may_be_weighed_by_hand() -> None:
    teacher, uneven = rows(8, seed=1), torch.arange(8.0, dtype=torch.float64)
    gradients = []
    for distance in (Bilinear(), distances.DotProductSimilarity()):  # fused, and PML's own by autograd
        student = rows(8).requires_grad_()
        loss = CorrelationCongruenceLoss(distance)
        loss(student, ref_emb=teacher)  # reduces its own, evenly, and is to forget it
        values = loss.compute_loss(student, None, None, teacher, None)["loss"]["losses"]
        gradients += torch.autograd.grad((uneven * values).sum(), student)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_embedding_regularizer_is_added() -> None:
    student, teacher = rows(4), rows(4, seed=1)
    loss = CorrelationCongruenceLoss(embedding_regularizer=regularizers.LpRegularizer(), embedding_reg_weight=0.1)
    expected_value = CorrelationCongruenceLoss()(student, ref_emb=teacher) + 0.1 * student.norm(dim=1).mean()
    torch.testing.assert_close(loss(student, ref_emb=teacher), expected_value)


def test_only_the_student_learns_and_its_projection() -> None:
    student, teacher = rows(6, width=4).float().requires_grad_(), rows(6, width=3, seed=1).float().requires_grad_()
    loss = CorrelationCongruenceLoss(project=(4, 3))
    loss(student, ref_emb=teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in loss.parameters())
    assert loss.projection is not None
    projected = loss.projection(student)
    torch.testing.assert_close(CorrelationCongruenceLoss()(projected, ref_emb=teacher), loss(student, ref_emb=teacher))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_are_computed_in_float32(dtype: torch.dtype) -> None:
    student, teacher = rows(6).to(dtype).requires_grad_(), rows(6, seed=1).to(dtype)
    for name in ("taylor 2", "mmd"):
        loss = CorrelationCongruenceLoss(KERNELS[name][0]())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(student, ref_emb=teacher)
            value.backward()
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), loss(student.double(), ref_emb=teacher.double()), rtol=1e-6, atol=0)


def test_a_second_backward_finds_the_gradient_anew() -> None:
    student, teacher = rows(7).requires_grad_(), rows(7, seed=1)
    value = CorrelationCongruenceLoss()(student, ref_emb=teacher)
    (first,) = torch.autograd.grad(value, student, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(3 * value, student)
    torch.testing.assert_close(first, kept, rtol=0, atol=0)
    torch.testing.assert_close(second, 3 * first)


@pytest.mark.parametrize("name", ["taylor 2", "exact", "raw bilinear"])
def test_second_derivative(name: str) -> None:
    teacher, labels = rows(4, seed=1), torch.tensor([0, 0, 1, 1])
    loss = CorrelationCongruenceLoss(KERNELS[name][0](), within_weight=2.0)
    assert torch.autograd.gradgradcheck(lambda x: loss(x, labels, ref_emb=teacher), rows(4).requires_grad_())


def test_a_teacher_overwritten_before_backward_is_noticed() -> None:
    student, teacher = rows(7).requires_grad_(), rows(7, seed=1)
    value = CorrelationCongruenceLoss()(student, ref_emb=teacher)
    teacher.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


class LargestTensor(TorchDispatchMode):
    """Remembers the size in bytes of the largest tensor that any operation returned."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, list | tuple) else [result]:
            if isinstance(part, Tensor):
                self.size = max(self.size, part.nbytes)
        return result


@pytest.mark.parametrize("options", [{}, {"within_weight": 2.0}], ids=["all pairs", "by class"])
def test_nothing_of_size_n_squared_is_made(options: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE_ROWS", 16)
    monkeypatch.setattr(tiles, "TILE_COLUMNS", 32)
    count, width = 256, 8
    student = rows(count, width).requires_grad_()
    loss = CorrelationCongruenceLoss(reducer=reducers.ThresholdReducer(low=1e-4), **options)
    with LargestTensor() as largest:
        loss(student, torch.arange(count) % 7, ref_emb=rows(count, width, seed=1)).backward()
    assert largest.size == count * width * 8  # the inputs and the gradient


@pytest.mark.parametrize("count", [1, 2, 31, 300, 513, 5000])
@pytest.mark.parametrize("width", [1, 512, 5000, 2**21])
def test_tiles_are_even_and_small(count: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    student = torch.empty(count, width, device="meta")
    height, length = tiles.tile_of(Rows(student), Rows(student[:, :1]))  # type: ignore[arg-type]
    assert height % tiles.EVEN == length % height == 0
    assert 0 < height <= length < tiles.TILE_COLUMNS + height
    assert (length - height) * width < tiles.COLUMN_ELEMENTS
    assert (height - tiles.EVEN) * width <= tiles.COLUMN_ELEMENTS // 4


class Rows:
    """Stands for rows on the CPU that would take too much memory."""

    device = torch.device("cpu")

    def __init__(self, rows: Tensor) -> None:
        self.shape = rows.shape

    def __len__(self) -> int:
        return int(self.shape[0])


def test_no_gradient_is_found_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles.Rows, "chain_", lambda *_: pytest.fail("gradient work"))
    student, teacher = rows(4).requires_grad_(), rows(4, seed=1)
    with torch.no_grad():
        assert not CorrelationCongruenceLoss()(student, ref_emb=teacher).requires_grad
    CorrelationCongruenceLoss()(student.detach(), ref_emb=teacher)


def test_one_row_is_zero_and_a_zero_row_is_orthogonal() -> None:
    one = rows(1).requires_grad_()
    value = CorrelationCongruenceLoss()(one, ref_emb=rows(1, seed=1))
    value.backward()
    assert abs(float(value.detach())) < 1e-30
    assert one.grad is not None
    assert one.grad.abs().max() < 1e-14
    student, teacher = rows(5), rows(5, seed=1)
    student[2] = teacher[4] = 0
    student.requires_grad_()
    value = CorrelationCongruenceLoss()(student, ref_emb=teacher)
    value.backward()
    np.testing.assert_allclose(value.detach(), expected("taylor 2", student.detach(), teacher).mean())
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert not student.grad[2].any()


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e17])
def test_finite_rows_of_any_length_never_give_nan(scale: float) -> None:
    student = (rows(5).float() * scale).requires_grad_()
    value = CorrelationCongruenceLoss()(student, ref_emb=rows(5, seed=1).float() * scale)
    value.backward()
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_a_model_with_the_loss_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE_ROWS", 16)
    monkeypatch.setattr(tiles, "TILE_COLUMNS", 32)
    torch.manual_seed(0)
    model, images, teacher = torch.nn.Linear(8, 5), torch.randn(40, 8), torch.randn(40, 6)
    loss, fast = CorrelationCongruenceLoss(), CorrelationCongruenceLoss(compile=True)

    def step(criterion: CorrelationCongruenceLoss) -> Tensor:
        value: Tensor = criterion(model(images), ref_emb=teacher)
        return value

    results = []
    for run in (step, torch.compile(step)):
        for criterion in (loss, fast):
            model.zero_grad()
            value = run(criterion)
            value.backward()
            assert model.weight.grad is not None
            results.append((value.detach(), model.weight.grad.clone()))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])
    assert torch._dynamo.utils.counters["frames"]["ok"] >= 2  # both the model and the elementwise step


@pytest.fixture(scope="module")
def compiled() -> CorrelationCongruenceLoss:
    return CorrelationCongruenceLoss(compile=True)


@pytest.mark.parametrize("count", [9, 16, 41])  # tile by tile, and as a whole
@pytest.mark.parametrize("case", ["plain", "weights", "upstream", "memory", "zero", *(1e-30, 1e-6, 1e10, 1e17)])
def test_the_compiled_loss_is_the_same(case: str | float, count: int, compiled: CorrelationCongruenceLoss) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(count, 5) * torch.rand(count, 1), torch.randn(count, 4) * torch.rand(count, 1)
    labels = torch.arange(count) % 3
    options: dict[str, Any] = {"within_weight": 2.0, "between_weight": 0.5} if case == "weights" else {}
    if case == "zero":
        student[2] = teacher[4] = 0
    elif isinstance(case, float):
        student[3:] *= case
        teacher[5:] *= case

    def found(step: Any) -> tuple[Tensor, Tensor]:
        memory = PairMemory(20) if case == "memory" else None
        loss = CorrelationCongruenceLoss(memory=memory, reducer=ROWS, **options)
        loss.step = step
        if memory is not None:
            values(loss, torch.randn(6, 5, generator=torch.Generator().manual_seed(1)), labels[:6], ref_emb=teacher[:6])
        own = student.clone().requires_grad_()
        result = values(loss, own, labels, ref_emb=teacher)
        (result * (torch.arange(count) if case == "upstream" else 1)).sum().backward()
        assert own.grad is not None
        return result.detach(), own.grad

    for one, other in zip(found(compiled.step), found(None), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * float(other.abs().max()))


def test_a_compiled_loss_can_be_pickled_and_copied(compiled: CorrelationCongruenceLoss) -> None:
    student, teacher = rows(16, 8), rows(16, 12, seed=1)
    value = compiled(student, ref_emb=teacher)
    for other in (pickle.loads(pickle.dumps(compiled)), copy.deepcopy(compiled)):
        torch.testing.assert_close(other(student, ref_emb=teacher), value)


def test_compiled_losses_stay_compiled_for_batches_of_other_sizes() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = [0]
    for _ in range(2):
        loss = CorrelationCongruenceLoss(memory=PairMemory(1000), compile=True)
        for count in (64, 64, 64, 40, 64, 600):
            batch = torch.randn(count, 6, requires_grad=True)
            loss(batch, ref_emb=torch.randn(count, 4)).backward()
        compiled.append(torch._dynamo.utils.counters["frames"]["ok"])
    first, second = (after - before for before, after in itertools.pairwise(compiled))
    assert 2 <= first <= 4  # a batch without a past as a whole, and tiles
    assert 2 <= second <= first  # torch gives up after eight of one code, so losses do not share it


# what accelerators do with a small batch, tried on the CPU
AT_ONCE = [name for name, (make, _, _) in KERNELS.items() if isinstance(make(), DotKernel)]


def at_once(name: str, student: Tensor, teacher: Tensor, compare: Any = compare_at_once) -> tuple[Tensor, Tensor]:
    """The loss of each row, and the gradient of their sum."""
    kernel = KERNELS[name][0]()
    batch = kernel.profile(teacher), student.clone(), teacher.clone(), kernel.normalize_embeddings
    sums, gradient = compare(*batch)
    return sums / len(student), gradient / len(student)


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_batch_compared_at_once_equals_the_twin(name: str) -> None:
    student, teacher = rows(19, width=6), rows(19, width=4, seed=1)
    found, _ = at_once(name, student, teacher)
    np.testing.assert_allclose(found, expected(name, student, teacher), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_batch_compared_at_once_equals_its_tiles(name: str) -> None:
    student, teacher = rows(19, width=6).requires_grad_(), rows(19, width=4, seed=1)
    student.data[2] = teacher[4] = 0
    found, gradient = at_once(name, student.detach(), teacher)
    by_tiles = values(CorrelationCongruenceLoss(KERNELS[name][0](), reducer=ROWS), student, ref_emb=teacher)
    by_tiles.sum().backward()
    torch.testing.assert_close(found, by_tiles.detach(), rtol=1e-10, atol=1e-15)
    torch.testing.assert_close(gradient, student.grad, rtol=1e-10, atol=1e-13)


@pytest.fixture(scope="module")
def generated() -> CompiledStep:
    return CompiledStep()


@pytest.mark.parametrize("is_generated", [False, True])
@pytest.mark.parametrize("name", ["taylor 2", "exact", "bilinear"])
def test_float32_at_once_is_exact_to_a_millionth(name: str, is_generated: bool, generated: CompiledStep) -> None:
    student, teacher = rows(200, width=256), rows(200, width=384, seed=1)
    student = (student + 2 * student[:1]).float()  # correlations away from zero
    teacher = teacher.float()
    found, gradient = at_once(name, student, teacher, generated.at_once if is_generated else compare_at_once)
    exact, exact_gradient = at_once(name, student.double(), teacher.double())
    np.testing.assert_allclose(found.mean(), expected(name, student, teacher).mean(), rtol=1e-6)
    assert (found - exact).norm() < 1e-6 * exact.norm()
    assert (gradient - exact_gradient).norm() < 1e-6 * exact_gradient.norm()


def test_a_row_too_long_for_its_type_is_undefined_at_once() -> None:
    student, teacher = rows(6).float(), rows(6, seed=1).float()
    student[3] = 1e30
    found, gradient = at_once("taylor 2", student, teacher)
    assert found.isnan().all()
    assert gradient.isnan().all()


def bad(change: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    student, teacher, labels, pairs = rows(4), rows(4, seed=1), torch.arange(4), None
    if change == "lengths":
        teacher = teacher[:3]
    elif change == "empty":
        student, teacher, labels = student[:0], teacher[:0], labels[:0]
    elif change == "flat":
        student = student[0]
    elif change == "nan student":
        student[2, 1] = torch.nan
    elif change == "inf student":
        student[2, 1] = torch.inf
    elif change == "nan teacher":
        teacher[2, 1] = torch.nan
    elif change == "labels":
        labels = labels[:, None]
    elif change == "few labels":
        labels = labels[:3]
    elif change == "index":
        pairs = (torch.tensor([0]), torch.tensor([4]), torch.tensor([1]))
    elif change == "negative index":
        pairs = (torch.tensor([-1]), torch.tensor([0]), torch.tensor([1]))
    elif change == "float index":
        pairs = (torch.tensor([0.0]), torch.tensor([0]), torch.tensor([1]))
    elif change == "two indices":
        pairs = (torch.tensor([0]), torch.tensor([0]))
    elif change == "unequal indices":
        pairs = (torch.tensor([0, 1]), torch.tensor([0]), torch.tensor([1]))
    return (student, labels, pairs), {"ref_emb": None if change == "no teacher" else teacher}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("no teacher", "ref_emb"),
        ("lengths", "ref_emb"),
        ("empty", "embeddings"),
        ("flat", "embeddings"),
        ("nan student", "embeddings: 1 of 4 rows .* row 2"),
        ("inf student", "embeddings: 1 of 4 rows .* row 2"),
        ("nan teacher", "ref_emb: 1 of 4 rows .* row 2"),
        ("labels", "labels"),
        ("few labels", "labels"),
        ("index", "indices_tuple"),
        ("negative index", "indices_tuple"),
        ("float index", "indices_tuple"),
        ("two indices", "indices_tuple"),
        ("unequal indices", "indices_tuple"),
    ],
)
@pytest.mark.parametrize("name", ["taylor 2", "exact", "raw bilinear", "mmd"])
def test_bad_input_is_named(name: str, change: str, named: str) -> None:
    arguments, options = bad(change)
    with pytest.raises(ValueError, match=named):
        CorrelationCongruenceLoss(KERNELS[name][0]())(*arguments, **options)


def test_nan_hides_behind_no_weight() -> None:
    (student, labels, _), options = bad("nan student")
    with pytest.raises(ValueError, match="embeddings"):
        CorrelationCongruenceLoss(within_weight=0.0, between_weight=0.0)(student, labels, **options)


def test_overflowing_products_are_an_error() -> None:
    huge = rows(4).float() * 1e30
    with pytest.raises(ValueError, match="kernel values"):
        CorrelationCongruenceLoss(Bilinear(normalize_embeddings=False))(huge, ref_emb=huge)


@pytest.mark.parametrize(
    "options", [{"distance": "gaussian"}, {"distance": GaussianRBF}, {"memory": 4096}], ids=["name", "class", "size"]
)
def test_what_is_no_kernel_or_no_memory_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"^{next(iter(options))}: expected a"):
        CorrelationCongruenceLoss(**options)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_indices_of_any_integer_type_are_indices_and_a_mask_is_refused(dtype: torch.dtype) -> None:
    pairs = tuple(torch.tensor(part) for part in ([0, 1, 2], [1, 0, 3], [0, 1], [2, 3]))
    student, options = rows(4), {"ref_emb": rows(4, seed=1)}
    value = CorrelationCongruenceLoss()(student, None, tuple(part.to(dtype) for part in pairs), **options)
    assert torch.equal(value, CorrelationCongruenceLoss()(student, None, pairs, **options))
    with pytest.raises(ValueError, match=r"^indices_tuple: expected 1-D integers"):
        CorrelationCongruenceLoss()(student, None, (torch.ones(4, dtype=torch.bool),) * 4, **options)


def test_weights_are_checked() -> None:
    with pytest.raises(ValueError, match="within_weight"):
        CorrelationCongruenceLoss(within_weight=-1.0)
    with pytest.raises(ValueError, match="between_weight"):
        CorrelationCongruenceLoss(between_weight=float("nan"))
    with pytest.raises(ValueError, match="labels"):
        CorrelationCongruenceLoss(within_weight=2.0)(rows(4), ref_emb=rows(4, seed=1))
