"""Superclasses of a training set: the record that is saved and reused."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reid_cckd.files import atomic_path
from reid_cckd.samplers.chance import Ints
from reid_cckd.samplers.checks import at_least


@dataclass(frozen=True)
class Superclasses:
    """Which superclass each image is in, and how that was found.

    ``assignments`` (N,) from 0 to K - 1, none empty; ``centroids`` (K, D) float32; ``purity`` and ``nmi`` against the
    labels, in [0, 1] (see `superclass_report`); ``repaired``: clusters that K-means had left empty; ``objective``: the
    mean squared distance of what was clustered to its centroid.
    """

    assignments: Ints
    centroids: NDArray[np.float32]
    by: str
    seed: int
    spherical: bool
    objective: float
    repaired: int
    purity: float
    nmi: float

    @property
    def sizes(self) -> Ints:
        """Images of each superclass."""
        return np.bincount(self.assignments, minlength=len(self.centroids))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one .npz file, atomically."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Superclasses:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is damaged or something else.
        """
        try:
            with np.load(Path(path)) as file:
                content = {field.name: file[field.name] for field in fields(cls)}
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is not a file of superclasses, or a damaged one: {error}") from error
        return cls(**{name: value if value.ndim else value.item() for name, value in content.items()})


def superclasses_of_epoch(
    folder: str | os.PathLike[str], epoch: int, every: int | None, find: Callable[[int], Superclasses]
) -> Superclasses:
    """Superclasses that are found once, or anew every ``every`` epochs, and read again by a run that goes on.

    ``find(turn)`` makes those of the epochs ``turn * every`` and following; its result is kept in ``folder`` as
    superclasses_0000.npz, superclasses_0001.npz, ...; ``every=None`` keeps the first for ever. What lies there is not
    compared with the images: a folder is of one training set. Of several ranks one
    must call this, and tell the others: what each finds for itself may differ by rounding.
    """
    turn = 0 if every is None else at_least(epoch, 0, "epoch") // at_least(every, 1, "every")
    path = Path(folder) / f"superclasses_{turn:04d}.npz"
    if path.exists():
        return Superclasses.load(path)
    found = find(turn)
    found.save(path)
    return found
