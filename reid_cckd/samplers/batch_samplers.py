"""CUR, SUR and uniform random batch samplers for ``DataLoader(dataset, batch_sampler=...)``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reid_cckd.samplers.chance import Ints
from reid_cckd.samplers.checks import Labels, Weights, as_integers, as_labels, at_least, same_length
from reid_cckd.samplers.deal import Short
from reid_cckd.samplers.recipe import Recipe
from reid_cckd.samplers.shell import StreamSampler


class ClassUniformSampler(StreamSampler):
    """CUR: every batch is ``classes_per_batch`` different classes with ``samples_per_class`` images each.

    ``labels``: one whole number >= 0 per image. A *pass* is the fewest batches that visit every class; the places
    left over go to classes in turn. Each ``ceil(n / samples_per_class)`` visits of a class of n images show every
    one of them, across epochs too, and no visit repeats an image while the class has enough.

    ``short``: a class of fewer images shows all, and then draws with replacement (``replace``) or starts again
    (``cycle``), or is left out (``skip``).
    ``cameras``: one whole number per image; a visit takes as many different cameras as coverage allows.
    ``class_weights``: relative frequency of each class, by label or in ascending order of labels; 0 leaves out.
    ``batches_per_epoch``: of all ranks together; by default enough for as many images as there are and for one pass.
    ``rank``, ``world_size``: batches of its own for every rank, equally many, see `StreamSampler`.

    Raises:
        ValueError: names the numbers that do not fit together.

    Source: Peng et al., Correlation Congruence for Knowledge Distillation, ICCV 2019: the CUR-sampler.
    """

    def __init__(
        self,
        labels: Labels,
        classes_per_batch: int = 16,
        samples_per_class: int = 4,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        batches_per_epoch: int | None = None,
        short: Short = "replace",
        cameras: Labels | None = None,
        class_weights: Weights | None = None,
    ) -> None:
        ids = as_labels(labels)
        recipe = Recipe(
            ids,
            at_least(classes_per_batch, 1, "classes_per_batch"),
            at_least(samples_per_class, 1, "samples_per_class"),
            kinds=_beside(ids, "labels", cameras, "cameras"),
            weights=class_weights,
            short=short,
            seed=at_least(seed, 0, "seed"),
        )
        super().__init__(recipe.stream(), recipe.facts(), batches_per_epoch, rank, world_size)


class SuperclassUniformSampler(StreamSampler):
    """SUR: every batch is ``superclasses_per_batch`` superclasses with ``samples_per_superclass`` images each.

    ``superclasses``: one whole number >= 0 per image, given (coarse labels, a column) or found by
    `build_superclasses`. With ``labels`` and ``samples_per_class`` (k') the images of a superclass come as groups of k'
    images of one class, of as many classes as there are; without, whatever their class. Everything else is as in
    `ClassUniformSampler`, with superclasses for classes.

    Raises:
        ValueError: names the numbers that do not fit together.

    Source: Peng et al., Correlation Congruence for Knowledge Distillation, ICCV 2019: the SUR-sampler.
    """

    def __init__(
        self,
        superclasses: Labels,
        superclasses_per_batch: int = 8,
        samples_per_superclass: int = 8,
        *,
        labels: Labels | None = None,
        samples_per_class: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        batches_per_epoch: int | None = None,
        short: Short = "replace",
        cameras: Labels | None = None,
        class_weights: Weights | None = None,
    ) -> None:
        ids = as_labels(superclasses, "superclasses")
        groups = at_least(superclasses_per_batch, 1, "superclasses_per_batch")
        total = at_least(samples_per_superclass, 1, "samples_per_superclass")
        chunk = _inner_samples(total, labels is not None, samples_per_class)
        if labels is not None and cameras is not None:
            raise ValueError("labels and cameras both group the images of a superclass; give one of them")
        kinds = _beside(ids, "superclasses", cameras, "cameras")
        if labels is not None:
            kinds = _beside(ids, "superclasses", as_labels(labels), "labels")
        hands, seed = total // chunk, at_least(seed, 0, "seed")
        self._recipe = Recipe(ids, groups, hands, chunk, kinds, class_weights, short, seed, "superclasses")
        super().__init__(self._recipe.stream(), self._recipe.facts(), batches_per_epoch, rank, world_size)

    def set_superclasses(self, superclasses: Labels) -> None:
        """Take other superclasses of the same images, found anew, from the next iteration on.

        Raises:
            ValueError: of another number of images, or too few superclasses for a batch.
        """
        ids = as_labels(superclasses, "superclasses")
        same_length(self._recipe.labels, "the sampler", ids, "superclasses")
        recipe = replace(self._recipe, labels=ids)
        self._use(recipe.stream(), recipe.facts())
        self._recipe = recipe


class UniformSampler(StreamSampler):
    """Batches of uniformly random images, each image once in ``ceil(n / batch_size)`` batches: the plain baseline.

    ``images``: how many there are, or their labels, which are not looked at.

    Raises:
        ValueError: names the numbers that do not fit together.
    """

    def __init__(
        self,
        images: int | Labels,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        batches_per_epoch: int | None = None,
    ) -> None:
        count = at_least(images, 1, "images") if isinstance(images, (int, np.integer)) else len(images)
        size = at_least(batch_size, 1, "batch_size")
        if size > count:
            raise ValueError(f"batch_size is {size}, but there are only {count} images")
        one_class = np.zeros(count, np.int64)
        recipe = Recipe(one_class, 1, size, seed=at_least(seed, 0, "seed"), noun="images")
        super().__init__(recipe.stream(), recipe.facts(), batches_per_epoch, rank, world_size)


def _inner_samples(total: int, has_labels: bool, samples_per_class: int | None) -> int:
    if has_labels != (samples_per_class is not None):
        raise ValueError("labels and samples_per_class go together: the images of a superclass in groups of a class")
    inner = 1 if samples_per_class is None else at_least(samples_per_class, 1, "samples_per_class")
    if total % inner:
        raise ValueError(f"samples_per_superclass {total} is not a multiple of samples_per_class {inner}")
    return inner


def _beside(ids: Ints, name: str, others: Labels | None, other_name: str) -> Ints | None:
    if others is None:
        return None
    numbers = as_integers(others, other_name)
    same_length(ids, name, numbers, other_name)
    return numbers
