"""Correlation kernels phi(x, y) of CCKD (Peng et al., ICCV 2019, arXiv 1904.01802, section 3.3) as PML distances.

`Bilinear` and `GaussianRBF` see two rows through their dot product alone. Such a kernel also hands out its
*profile*, the function of that one number, on which the fused passes of `CorrelationCongruenceLoss` are built.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from pytorch_metric_learning.distances import BaseDistance
from torch import Tensor

from reid_cckd.losses.precision import at_least_float32, full_precision

EPS = 1e-12  # a row shorter than this has no direction
MEDIAN_ROWS = 1024  # rows that the median heuristic looks at, so that it costs 4 MB at most
SMALLEST_MEDIAN = 0.01  # keeps gamma at 50 or below when all rows are alike


def inverse_norms(rows: Tensor) -> Tensor:
    """1 / length of each row as a column, (N, 1), and 0 for a zero row, which so stays zero and gets no gradient."""
    return inverse(torch.linalg.vector_norm(rows, dim=1, keepdim=True))


def inverse(norms: Tensor) -> Tensor:
    """1 / length, 0 for that of a zero row, and NaN where the length is too much for its type."""
    return inverse_of_finite(norms).masked_fill(norms == torch.inf, torch.nan)


def inverse_of_finite(norms: Tensor) -> Tensor:
    """`inverse` without a look at what is too long."""
    return norms.clamp_min(EPS).reciprocal().masked_fill(norms < EPS, 0.0)


def unit_rows(rows: Tensor) -> Tensor:
    """Rows (N, D) at length 1; a zero row stays zero and gets no gradient."""
    return rows * inverse_norms(rows)


class Polynomial(NamedTuple):
    """k(s) = sum_p coefficients[p] * s**p, at least two coefficients, evaluated by Horner's rule."""

    coefficients: Tensor

    def value(self, dots: Tensor) -> Tensor:
        """k of every dot product."""
        return self.centred(dots) + self.coefficients[0]

    def centred(self, dots: Tensor) -> Tensor:
        """k without its constant, which cancels in a difference and would only cost digits there."""
        return _horner(self.coefficients[1:].unbind(), dots) * dots

    def compared(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """D = k(student) - k(teacher) and D k'(student), in few operations; the two tiles are written over."""
        *rest, ratio = factors = self.coefficients[1:].unbind()
        teacher.mul_(_horner(factors, teacher))
        slope = ratio
        for coefficient in reversed(rest):  # Horner's rule for k / s and k' at once
            ratio = torch.addcmul(coefficient, ratio, student)
            slope = torch.addcmul(ratio, slope, student)
        difference = student.mul_(ratio).sub_(teacher)
        return difference, torch.mul(difference, slope, out=teacher)

    def compare_(self, student: Tensor, teacher: Tensor, difference: Tensor, pull: Tensor) -> None:
        """Write D = k(student) - k(teacher) and D k'(student); all four tiles are written over, none is made."""
        factors = self.coefficients[1:]
        _horner_(factors * torch.arange(1, len(factors) + 1, device=factors.device), student, out=pull)
        _horner_(factors, student, out=difference).mul_(student)
        _horner_(factors, teacher, out=student).mul_(teacher)
        difference.sub_(student)
        pull.mul_(difference)


def _horner(coefficients: Sequence[Tensor], dots: Tensor) -> Tensor:
    """sum_p coefficients[p] * dots**p."""
    *rest, value = coefficients
    for coefficient in reversed(rest):
        value = torch.addcmul(coefficient, value, dots)
    return value


def _horner_(coefficients: Tensor, dots: Tensor, out: Tensor) -> Tensor:
    """`_horner` of a vector of coefficients, written to ``out``."""
    *rest, last = coefficients.unbind()
    if not rest:
        return out.fill_(last)
    torch.mul(dots, last, out=out).add_(rest.pop())
    for coefficient in reversed(rest):
        out.mul_(dots).add_(coefficient)
    return out


class Exponential(NamedTuple):
    """k(s) = exp(rate * (s - 1)): the exact Gaussian RBF of unit rows, rate = 2 gamma."""

    rate: Tensor

    def value(self, dots: Tensor) -> Tensor:
        """k of every dot product."""
        return torch.exp((dots - 1) * self.rate)

    def centred(self, dots: Tensor) -> Tensor:
        """k itself: it has no constant."""
        return self.value(dots)

    def compared(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """D = k(student) - k(teacher) and D k'(student), to which the two tiles are turned."""
        self.compare_(student, teacher, difference=teacher, pull=student)
        return teacher, student

    def compare_(self, student: Tensor, teacher: Tensor, difference: Tensor, pull: Tensor) -> None:
        """Write D = k(student) - k(teacher) and D k'(student); all four tiles are written over, none is made."""
        for dots in (student, teacher):
            dots.sub_(1).mul_(self.rate).exp_()
        torch.sub(student, teacher, out=difference)
        torch.mul(student, difference, out=pull).mul_(self.rate)


Profile = Polynomial | Exponential


class _Kernel(BaseDistance):  # type: ignore[misc]
    """What the three kernels share: PML's distance interface in float32 or better, autocast or not."""

    def forward(self, query_emb: Tensor, ref_emb: Tensor | None = None) -> Tensor:
        with full_precision(query_emb):
            ref = None if ref_emb is None else at_least_float32(ref_emb)
            return super().forward(at_least_float32(query_emb), ref)  # type: ignore[no-any-return]

    def normalize(self, embeddings: Tensor, dim: int = 1, **_: Any) -> Tensor:
        """Rows (``dim=1``) or columns (``dim=0``) of length 1; those of zeros stay zero."""
        return unit_rows(embeddings.T).T if dim == 0 else unit_rows(embeddings)


class DotKernel(_Kernel):
    """A kernel that depends on two rows through their dot product alone; higher is closer."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(is_inverted=True, **kwargs)
        if self.power != 1 or self.p != 2:
            raise ValueError(f"{type(self).__name__} takes power=1 and p=2, got power={self.power}, p={self.p}")

    def profile(self, rows: Tensor) -> Profile:
        """The kernel as a function of a dot product, in the precision and on the device of ``rows``."""
        raise NotImplementedError

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """k of all pairs, (N, M)."""
        profile = self.profile(ref_emb)
        values = profile.value(query_emb @ ref_emb.T)
        # PML's NCALoss writes into it, and the gradient of an exponential is made of its value
        return values.clone() if isinstance(profile, Exponential) else values

    def pairwise_distance(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """k of row i of one and row i of the other, (N,)."""
        return self.profile(ref_emb).value((query_emb * ref_emb).sum(dim=1))


class Bilinear(DotKernel):
    """phi(x, y) = x . y ("Bilinear Pool"); higher is closer.

    On unit rows (default) the correlation loss is the mean squared difference of the two cosine matrices, which other
    code bases call SP; ``normalize_embeddings=False`` takes the rows as they are.
    """

    def profile(self, rows: Tensor) -> Profile:
        """The identity."""
        return Polynomial(constants((0.0, 1.0), rows.dtype, rows.device))


class GaussianRBF(DotKernel):
    """phi(x, y) = exp(-gamma |x - y|^2) of L2-normalised rows, by its Taylor series (paper, eq. 8) or exactly.

    The series is sum over p = 0..order of exp(-2 gamma) (2 gamma)^p / p! (x . y)^p. It holds on the unit sphere only,
    so rows are always normalised; a zero row counts as orthogonal to all, itself included. Against the exact value it
    is off by at most 0.191, 0.047, 0.009, 0.0014 for orders 1 to 4 at gamma 0.4; a larger gamma needs a higher order.

    Args:
        gamma: 1 / (2 delta^2), positive; or "median": delta is the median distance between the (at most 1,024, evenly
            spaced) reference rows, the teacher's in a correlation loss, where student and teacher share one gamma.
        order: highest power P; None is the exact kernel.

    Raises:
        ValueError: gamma or order out of range, or normalize_embeddings=False.
    """

    def __init__(self, gamma: float | Literal["median"] = 0.4, order: int | None = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not self.normalize_embeddings:
            raise ValueError("normalize_embeddings must be True: the Taylor form is the RBF on unit rows only")
        if gamma != "median" and not (isinstance(gamma, int | float) and 0 < gamma < math.inf):
            raise ValueError(f"gamma must be a positive number or 'median', got {gamma!r}")
        if order is not None and (not isinstance(order, int) or order < 0):
            raise ValueError(f"order must be an integer of 0 or more, or None for the exact kernel, got {order!r}")
        self.gamma, self.order = gamma, order

    def profile(self, rows: Tensor) -> Profile:
        """The series, or the exponential for ``order=None``."""
        if self.gamma == "median":
            with torch.no_grad():
                gamma = median_gamma(rows)
            return Exponential(2 * gamma) if self.order is None else Polynomial(taylor_coefficients(gamma, self.order))
        if self.order is None:
            return Exponential(constants((2 * self.gamma,), rows.dtype, rows.device)[0])
        return Polynomial(known_coefficients(self.gamma, self.order, rows.dtype, rows.device))

    def extra_repr(self) -> str:
        return f"gamma={self.gamma!r}, order={self.order}"


@functools.cache
def constants(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers on a device, brought there once, for which it waits, and kept: a recorded graph still reads them."""
    with torch.inference_mode(False):  # a later caller may record gradients
        return torch.tensor(numbers, dtype=dtype).to(device)


@functools.cache
def known_coefficients(gamma: float, order: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`taylor_coefficients` of a number."""
    exact = taylor_coefficients(torch.tensor(gamma, dtype=torch.float64), order)
    return constants(tuple(exact.tolist()), dtype, device)


def taylor_coefficients(gamma: Tensor, order: int) -> Tensor:
    """exp(-2 gamma) (2 gamma)^p / p! for p = 0..order; a zero is appended to order 0, a constant kernel."""
    rate = 2 * gamma.double()
    terms = [torch.exp(-rate)]
    for p in range(1, order + 1):
        terms.append(terms[-1] * rate / p)
    return torch.stack(terms if order else [*terms, torch.zeros_like(rate)]).to(gamma.dtype)


def median_gamma(rows: Tensor) -> Tensor:
    """gamma = 1 / (2 median squared distance) of unit rows; 0.25 for a single row; a scalar tensor."""
    count = len(rows)
    if count < 2:
        return rows.new_full((), 0.25)  # as for orthogonal rows
    if count > MEDIAN_ROWS:
        rows = rows[torch.linspace(0, count - 1, MEDIAN_ROWS, device=rows.device).long()]
    rows = unit_rows(rows)
    upper = torch.triu_indices(len(rows), len(rows), offset=1, device=rows.device)
    squared = 2 - 2 * (rows @ rows.T)[upper[0], upper[1]]
    return 0.5 / squared.median().clamp_min(SMALLEST_MEDIAN)


class MMD(_Kernel):
    """phi(x, y) = |mean(x) - mean(y)|, the naive maximum mean discrepancy of two sets of features; lower is closer.

    An instance is the set of its local features. An average-pooled embedding is the mean of such a set already, so for
    two single instances this is the Euclidean distance of their embeddings; for feature maps, pool them first
    (``maps.mean(dim=(2, 3))``) and the same holds. Rows are L2-normalised unless ``normalize_embeddings=False``, for
    the distances of a teacher and a student of another scale cannot be compared. Coinciding rows get no gradient.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(is_inverted=False, **kwargs)

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Distances of all pairs, (N, M), by differences: products of rows lose the digits of near pairs."""
        distances: Tensor = torch.cdist(query_emb, ref_emb, compute_mode="donot_use_mm_for_euclid_dist")
        return distances

    def pairwise_distance(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Distance of row i of one and row i of the other, (N,)."""
        distances: Tensor = torch.linalg.vector_norm(query_emb - ref_emb, dim=1)
        return distances
