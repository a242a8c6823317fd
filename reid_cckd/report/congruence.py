"""Pictures of what a student took over from its teacher: similarities within and between classes, and at what cost."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reid_cckd.report.canvas import colour, figure_of, plain_logarithmic

Floats = NDArray[np.floating[Any]]
MOST_ROWS = 2000  # of a histogram: 4 million pairs


class Point(NamedTuple):
    """One network of a trade-off: what it costs and how good it is (a fraction)."""

    name: str
    parameters: int
    macs: int
    score: float


def similarity_maps(
    path: str | os.PathLike[str],
    networks: Mapping[str, Floats],
    labels: NDArray[np.int64],
    title: str = "",
    classes: int = 12,
    images: int = 8,
) -> None:
    """Draw a PNG with a heat map of cosine similarities for each network, images sorted by class.

    ``networks``: name -> embeddings (N, D) of the same images. Shown are the first ``images`` of each of the first
    ``classes`` classes that have so many (or as many as the largest has). Blocks on the
    diagonal are pairs of one class.

    Raises:
        ValueError: embeddings and labels differ in length.
    """
    _same_images(networks, labels)
    rows = _sorted_rows(labels, classes, images)
    with figure_of(path, len(networks), title) as (figure, axes):
        for axis, (name, embeddings) in zip(axes, networks.items(), strict=True):
            unit = _unit(embeddings[rows])
            picture = axis.imshow(unit @ unit.T, vmin=-0.2, vmax=1, cmap="viridis", interpolation="nearest")
            axis.set_title(name)
            axis.set(xticks=[], yticks=[])
            axis.grid(visible=False)
        figure.colorbar(picture, ax=axes, shrink=0.7, label="cosine similarity")


def similarity_histograms(
    path: str | os.PathLike[str],
    networks: Mapping[str, Floats],
    labels: NDArray[np.int64],
    title: str = "",
) -> None:
    """Draw a PNG with a panel for each network: cosine similarities of pairs within a class and between classes.

    Raises:
        ValueError: embeddings and labels differ in length.
    """
    _same_images(networks, labels)
    rows = _spread(len(labels))
    bins = np.linspace(-1, 1, 81).tolist()
    with figure_of(path, len(networks), title) as (figure, axes):
        for axis, (name, embeddings) in zip(axes, networks.items(), strict=True):
            within, between = pair_similarities(embeddings[rows], labels[rows])
            for number, values in enumerate((within, between)):
                axis.hist(values, bins, density=True, color=colour(number), alpha=0.55)
            axis.set_title(f"{name}: {within.mean():.2f} / {between.mean():.2f}")
            axis.set(xlabel="cosine similarity", yticks=[])
        handles = [axes[0].plot([], color=colour(number), linewidth=6)[0] for number in range(2)]
        figure.legend(handles, ["within a class (mean)", "between classes (mean)"], loc="outside lower center", ncols=2)


def pair_similarities(embeddings: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Cosines of all unordered pairs of different images (N, D): those of one class, and the others."""
    unit = _unit(embeddings)
    one, other = np.triu_indices(len(unit), k=1)
    values = (unit @ unit.T)[one, other]
    alike = labels[one] == labels[other]
    return values[alike], values[~alike]


def retention_plot(path: str | os.PathLike[str], teacher: Point, students: Sequence[Point], title: str = "") -> None:
    """Draw a PNG of the share of the teacher's score that each student keeps, over parameters and over MACs."""
    with figure_of(path, 2, title) as (_, axes):
        for axis, cost in zip(axes, ("parameters", "macs"), strict=True):
            for number, point in enumerate([teacher, *students]):
                kept = 100 * point.score / teacher.score
                x = getattr(point, cost) / 1e6
                axis.plot(x, kept, "s" if point is teacher else "o", color=colour(number), label=point.name)
            plain_logarithmic(axis)
            axis.axhline(100, color="#868e96", linewidth=1, linestyle="--")
            axis.set(
                xlabel={"parameters": "parameters (M)", "macs": "MACs (M)"}[cost], ylabel="of the teacher's score (%)"
            )
        axes[0].legend(loc="best", fontsize=8)


def _same_images(networks: Mapping[str, Floats], labels: NDArray[np.int64]) -> None:
    lengths = {name: len(embeddings) for name, embeddings in networks.items()}
    if not len(labels) or set(lengths.values()) != {len(labels)}:
        raise ValueError(f"networks: expected embeddings of {len(labels)} images like labels, got {lengths}")


def _sorted_rows(labels: NDArray[np.int64], classes: int, images: int) -> NDArray[np.int64]:
    found, counts = np.unique(labels, return_counts=True)
    images = min(images, int(counts.max()))
    full = found[counts >= images][:classes]
    return np.concatenate([np.flatnonzero(labels == label)[:images] for label in full])


def _spread(count: int) -> NDArray[np.int64]:
    """All rows, or evenly many of them where their pairs would be too many."""
    return np.linspace(0, count - 1, min(count, MOST_ROWS)).astype(np.int64)


def _unit(embeddings: Floats) -> Floats:
    rows = np.asarray(embeddings, dtype=np.float64)
    unit: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit
