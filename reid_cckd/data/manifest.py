"""A table of images: where each lies, who is on it, which camera took it and what it is for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ROLES = ("train", "query", "gallery")


class Counts(NamedTuple):
    """How much one role holds."""

    images: int
    ids: int
    cameras: int


@dataclass(frozen=True, eq=False)
class Manifest:
    """N images of one data set; nothing in it can be changed.

    ``paths`` are relative to ``root``. ``labels``: (N,) int64 person ids, one number being one person throughout the
    table. ``cameras``: (N,) int64. ``roles``: (N,) of "train", "query" or "gallery".

    Raises:
        ValueError: columns of different lengths, or a role of another name.
    """

    name: str
    root: Path
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    cameras: NDArray[np.int64]
    roles: NDArray[np.str_]

    def __post_init__(self) -> None:
        columns: dict[str, Any] = {"labels": np.int64, "cameras": np.int64, "roles": np.str_}
        for column, dtype in columns.items():
            value = np.array(getattr(self, column), dtype=dtype)  # a copy: the caller's array stays writable
            if value.shape != (len(self.paths),):
                raise ValueError(f"{column} has shape {value.shape}, expected ({len(self.paths)},) like paths")
            value.setflags(write=False)
            object.__setattr__(self, column, value)
        if unknown := set(np.unique(self.roles).tolist()) - set(ROLES):
            raise ValueError(f"roles has {sorted(unknown)}, expected some of {ROLES}")
        object.__setattr__(self, "root", Path(self.root))
        object.__setattr__(self, "paths", tuple(self.paths))

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, row: int) -> Path:
        """Where image ``row`` lies."""
        return self.root / self.paths[row]

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Manifest:
        """The rows of a boolean mask (N,) or of indices, in their order."""
        chosen = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return replace(
            self,
            paths=tuple(self.paths[row] for row in chosen),
            labels=self.labels[chosen],
            cameras=self.cameras[chosen],
            roles=self.roles[chosen],
        )

    def select(self, *roles: str) -> Manifest:
        """The images of the named roles, in their order; possibly none.

        Raises:
            ValueError: a name that is no role.
        """
        if unknown := set(roles) - set(ROLES):
            raise ValueError(f"roles {sorted(unknown)} do not exist, expected some of {ROLES}")
        return self.take(np.isin(self.roles, roles))

    def contiguous_labels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Class indices 0..C-1 in ascending order of person id, and the (C,) ids they stand for."""
        classes, labels = np.unique(self.labels, return_inverse=True)
        return labels.astype(np.int64), classes

    def counts(self) -> dict[str, Counts]:
        """Images, people and cameras of every role, empty roles included."""
        return {role: self._count(self.roles == role) for role in ROLES}

    def _count(self, rows: NDArray[np.bool_]) -> Counts:
        people, cameras = np.unique(self.labels[rows]), np.unique(self.cameras[rows])
        return Counts(int(rows.sum()), len(people), len(cameras))


def concatenate(name: str, root: Path, parts: Iterable[tuple[str, list[tuple[str, int, int]]]]) -> Manifest:
    """One manifest of (role, [(path, label, camera), ...]) parts, in their order."""
    rows = [(path, label, camera, role) for role, images in parts for path, label, camera in images]
    paths, labels, cameras, roles = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Manifest(name, root, paths, np.array(labels), np.array(cameras), np.array(roles))
