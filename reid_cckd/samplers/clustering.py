"""Superclasses from a teacher's embeddings: faiss K-means, seeded, bounded in memory, without empty clusters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from reid_cckd.samplers.agreement import nmi, purity
from reid_cckd.samplers.chance import Ints
from reid_cckd.samplers.checks import Labels, as_array, as_labels, at_least
from reid_cckd.samplers.superclasses import Superclasses

Floats = NDArray[np.float32]
By = Literal["instance", "class centroid"]
_ROWS_AT_ONCE, _ROWS_IN_CACHE = 1 << 16, 1 << 9
_LARGEST_SQUARE = np.finfo(np.float32).max / 8  # of all rows' lengths: sums of distances stay finite, or faiss crashes
_PATIENCE = 10**11  # multiplications of all attempts together


def build_superclasses(
    teacher_embeddings: NDArray[np.floating[Any]] | torch.Tensor,
    labels: Labels,
    num_superclasses: int,
    by: By = "instance",
    seed: int = 0,
    *,
    spherical: bool = True,
    iterations: int = 20,
    max_points_per_centroid: int = 256,
    attempts: int | None = None,
    gpu: bool | None = None,
) -> Superclasses:
    """Cluster a training set into superclasses of images (``instance``) or of whole classes (``class centroid``).

    ``teacher_embeddings`` (N, D): float16 or float32 array, memory map or tensor; never copied whole unless small.
    ``spherical``: directions only, rows and centroids of length 1. K-means is trained on at most
    ``max_points_per_centroid`` random rows per superclass; then every row goes to its nearest centroid. A cluster left
    empty takes half of the largest one. ``attempts``: the best of so many random starts; None makes up to 10 where that
    is a matter of seconds. ``gpu``: None uses one when faiss sees one. Equal seeds give equal answers on
    one machine and number of threads.

    Raises:
        ValueError: not (N, D); NaN, infinite or squares beyond float32; another length than the labels; more
            superclasses than rows or classes.

    Source: Peng et al., Correlation Congruence for Knowledge Distillation, ICCV 2019: the SUR-sampler.
    """
    points, classes = as_array(teacher_embeddings), as_labels(labels)
    _check(points, classes, num_superclasses, by)
    at_least(seed, 0, "seed")
    at_least(iterations, 1, "iterations")
    members = np.unique(classes, return_inverse=True)[1]
    if by == "class centroid":
        points = _class_means(points, members, spherical)
    if num_superclasses > len(points):
        what = "images" if by == "instance" else "classes"
        raise ValueError(f"num_superclasses is {num_superclasses}, but there are only {len(points)} {what}")
    rows = _training_rows(
        points, num_superclasses * at_least(max_points_per_centroid, 1, "max_points_per_centroid"), seed
    )
    if attempts is None:
        attempts = int(np.clip(_PATIENCE // (rows.size * num_superclasses * iterations), 1, 10))
    options = {"niter": iterations, "nredo": at_least(attempts, 1, "attempts"), "seed": seed + 1, "gpu": gpu}
    centroids, index = _train(rows, num_superclasses, spherical, options)
    nearest, distance = _assign(points, index, centroids, spherical)
    nearest, centroids, repaired = _fill_empty(points, nearest, centroids, spherical)
    if repaired:
        distance = _mean_distance(points, nearest, centroids, spherical)
    found = nearest if by == "instance" else nearest[members]
    return Superclasses(
        assignments=found,
        centroids=centroids,
        by=by,
        seed=seed,
        spherical=spherical,
        objective=distance,
        repaired=repaired,
        purity=purity(found, classes),
        nmi=nmi(found, classes),
    )


def _check(points: NDArray[Any], labels: Ints, num_superclasses: int, by: str) -> None:
    if by not in ("instance", "class centroid"):
        raise ValueError(f"by must be 'instance' or 'class centroid'; got {by!r}")
    if points.ndim != 2 or points.dtype.kind != "f" or points.shape[1] == 0:
        raise ValueError(f"teacher_embeddings must be floats (N, D); got {points.dtype} of shape {points.shape}")
    if len(points) != len(labels):
        raise ValueError(f"teacher_embeddings has {len(points)} rows and labels {len(labels)} entries: one per image")
    at_least(num_superclasses, 1, "num_superclasses")
    for start, block in _blocks(points, normalise=False):
        with np.errstate(over="ignore"):
            squares = np.einsum("nd,nd->n", block, block)
        bad = np.flatnonzero(~(squares < _LARGEST_SQUARE / len(points)))
        if len(bad):
            finite = np.isfinite(block[bad[0]]).all()
            what = "values whose squares float32 cannot hold" if finite else "NaN or infinite values"
            raise ValueError(f"teacher_embeddings has {what}, first in row {start + bad[0]}")


def _blocks(points: NDArray[Any], normalise: bool) -> Iterator[tuple[int, Floats]]:
    """The rows in float32, some at a time: a memory map need not fit in memory."""
    for start in range(0, len(points), _ROWS_AT_ONCE):
        yield start, _prepared(points[start : start + _ROWS_AT_ONCE], normalise)


def _prepared(rows: NDArray[Any], normalise: bool) -> Floats:
    block = np.ascontiguousarray(rows, dtype=np.float32)
    if normalise:
        block = block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), np.float32(1e-12))
    return block


def _class_means(points: NDArray[Any], members: Ints, normalise: bool) -> Floats:
    sums = np.zeros((int(members.max()) + 1, points.shape[1]))
    for start, block in _blocks(points, normalise):
        ids = members[start : start + len(block)]
        order = np.argsort(ids, kind="stable")
        first = np.flatnonzero(np.diff(ids[order], prepend=-1))
        sums[ids[order][first]] += np.add.reduceat(block[order], first, axis=0, dtype=np.float64)
    return (sums / np.bincount(members)[:, None]).astype(np.float32)


def _training_rows(points: NDArray[Any], limit: int, seed: int) -> NDArray[Any]:
    if len(points) <= limit:
        return points
    rows: NDArray[Any] = points[np.sort(np.random.default_rng(seed).choice(len(points), limit, replace=False))]
    return rows


def _train(rows: NDArray[Any], k: int, spherical: bool, options: dict[str, Any]) -> tuple[Floats, Any]:
    import faiss

    if options["gpu"] is None:
        options = {**options, "gpu": faiss.get_num_gpus() > 0}
    kmeans = faiss.Kmeans(  # the rows were chosen already, and few of them need no warning
        rows.shape[1], k, spherical=spherical, min_points_per_centroid=1, max_points_per_centroid=len(rows), **options
    )
    kmeans.train(_prepared(rows, spherical))
    return np.asarray(kmeans.centroids, dtype=np.float32), kmeans.index


def _assign(points: NDArray[Any], index: Any, centroids: Floats, spherical: bool) -> tuple[Ints, float]:
    """The nearest centroid of every row, and the mean squared distance to it."""
    nearest, total = np.empty(len(points), np.int64), 0.0
    for start, block in _blocks(points, spherical):
        found = nearest[start : start + len(block)]
        found[:] = index.search(block, 1)[1][:, 0]
        total += _distances(block, centroids, found)
    return nearest, total / len(points)


def _mean_distance(points: NDArray[Any], nearest: Ints, centroids: Floats, spherical: bool) -> float:
    """Mean squared distance of the rows to the centroids they were given to."""
    total = 0.0
    for start, block in _blocks(points, spherical):
        total += _distances(block, centroids, nearest[start : start + len(block)])
    return total / len(points)


def _distances(rows: Floats, centroids: Floats, nearest: Ints) -> float:
    """Sum of squared distances, by differences: the products of faiss have no digits left of near rows."""
    total = 0.0
    for start in range(0, len(rows), _ROWS_IN_CACHE):
        part = slice(start, start + _ROWS_IN_CACHE)
        offsets = rows[part] - centroids[nearest[part]]
        total += float(np.einsum("nd,nd->n", offsets, offsets).sum(dtype=np.float64))
    return total


def _fill_empty(points: NDArray[Any], nearest: Ints, centroids: Floats, spherical: bool) -> tuple[Ints, Floats, int]:
    """Give every empty cluster the half of the largest one that lies on the side of its farthest member."""
    sizes = np.bincount(nearest, minlength=len(centroids))
    empty = np.flatnonzero(sizes == 0)
    centroids = centroids.copy()
    for cluster in empty:
        largest = int(sizes.argmax())
        members = np.flatnonzero(nearest == largest)
        rows = _prepared(points[members], spherical)
        offsets = rows - centroids[largest]
        farthest = offsets[(offsets**2).sum(axis=1).argmax()]
        moved = np.argsort(-(offsets @ farthest), kind="stable")[: len(members) // 2]
        nearest[members[moved]] = cluster
        for index, half in ((cluster, rows[moved]), (largest, np.delete(rows, moved, axis=0))):
            centroids[index] = _prepared(half.mean(axis=0, keepdims=True), spherical)[0]
        sizes = np.bincount(nearest, minlength=len(centroids))
    return nearest, centroids, len(empty)
