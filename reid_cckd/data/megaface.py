"""The files of the MegaFace devkit: feature `.bin`, template lists, `*_lst`, noise lists, result JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reid_cckd.errors import DataError
from reid_cckd.files import write_json

_ELEMENT, _FLOAT = 4, 5  # bytes of an element, and OpenCV's number for float32


@dataclass(frozen=True)
class TemplateList:
    """Images in the order of a devkit list; ``ids`` are empty where it names no people."""

    paths: tuple[str, ...]
    ids: tuple[str, ...]


def read_feature(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """(D,) features of one image: int32 rows, columns (1), 4 and 5, then rows x columns float32, little-endian.

    Raises:
        DataError: the file is missing, truncated, longer than it says, or of another kind.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read the features {path}: {error.strerror}.") from error
    header = np.frombuffer(content[:16], dtype="<i4") if len(content) >= 16 else np.zeros(4, dtype="<i4")
    count = int(header[0]) * int(header[1])
    if header[2:].tolist() != [_ELEMENT, _FLOAT] or min(header[:2]) < 1 or len(content) != 16 + 4 * count:
        raise DataError(
            f"{path} ({len(content):,} bytes) is no devkit feature: expected int32 rows, 1, 4, 5, then rows float32, "
            f"found a header of {header.tolist()}. It is truncated or of another format."
        )
    return np.frombuffer(content, dtype="<f4", offset=16).astype(np.float32)


def write_feature(path: str | os.PathLike[str], vector: NDArray[np.floating]) -> None:
    """Write (D,) features as `read_feature` reads them."""
    header = np.array([len(vector), 1, _ELEMENT, _FLOAT], dtype="<i4")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(header.tobytes() + np.asarray(vector, dtype="<f4").tobytes())


def read_template_list(path: str | os.PathLike[str]) -> TemplateList:
    """A list of the devkit's templatelists: JSON with "path" and, of probes, "id".

    Raises:
        DataError: no such file, no such JSON, another number of ids, or an image named twice.
    """
    text = _text(path)
    try:
        content = json.loads(text)
        paths, ids = ([str(value) for value in content.get(key, ())] for key in ("path", "id"))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DataError(f'{path} is no devkit list: expected JSON with "path" and perhaps "id" ({error}).') from error
    if not paths or len(ids) not in (0, len(paths)):
        raise DataError(f"{path}: expected as many ids as paths or none, found {len(paths):,} and {len(ids):,}.")
    _refuse_repeats(path, paths)
    return TemplateList(tuple(paths), tuple(ids))


def read_lst(path: str | os.PathLike[str]) -> TemplateList:
    """facescrub_lst or megaface_lst: one relative path a line; the id is the folder an image lies in.

    Raises:
        DataError: no such file, an empty one, or an image named twice.
    """
    paths = [line.strip() for line in _text(path).splitlines() if line.strip()]
    if not paths:
        raise DataError(f"{path} is empty; expected one relative path a line.")
    _refuse_repeats(path, paths)
    return TemplateList(tuple(paths), tuple(folder_of(name) for name in paths))


def read_noises(path: str | os.PathLike[str]) -> frozenset[str]:
    """Names of a noise list of insightface: file names or paths, one a line, the last of its tabbed columns.

    Raises:
        DataError: no such file, or it names nothing.
    """
    lines = (line.strip() for line in _text(path).splitlines())
    names = frozenset(key_of(line.split("\t")[-1]) for line in lines if line and not line.startswith("#"))
    if not names:
        raise DataError(f"{path} names no image; expected one file name or path a line.")
    return names


def distractor_list(lists: str | os.PathLike[str], scale: int, number: int) -> Path:
    """Where set ``number`` of ``scale`` distractors is listed: LISTS_SCALE_NUMBER."""
    return Path(f"{os.fspath(lists)}_{scale}_{number}")


def key_of(path: str) -> str:
    """A path as lists and folders may spell it differently: forward slashes, no spaces, no leading dot."""
    return path.replace("\\", "/").replace(" ", "_").removeprefix("./")


def folder_of(path: str) -> str:
    """The name of the folder an image lies in: the person, in FaceScrub."""
    return key_of(path).rpartition("/")[0].rpartition("/")[2]


def rows_of(wanted: Iterable[str], held: Sequence[str], what: str) -> NDArray[np.int64]:
    """Row of each wanted path among those held, the one spelled alike if there are several.

    A folder that all held lie in may be missing from the wanted.

    Raises:
        DataError: some are not held, with an example of either side.
    """
    places = {key_of(path): row for row, path in enumerate(held)}
    exact = {path: row for row, path in enumerate(held)} if len(places) < len(held) else {}
    names = list(wanted)
    keys = [key_of(name) for name in names]
    folder = _folder_above(keys, places)
    missing = [key for key in keys if folder + key not in places]
    if missing:
        example = f"; there is {held[0]!r}, for example" if len(held) else ""
        raise DataError(
            f"{what}: {len(missing):,} of {len(keys):,} images have no row, the first {missing[0]!r}{example}."
        )
    found = (exact.get(folder + name, places[folder + key]) for name, key in zip(names, keys, strict=True))
    return np.fromiter(found, dtype=np.int64, count=len(keys))


def named_in(path: str | os.PathLike[str], held: Sequence[str]) -> NDArray[np.bool_]:
    """(N,) which of the paths held a noise list names: by file name alone, or by path as `rows_of` finds it.

    Raises:
        DataError: it cannot be read, or names none of them.
    """
    names, keys = read_noises(path), [key_of(name) for name in held]
    folder = _folder_above(names, set(keys))
    wrong = {folder + name for name in names}
    found = np.array([key in wrong or key.rpartition("/")[2] in names for key in keys], dtype=np.bool_)
    if not found.any():
        example = next(iter(keys), "nothing")
        raise DataError(
            f"{path} names none of the {len(keys):,} images: it has {min(names)!r}, they {example!r}. "
            f"Take the list that belongs to them, or none."
        )
    return found


def _folder_above(names: Collection[str], held: Collection[str]) -> str:
    """Of the folders that all held lie in, the one below which most of the names are; the first of equals is none."""
    parts = os.path.commonprefix(list(held)).split("/")[:-1]  # noqa: RUF071 (what is no whole folder is cut off)
    folders = accumulate((f"{part}/" for part in parts), initial="")
    return max(folders, key=lambda folder: sum(folder + name in held for name in names))


def write_result(path: Path, cmc: Mapping[int, float], roc: Mapping[float, float]) -> None:
    """Write a result as the devkit does: CMC by rank from 0, ROC by false positive rate.

    ``cmc``: rank from 1 up -> rate. ``roc``: false positive rate -> true positive rate.
    """
    ranks, rates = sorted(cmc), sorted(roc)
    content = {
        "cmc": [[rank - 1 for rank in ranks], [cmc[rank] for rank in ranks]],
        "roc": [rates, [roc[rate] for rate in rates]],
    }
    write_json(path, content)


def _text(path: str | os.PathLike[str]) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8: {error}.") from error
    except OSError as error:
        raise DataError(f"Cannot read the list {path}: {error.strerror}.") from error


def _refuse_repeats(path: str | os.PathLike[str], names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise DataError(f"{path} names {twice} twice; it would count twice.")
