"""Images grouped by class, and within a class by kind (camera, or class within a superclass)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid_cckd.samplers.chance import Ints, ranges


@dataclass(frozen=True)
class Pools:
    """Images sorted by class and kind: kind i is ``images[kind_starts[i] : kind_starts[i] + kind_sizes[i]]``, and
    class c has the kinds ``first_kind[c]`` to ``first_kind[c] + kinds_in[c] - 1``."""

    images: NDArray[np.integer]
    kind_starts: Ints
    kind_sizes: Ints
    first_kind: Ints
    kinds_in: Ints
    labels: Ints  # the label of each class, ascending

    @property
    def class_sizes(self) -> Ints:
        """Images of each class."""
        return np.add.reduceat(self.kind_sizes, self.first_kind)

    def only(self, wanted: NDArray[np.bool_]) -> Pools:
        """The pools without the other classes."""
        kinds = ranges(self.first_kind[wanted], self.kinds_in[wanted])
        kinds_in = self.kinds_in[wanted]
        return Pools(
            self.images,
            self.kind_starts[kinds],
            self.kind_sizes[kinds],
            np.cumsum(kinds_in) - kinds_in,
            kinds_in,
            self.labels[wanted],
        )

    def merge_kinds(self, classes: NDArray[np.bool_]) -> Pools:
        """The pools with one kind only in the given classes."""
        if not (self.kinds_in[classes] > 1).any():
            return self
        first = np.zeros(len(self.kind_sizes), bool)
        first[self.first_kind] = True
        kept = first | np.repeat(~classes, self.kinds_in)
        starts = np.flatnonzero(kept)
        kinds_in = np.where(classes, 1, self.kinds_in)
        sizes = np.add.reduceat(self.kind_sizes, starts)
        return Pools(self.images, self.kind_starts[kept], sizes, np.cumsum(kinds_in) - kinds_in, kinds_in, self.labels)


def make_pools(labels: Ints, kinds: Ints | None = None) -> Pools:
    """Group images by label and, when given, by kind."""
    images, starts, values = _group(labels)
    if kinds is None:
        sizes = np.diff(starts, append=len(labels))
        count = np.arange(len(starts))
        return Pools(images, starts, sizes, count, np.ones_like(count), values)
    by_kind, _, _ = _group(kinds)
    within, class_starts, _ = _group(labels[by_kind])
    images = by_kind[within]
    changes = kinds[images[1:]] != kinds[images[:-1]]
    changes[class_starts[1:] - 1] = True
    kind_starts = np.flatnonzero(np.concatenate([[True], changes]))
    first_kind = np.searchsorted(kind_starts, class_starts)
    sizes = np.diff(kind_starts, append=len(labels))
    return Pools(images, kind_starts, sizes, first_kind, np.diff(first_kind, append=len(kind_starts)), values)


def _group(labels: Ints) -> tuple[NDArray[np.integer], Ints, Ints]:
    """Images in order of (label, image), where each label starts, and the labels.

    Sorting (label, image) packed into one word is several times faster than an argsort.
    """
    bits = len(labels).bit_length()
    low = int(labels.min())
    if (int(labels.max()) - low).bit_length() + bits > 63:
        values, labels = np.unique(labels, return_inverse=True)
        images, starts, ranks = _group(labels)
        return images, starts, values[ranks]
    words = labels - low
    words <<= bits
    words |= np.arange(len(labels))
    words.sort()
    images = (words & ((1 << bits) - 1)).astype(np.int32 if bits < 32 else np.int64)
    words >>= bits
    starts = np.flatnonzero(np.concatenate([[True], words[1:] != words[:-1]]))
    return images, starts, words[starts] + low
