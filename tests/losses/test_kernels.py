"""The kernels are exact, and at home in pytorch-metric-learning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses, miners

from reid_cckd.losses import MMD, Bilinear, CorrelationCongruenceLoss, GaussianRBF
from reid_cckd.losses.kernels import constants, median_gamma, unit_rows
from tests.reference import correlation as twin

KERNELS = {
    "bilinear": (Bilinear, twin.bilinear),
    "taylor 0": (lambda: GaussianRBF(order=0), lambda x, y: twin.taylor(x, y, 0.4, 0)),
    "taylor 1": (lambda: GaussianRBF(order=1), lambda x, y: twin.taylor(x, y, 0.4, 1)),
    "taylor 2": (GaussianRBF, lambda x, y: twin.taylor(x, y, 0.4, 2)),
    "taylor 5": (lambda: GaussianRBF(gamma=1.5, order=5), lambda x, y: twin.taylor(x, y, 1.5, 5)),
    "exact": (lambda: GaussianRBF(gamma=0.7, order=None), lambda x, y: twin.rbf(x, y, 0.7)),
    "mmd": (MMD, twin.mmd),
}


def rows(count: int, width: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", KERNELS)
def test_kernel_equals_its_twin(name: str) -> None:
    make, phi = KERNELS[name]
    x, y = rows(6), rows(4, seed=1)
    expected = twin.matrix(phi, twin.unit(x), twin.unit(y))
    np.testing.assert_allclose(make()(x, y), expected, rtol=1e-12)
    np.testing.assert_allclose(
        make().pairwise_distance(*(make().normalize(r) for r in (x[:4], y))), expected.diagonal()
    )


def test_unnormalised_rows_are_taken_as_they_are() -> None:
    x = rows(4)
    torch.testing.assert_close(Bilinear(normalize_embeddings=False)(x), x @ x.T)
    torch.testing.assert_close(MMD(normalize_embeddings=False)(x), torch.cdist(x, x))


@pytest.mark.parametrize(("order", "error"), [(1, 0.191), (2, 0.047), (3, 0.009), (4, 0.0014)])
def test_series_is_as_near_to_the_exact_kernel_as_documented(order: int, error: float) -> None:
    angles = torch.linspace(0, np.pi, 1000, dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()], dim=1)
    gap = (GaussianRBF(order=order)(circle[:1], circle) - GaussianRBF(order=None)(circle[:1], circle)).abs().max()
    assert 0.9 * error < gap <= 1.06 * error


@pytest.mark.parametrize("name", KERNELS)
def test_direction_is_declared(name: str) -> None:
    kernel = KERNELS[name][0]()
    near, far = torch.tensor([[1.0, 0.1]]), torch.tensor([[-1.0, 0.4]])
    query = torch.tensor([[1.0, 0.0]])
    if name != "taylor 0":
        assert (kernel(query, near) > kernel(query, far)).item() is kernel.is_inverted


@pytest.mark.parametrize("name", ["bilinear", "taylor 2", "exact", "mmd"])
@pytest.mark.parametrize("loss", ["TripletMarginLoss", "NTXentLoss", "ContrastiveLoss"])
def test_kernel_trains_any_pml_loss(name: str, loss: str) -> None:
    kernel = KERNELS[name][0]()
    same, orthogonal = kernel(torch.eye(2))[0].tolist()
    options = {"pos_margin": same, "neg_margin": orthogonal} if loss == "ContrastiveLoss" else {}
    criterion = getattr(losses, loss)(distance=kernel, **options)
    labels = torch.arange(4).repeat_interleave(3)
    points = torch.nn.Parameter(rows(12).float())
    optimizer = torch.optim.Adam([points], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        criterion(points, labels).backward()
        optimizer.step()
    scores = kernel(points).detach() * (1 if kernel.is_inverted else -1)
    nearest = scores.fill_diagonal_(-torch.inf).argmax(dim=1)
    assert (labels[nearest] == labels).all()


@pytest.mark.parametrize("name", ["bilinear", "taylor 2", "exact"])
@pytest.mark.parametrize("loss", ["NCALoss", "NormalizedSoftmaxLoss"])
def test_kernel_serves_losses_that_write_into_it_or_have_their_weights_in_columns(name: str, loss: str) -> None:
    torch.manual_seed(0)
    options = {"num_classes": 3, "embedding_size": 5} if "Soft" in loss else {}
    criterion = getattr(losses, loss)(distance=KERNELS[name][0](), **options)
    points = rows(6).float().requires_grad_()
    criterion(points, torch.arange(6) % 3).backward()
    assert points.grad is not None
    assert points.grad.isfinite().all()
    assert points.grad.any()


def test_columns_are_normalised_as_rows_are() -> None:
    torch.testing.assert_close(GaussianRBF().normalize(rows(4).T, dim=0), unit_rows(rows(4)).T)


def test_kernel_serves_a_miner() -> None:
    labels = torch.arange(4).repeat_interleave(3)
    anchors, positives, negatives = miners.BatchHardMiner(distance=GaussianRBF())(rows(12), labels)
    assert len(anchors) == len(positives) == len(negatives) == 12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", KERNELS)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    make, _ = KERNELS[name]
    x = rows(8).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = make()(x)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, make()(x.double()).float(), rtol=1e-5, atol=1e-3 if name == "mmd" else 1e-6)


@pytest.mark.parametrize("name", KERNELS)
def test_gradient_in_float64(name: str) -> None:
    make, _ = KERNELS[name]
    assert torch.autograd.gradcheck(make(), (rows(4).requires_grad_(), rows(3, seed=2).requires_grad_()))


def test_a_zero_row_is_orthogonal_to_all_and_gets_no_gradient() -> None:
    x = rows(3)
    x[1] = 0
    x.requires_grad_()
    value = GaussianRBF(order=None)(x)
    torch.testing.assert_close(value[1], torch.full((3,), np.exp(-0.8)).double())
    value.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert not x.grad[1].any()


def test_median_gamma_is_that_of_the_reference_rows() -> None:
    x, y = rows(9), rows(11, seed=3)
    expected = twin.median_gamma(y)
    np.testing.assert_allclose(median_gamma(y), expected, rtol=1e-12)
    torch.testing.assert_close(GaussianRBF("median", None)(x, y), GaussianRBF(float(expected), None)(x, y))


def test_median_gamma_looks_at_few_rows_of_many_and_survives_equal_ones() -> None:
    many = rows(5000, width=16)
    assert abs(float(median_gamma(many)) / twin.median_gamma(many[::10]) - 1) < 0.02
    assert GaussianRBF("median", 2)(torch.ones(3, 2)).isfinite().all()
    assert GaussianRBF("median", 2)(torch.ones(1, 2)).isfinite().all()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"gamma": -1.0}, "gamma"),
        ({"gamma": 0}, "gamma"),
        ({"gamma": float("nan")}, "gamma"),
        ({"gamma": float("inf")}, "gamma"),
        ({"gamma": "mean"}, "gamma"),
        ({"order": -1}, "order"),
        ({"order": 1.5}, "order"),
        ({"normalize_embeddings": False}, "normalize_embeddings"),
        ({"power": 2}, "power"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        GaussianRBF(**options)


@pytest.mark.parametrize("scale", [1e18, 1e30])
def test_rows_whose_length_overflows_are_refused_and_no_zero_rows(scale: float) -> None:
    student, teacher = torch.randn(8, 512) * scale, torch.randn(8, 512)
    for pair in ((student, teacher), (teacher, student)):
        with pytest.raises(ValueError, match="kernel values are not"):
            CorrelationCongruenceLoss()(pair[0], ref_emb=pair[1])
    assert bool(unit_rows(student).isnan().all())


def test_constants_are_made_once_and_kept() -> None:
    """A recorded CUDA graph goes on to read them where they were."""
    place = torch.float32, torch.device("cpu")
    first = constants((0.25, 0.5), *place)
    for number in range(300):
        constants((float(number),), *place)
    assert constants((0.25, 0.5), *place) is first
