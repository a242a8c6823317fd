"""A table of images: where each lies, who is on it, which camera took it and what it is for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reid_cckd.data.images import DamagedImageError, Pixels
from reid_cckd.data.sources import Files, Numbered, Source

# Identification looks for the people of "query" in "gallery"; a classifier, or pairs of faces, are scored on "test",
# and "val" is what a set holds back from its training images for choosing.
ROLES = ("train", "val", "test", "query", "gallery")
UNLABELLED = -1


class Counts(NamedTuple):
    """How much one role holds."""

    images: int
    ids: int
    cameras: int


@dataclass(frozen=True, eq=False)
class Manifest:
    """N images of one data set; nothing in it can be changed.

    ``paths`` are relative to ``root``; ``source`` reads them (files unless told). ``labels``: (N,) int64 ids of
    people or classes, one number being one person throughout the table, `UNLABELLED` (-1) for an image of nobody
    knows whom. ``cameras``: (N,) int64, all 0 where a set has none. ``roles``: (N,) of `ROLES`. ``superclasses``:
    (N,) int64 of coarser classes, or None. ``class_names``: of labels, where the data set has names for them.

    Raises:
        ValueError: columns of different lengths, a role of another name, or a number that is not whole.
    """

    name: str
    root: Path
    paths: tuple[str, ...] | Numbered
    labels: NDArray[np.int64]
    cameras: NDArray[np.int64]
    roles: NDArray[np.str_]
    superclasses: NDArray[np.int64] | None = None
    source: Source | None = None
    class_names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns: dict[str, Any] = {"labels": np.int64, "cameras": np.int64, "roles": np.str_}
        if self.superclasses is not None:
            columns["superclasses"] = np.int64
        for column, dtype in columns.items():
            value = as_column(column, getattr(self, column), dtype)
            if value.shape != (len(self.paths),):
                raise ValueError(f"{column} has shape {value.shape}, expected ({len(self.paths)},) like paths")
            value.setflags(write=False)
            object.__setattr__(self, column, value)
        if unknown := set(np.unique(self.roles).tolist()) - set(ROLES):
            raise ValueError(f"roles has {sorted(unknown)}, expected some of {ROLES}")
        object.__setattr__(self, "root", Path(self.root))
        if not isinstance(self.paths, Numbered):
            object.__setattr__(self, "paths", tuple(self.paths))

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def reader(self) -> Source:
        """What reads the images: ``source``, or files below ``root``."""
        return Files(self.root) if self.source is None else self.source

    def path(self, row: int) -> Path:
        """Where image ``row`` lies; a record of a pack is ``.../train.rec:17``."""
        return self.root / self.paths[row]

    def image_or_reason(self, row: int, size: tuple[int, int] | None = None) -> Pixels | str:
        """Image ``row`` as (H, W, 3) uint8 RGB, resized to ``size`` = (H, W), or in a few words why there is none."""
        return self.reader.image_or_reason(self.paths[row], size)

    def read(self, row: int, size: tuple[int, int] | None = None) -> Pixels:
        """Image ``row`` as (H, W, 3) uint8 RGB, resized to ``size`` = (H, W) if given.

        Raises:
            DamagedImageError: it is missing, empty, truncated or no image.
        """
        image = self.image_or_reason(row, size)
        if isinstance(image, str):
            raise DamagedImageError.of(self.path(row), image)
        return image

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Manifest:
        """The rows of a boolean mask (N,) or of indices, in their order."""
        chosen: NDArray[np.int64] = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64)
        return replace(
            self,
            paths=_take(self.paths, chosen),
            labels=self.labels[chosen],
            cameras=self.cameras[chosen],
            roles=self.roles[chosen],
            superclasses=None if self.superclasses is None else self.superclasses[chosen],
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
        """Class indices 0..C-1 in ascending order of person id, and the (C,) ids they stand for.

        Unlabelled images keep -1 and are no class.
        """
        labelled = self.labels != UNLABELLED
        classes, found = np.unique(self.labels[labelled], return_inverse=True)
        labels = np.full(len(self), UNLABELLED, dtype=np.int64)
        labels[labelled] = found
        return labels, classes

    def names_of(self, classes: NDArray[np.int64]) -> list[str]:
        """The names of these labels in turn; none unless each has one of its own."""
        names = [self.class_names[label] for label in classes.tolist() if label in self.class_names]
        return names if len(set(names)) == len(classes) else []

    def counts(self) -> dict[str, Counts]:
        """Images, people and cameras of the roles of identification, empty ones included, and of others that occur."""
        always, occurring = ("train", "query", "gallery"), set(np.unique(self.roles).tolist())
        return {role: self._count(self.roles == role) for role in ROLES if role in always or role in occurring}

    def _count(self, rows: NDArray[np.bool_]) -> Counts:
        people, cameras = np.unique(self.labels[rows]), np.unique(self.cameras[rows])
        return Counts(int(rows.sum()), int((people != UNLABELLED).sum()), len(cameras))


def as_column(name: str, values: Any, dtype: Any) -> NDArray[Any]:
    """A copy as ``dtype``: the caller's array stays writable. Raises ValueError where numbers would change."""
    given = np.asarray(values)
    if given.dtype.kind == "f" and (wrong := np.flatnonzero(given % 1 != 0)).size:
        raise ValueError(f"{name} must be whole numbers; {name}[{wrong[0]}] is {given.flat[wrong[0]]}")
    return given.astype(dtype)


def _take(paths: tuple[str, ...] | Numbered, rows: NDArray[np.int64]) -> tuple[str, ...] | Numbered:
    return paths.take(rows) if isinstance(paths, Numbered) else tuple(paths[row] for row in rows.tolist())


def chain(name: str, root: Path, parts: Iterable[Manifest], source: Source | None = None) -> Manifest:
    """The rows of several manifests without superclasses, whose paths ``source`` can read, as one."""
    tables = list(parts)
    return Manifest(
        name,
        root,
        tuple(path for table in tables for path in table.paths),
        np.concatenate([table.labels for table in tables]),
        np.concatenate([table.cameras for table in tables]),
        np.concatenate([table.roles for table in tables]),
        source=source,
    )


def concatenate(name: str, root: Path, parts: Iterable[tuple[str, list[tuple[str, int, int]]]]) -> Manifest:
    """One manifest of (role, [(path, label, camera), ...]) parts, in their order."""
    rows = [(path, label, camera, role) for role, images in parts for path, label, camera in images]
    paths, labels, cameras, roles = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Manifest(name, root, paths, np.array(labels), np.array(cameras), np.array(roles))
