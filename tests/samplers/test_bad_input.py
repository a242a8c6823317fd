"""Every refusal names the numbers involved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from reid_cckd.samplers import (
    ClassUniformSampler,
    SuperclassUniformSampler,
    UniformSampler,
    build_superclasses,
    superclass_report,
)

CUR, SUR = ClassUniformSampler, SuperclassUniformSampler
L = np.repeat(np.arange(6), 4)
X = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)


def with_nan(row: int) -> np.ndarray:
    bad = X.copy()
    bad[row, 2] = np.nan
    return bad


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CUR([]), "labels is empty: 0 images"),
        (lambda: CUR([0.0, float("nan"), 1.0, float("nan")]), r"labels has 2 NaN .* among 4, the first at 1"),
        (lambda: CUR([0.0, 1.5]), r"labels\[1\] is 1.5"),
        (lambda: CUR(["a", "b"]), "labels must be whole numbers; got <U1"),
        (lambda: CUR([[0, 1]]), r"shape \(1, 2\)"),
        (lambda: CUR([0, -1, 1, -3]), "2 of 4 are, first -1 at 1"),
        (
            lambda: CUR(np.array([0, 2**64 - 1], np.uint64)),
            r"labels must be below 2\*\*63; the largest is 18446744073709551615",
        ),
        (lambda: CUR([7, 7, 7]), r"classes, of which two .* all 3 images have label 7 \(UniformSampler"),
        (lambda: CUR(L, 7, 2), "classes_per_batch is 7, but only 6 of 6 classes"),
        (lambda: CUR([0] * 9 + [1] * 9 + [2], 3, 4, short="skip"), r"is 3, but only 2 of 3 .*below 4 images"),
        (lambda: CUR(L, 2, 0), "samples_per_class must be a whole number >= 1; got 0"),
        (lambda: CUR(L, 0, 2), "classes_per_batch must be a whole number >= 1; got 0"),
        (lambda: CUR(L, 2, 2.0), "samples_per_class must be a whole number >= 1; got 2.0"),
        (lambda: CUR(L, 2, 2, seed=-1), "seed must be a whole number >= 0; got -1"),
        (lambda: CUR(L, 2, 2, short="pad"), "short must be one of replace, cycle, skip; got 'pad'"),
        (lambda: CUR(L, 2, 2, rank=2, world_size=2), "rank 2 is not below world_size 2"),
        (lambda: CUR(L, 2, 2, world_size=0), "world_size must be a whole number >= 1; got 0"),
        (lambda: CUR(L, 2, 2, batches_per_epoch=0), "batches_per_epoch must be a whole number >= 1; got 0"),
        (lambda: CUR(L, 2, 2, batches_per_epoch=3, world_size=4), "3 batches, fewer than the 4 ranks"),
        (lambda: CUR(L, 2, 2, cameras=[1] * 23), "labels has 24 entries and cameras 23"),
        (lambda: CUR(L, 2, 2, class_weights=[1.0] * 5), r"shape \(5,\); one weight for each of 6 classes"),
        (lambda: CUR(L, 2, 2, class_weights={0: 1.0, 1: 1.0}), "lacks 4 of 6 classes, the first is 2"),
        (lambda: CUR(L, 2, 2, class_weights=[1, 1, 1, -2, 1, 1]), "that of class 3 is -2.0"),
        (lambda: CUR(L, 2, 2, class_weights=[1, 1, np.nan, 1, 1, 1]), "that of class 2 is nan"),
        (lambda: CUR(L, 2, 2, class_weights=[0] * 6), "classes_per_batch is 2, but only 0 of 6"),
        (lambda: CUR(L, 2, 2, class_weights=[9, 1, 1, 1, 1, 1]), r"give 0 a share of 0.6429, more than 1 / 2"),
        (lambda: SUR(L, 7, 2), "superclasses_per_batch is 7, but only 6 of 6 superclasses"),
        (lambda: SUR(L, 2, 4, labels=L), "labels and samples_per_class go together"),
        (lambda: SUR(L, 2, 4, samples_per_class=2), "labels and samples_per_class go together"),
        (lambda: SUR(L, 2, 4, labels=L, samples_per_class=3), "4 is not a multiple of samples_per_class 3"),
        (lambda: SUR(L, 2, 4, labels=L[1:], samples_per_class=2), "superclasses has 24 entries and labels 23"),
        (lambda: SUR(L, 2, 4, labels=L, samples_per_class=2, cameras=L), "give one of them"),
        (lambda: UniformSampler(10, 11), "batch_size is 11, but there are only 10 images"),
        (lambda: UniformSampler(0, 1), "images must be a whole number >= 1; got 0"),
        (lambda: build_superclasses(X[1:], L, 3), "23 rows and labels 24 entries"),
        (lambda: build_superclasses(X, L, 25), "num_superclasses is 25, but there are only 24 images"),
        (lambda: build_superclasses(X, L, 7, by="class centroid"), "is 7, but there are only 6 classes"),
        (lambda: build_superclasses(X, L, 0), "num_superclasses must be a whole number >= 1; got 0"),
        (lambda: build_superclasses(with_nan(17), L, 3), "NaN or infinite values, first in row 17"),
        (lambda: build_superclasses(torch.tensor(with_nan(3)), L, 3), "NaN or infinite values, first in row 3"),
        (lambda: build_superclasses(X * 1e20, L, 3, spherical=False), "squares float32 cannot hold, first in row 0"),
        (
            lambda: build_superclasses(np.sign(X) * 2.5e18, L, 3, spherical=False),
            "squares float32 cannot hold, first in row 0",
        ),
        (lambda: build_superclasses(X[0], L, 3), r"shape \(5,\)"),
        (lambda: build_superclasses(X.astype(int), L, 3), "floats"),
        (lambda: build_superclasses(X, L, 3, by="colour"), "'colour'"),
        (lambda: superclass_report(L, L[1:]), "superclasses has 24 entries and labels 23"),
    ],
)
def test_bad_input_is_refused_with_its_numbers(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
