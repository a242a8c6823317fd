"""Finding a data set below a root, and saying what was found instead when it is not there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from reid_cckd.data.images import SUFFIXES
from reid_cckd.errors import DataError, did_you_mean

SHOWN = 10  # names listed in a message: enough to recognise a folder, few enough to read


@dataclass(frozen=True)
class Tree:
    """One way in which a data set lies on disk: the sub-folders by which it is recognised."""

    name: str
    folders: tuple[str, ...]

    def is_in(self, folder: Path) -> bool:
        return all((folder / name).is_dir() for name in self.folders)


class Listing:
    """Whether files exist, asking the disk once per folder instead of once per file."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def names(self, folder: str) -> frozenset[str]:
        """The files of ``folder``; none where it does not exist."""
        if folder not in self._names:
            self._names[folder] = frozenset(_files(folder))
        return self._names[folder]

    def __contains__(self, path: str) -> bool:
        """``path`` with forward slashes."""
        folder, _, name = path.rpartition("/")
        return name in self.names(folder)


def find_tree(
    root: str | os.PathLike[str], homes: Sequence[str], trees: Sequence[Tree], title: str
) -> tuple[Path, Tree]:
    """The folder among ``root`` / ``homes`` that holds one of ``trees``, and which one.

    Raises:
        DataError: none is there, or more than one (two versions side by side must not be mixed up; a link to a folder
            is that folder).
    """
    base = Path(root).expanduser()
    found = [(base / home, tree) for home in homes for tree in trees if tree.is_in(base / home)]
    if len({(home.resolve(), tree) for home, tree in found}) == 1:
        return found[0]
    if found:
        places = " and ".join(f"{tree.name} at {home}" for home, tree in found)
        raise DataError(f"{base} holds more than one {title}: {places}. Set the data root to the one you mean.")
    raise DataError(_not_found(base, homes, trees, title))


def describe(folder: Path) -> str:
    """What ``folder`` holds, in words for a message."""
    if not folder.is_dir():
        return f"{folder}, which is {'a file' if folder.exists() else 'not there'}"
    names = _entries(folder)
    if not names:
        return f"{folder}, which is empty"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{folder}, which holds {', '.join(names[:SHOWN])}{more}"


def _not_found(base: Path, homes: Sequence[str], trees: Sequence[Tree], title: str) -> str:
    looked_for = ", or ".join(f"{' + '.join(f'{name}/' for name in tree.folders)} ({tree.name})" for tree in trees)
    inside = ", ".join(home for home in homes if home)
    where = f"in it or in one of its folders {inside}" if inside else "in it"
    return (
        f"No {title} at {base}: looked {where} for {looked_for}; looked at {describe(base)}."
        f"{_hint(base, trees)} Set the data root to the folder that holds them; datasets/README.md shows the trees."
    )


def _hint(base: Path, trees: Sequence[Tree]) -> str:
    for folder in _nearby(base):
        if any(tree.is_in(folder) for tree in trees):
            return f" It seems to be at {folder}."
    if base.is_dir():
        return next(
            (hint for tree in trees for name in tree.folders if (hint := did_you_mean(name, _entries(base)))), ""
        )
    if base.exists():
        return ""
    if base.parent.is_dir():
        return did_you_mean(base.name, _entries(base.parent))
    existing = next(parent for parent in base.absolute().parents if parent.is_dir())
    return f" The nearest folder that exists is {existing}."


def _nearby(base: Path) -> Iterator[Path]:
    """The folder above, then those up to two levels below: where a data set usually is when it is not at the root."""
    yield base.parent
    if base.is_dir():
        children = [base / name for name in _entries(base) if name.endswith("/")]
        grandchildren = (child / name for child in children for name in _entries(child) if name.endswith("/"))
        yield from islice([*children, *grandchildren], 200)


def files_in(folder: Path, suffixes: tuple[str, ...] = SUFFIXES, files: Listing | None = None) -> list[str]:
    """Names of the files with one of these suffixes, in either case, in order of name.

    Hidden ones are left out: macOS puts a file ._1.jpg, which is no image, beside every 1.jpg of an archive.
    """
    names = (files or Listing()).names(str(folder))
    return sorted(name for name in names if name.lower().endswith(suffixes) and not _is_hidden(name))


def images_below(folder: Path, prefix: str, files: Listing) -> list[str]:
    """Image files of ``folder`` and of the folders in it, hidden ones left out, each with ``prefix`` before it."""
    own = [f"{prefix}/{name}" for name in files_in(folder, files=files)]
    return own + [
        path for name in folders_of(folder) for path in images_below(folder / name, f"{prefix}/{name}", files)
    ]


def folders_of(folder: Path) -> list[str]:
    """Names of the folders in ``folder``, hidden ones left out."""
    return [name[:-1] for name in _entries(folder) if name.endswith("/") and not _is_hidden(name)]


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX/"))


def _entries(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name + ("/" if entry.is_dir() else "") for entry in entries)
    except OSError:  # a folder that may not be read helps nobody as a hint
        return []


def _files(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if not entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name with a zero byte
        return []
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}. Check its permissions.") from error
