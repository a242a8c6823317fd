"""Draw the pictures of docs/samplers.md. `python docs/make_sampler_pictures.py` writes docs/images/samplers_*.png"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap

from reid_cckd.samplers import (
    ClassUniformSampler,
    SuperclassUniformSampler,
    UniformSampler,
    build_superclasses,
    superclass_report,
)

IMAGES = Path(__file__).parent / "images"
PALETTE = ["#3b6fb6", "#d9822b", "#4c9a5f", "#b5495b", "#7d5ba6", "#8c6d46", "#5aa9a4", "#c98bb0"]


def toy_data() -> tuple[np.ndarray, np.ndarray]:
    """Embeddings in the plane: 40 classes of very unequal size around 8 places, and their labels."""
    rng = np.random.default_rng(3)
    places = 4.2 * np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], axis=1)
    centres = np.repeat(places, 5, axis=0) + rng.normal(0, 0.8, (40, 2))
    labels = np.repeat(np.arange(40), rng.integers(4, 60, 40))
    return centres[labels] + rng.normal(0, 0.17, (len(labels), 2)), labels


def batches_picture(points: np.ndarray, labels: np.ndarray, superclasses: np.ndarray) -> None:
    """One batch of 32 of each sampler among all images."""
    samplers = {
        "UniformSampler(labels, 32)": UniformSampler(labels, 32),
        "ClassUniformSampler(labels, 8, 4)": ClassUniformSampler(labels, 8, 4),
        "SuperclassUniformSampler(found, 4, 8)": SuperclassUniformSampler(superclasses, 4, 8),
    }
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.9), layout="constrained")
    for axis, (title, sampler) in zip(axes, samplers.items(), strict=True):
        batch = next(iter(sampler))
        axis.scatter(*points.T, s=5, color="#d5d5d5", linewidths=0)
        colours = [PALETTE[group] for group in superclasses[batch]]
        axis.scatter(*points[batch].T, s=34, c=colours, edgecolors="black", linewidths=0.6)
        axis.set_title(title, family="monospace", fontsize=9)
        facts = f"{len(set(labels[batch]))} classes, {len(set(superclasses[batch]))} superclasses"
        axis.set_xlabel(facts, fontsize=9)
        axis.set(xticks=[], yticks=[], aspect="equal")
    save(figure, "samplers_batch.png")


def pairs_picture(labels: np.ndarray, superclasses: np.ndarray) -> None:
    """The 32 x 32 pairs of a batch that a correlation matrix compares, by kind."""
    samplers = {
        "uniform": UniformSampler(labels, 32),
        "CUR, k = 2": ClassUniformSampler(labels, 16, 2),
        "CUR, k = 4": ClassUniformSampler(labels, 8, 4),
        "CUR, k = 8": ClassUniformSampler(labels, 4, 8),
        "SUR, k = 8": SuperclassUniformSampler(superclasses, 4, 8),
        "SUR, k = 8, k' = 2": SuperclassUniformSampler(superclasses, 4, 8, labels=labels, samples_per_class=2),
    }
    figure, axes = plt.subplots(1, 6, figsize=(10.5, 2.3), layout="constrained")
    for axis, (title, sampler) in zip(axes, samplers.items(), strict=True):
        batch = np.array(next(iter(sampler)))
        batch = batch[np.lexsort((labels[batch], superclasses[batch]))]
        group, label = superclasses[batch], labels[batch]
        kind = (group[:, None] == group).astype(int)
        kind[label[:, None] == label] = 2
        axis.imshow(kind, cmap=ListedColormap(["#eeeeee", "#f0b67f", "#3b6fb6"]), vmin=0, vmax=2)
        axis.set_title(title, fontsize=9)
        axis.set(xticks=[], yticks=[])
    figure.supxlabel("blue: one class; orange: one superclass; grey: unrelated", fontsize=9)
    save(figure, "samplers_pairs.png")


def k_picture() -> None:
    """What k does to batches of 64: how many classes meet, and how many pairs are related."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(320), rng.integers(4, 60, 320))  # five classes in each of 64 superclasses
    superclasses = labels // 5
    sizes = [1, 2, 4, 8, 16]
    samplers: dict[str, list[Any]] = {
        "CUR": [ClassUniformSampler(labels, 64 // k, k, batches_per_epoch=200) for k in sizes],
        "SUR": [SuperclassUniformSampler(superclasses, 64 // k, k, batches_per_epoch=200) for k in sizes],
        "uniform": [UniformSampler(labels, 64, batches_per_epoch=200)],
    }
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.0), layout="constrained")
    titles = ("classes in a batch", "pairs of one class, %", "pairs of one superclass, %")
    for colour, (name, several) in zip(PALETTE, samplers.items(), strict=False):
        values = [numbers_of(list(sampler), labels, superclasses) for sampler in several]
        if name == "uniform":
            values *= len(sizes)
        for axis, column in zip(axes, zip(*values, strict=True), strict=True):
            axis.plot(sizes, column, "--" if name == "uniform" else "o-", color=colour, label=name)
    for axis, title in zip(axes, titles, strict=True):
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [str(k) for k in sizes])
        axis.set(title=title, xlabel="k, images of a (super)class", ylim=(0, None))
    axes[0].legend(frameon=False)
    save(figure, "samplers_k.png")


def numbers_of(batches: list[list[int]], labels: np.ndarray, superclasses: np.ndarray) -> tuple[float, float, float]:
    classes = float(np.mean([len(set(labels[batch])) for batch in batches]))
    of_class = superclass_report(labels, labels, batches).pairs_within
    of_superclass = superclass_report(superclasses, labels, batches).pairs_within
    assert of_class is not None
    assert of_superclass is not None
    return classes, 100 * of_class, 100 * of_superclass


def save(figure: Any, name: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / name, dpi=110)
    print(IMAGES / name, f"{(IMAGES / name).stat().st_size / 1000:.0f} kB")


def main() -> None:
    points, labels = toy_data()
    superclasses = build_superclasses(points, labels, 8, spherical=False).assignments
    batches_picture(points, labels, superclasses)
    pairs_picture(labels, superclasses)
    k_picture()


if __name__ == "__main__":
    main()
