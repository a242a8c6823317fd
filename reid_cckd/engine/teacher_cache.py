"""What a teacher says about every image, computed once and kept in one file on disk.

FOLDER/cache.json   what the answers depend on and how they lie in the file; exists once all of them are there
FOLDER/rows.bin     (views x images, width) numbers: row ``view * images + image``
FOLDER/unfinished/  cache.json, and an empty file for each part that is on disk: a killed build goes on here
FOLDER/lock         held by the run that builds; another one waits and then uses the result
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from reid_cckd.batch import Batch, Output, has_room
from reid_cckd.engine.distributed import barrier, rank, world_size
from reid_cckd.errors import DataError, UserError
from reid_cckd.files import is_full_disk, reserve, write_json

PART = 1024  # rows after which a build is safe from being killed

Teach = Callable[[Tensor], Output]
ViewLoader = Callable[[int, Sequence[range]], Iterable[Batch]]


@dataclass(frozen=True)
class Layout:
    """How answers lie in the file; ``widths`` of embedding, neck and logits (0: the teacher has no head)."""

    images: int
    views: int
    widths: tuple[int, int, int]
    dtype: str

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and numbers in each."""
        return self.views * self.images, sum(self.widths)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return sum(self.widths) * np.dtype(self.dtype).itemsize

    @property
    def parts(self) -> list[tuple[int, range]]:
        """(view, images) of each part; a part is inside one view."""
        edges = [*range(0, self.images, PART), self.images]
        return [(view, range(*edge)) for view in range(self.views) for edge in pairwise(edges)]

    def output(self, rows: Tensor) -> Output:
        """What the teacher said, of rows of the file."""
        embedding, neck, logits = rows.split(self.widths, dim=1)
        return Output(embedding, neck, logits if self.widths[2] else None)


@dataclass(frozen=True)
class TeacherCache:
    """The finished answers, read from disk as they are asked for."""

    layout: Layout
    table: NDArray[np.floating]

    def look_up(self, view: NDArray[np.int64], image: NDArray[np.int64]) -> Tensor:
        """(N, width) rows of N views of images, in memory."""
        return torch.from_numpy(self.table[view * self.layout.images + image])

    def on(self, device: torch.device) -> Tensor | None:
        """All rows on a device, a view of the file on the CPU; None where a GPU has no room for them."""
        if not has_room(device, self.table.nbytes):
            return None
        with warnings.catch_warnings():  # the file is never written to
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(self.table).to(device)


def open_cache(folder: Path, facts: Mapping[str, Any]) -> TeacherCache | None:
    """The cache in ``folder``, or None where there is none or an unfinished one.

    Raises:
        UserError: it is of another teacher, or of other images, augmentations or precision; or it is damaged.
    """
    description = _description(folder / "cache.json")
    if description is None:
        return None
    _check_facts(folder, description["facts"], facts)
    layout = Layout(**{**description["layout"], "widths": tuple(description["layout"]["widths"])})
    path = folder / "rows.bin"
    if not path.is_file() or path.stat().st_size != layout.shape[0] * layout.row_bytes:
        raise DataError(f"{path} is damaged: it is not as long as {folder / 'cache.json'} says. Delete {folder}.")
    return TeacherCache(layout, np.memmap(path, layout.dtype, mode="r", shape=layout.shape))


def build_cache(
    folder: Path, facts: Mapping[str, Any], layout: Layout, load: ViewLoader, answer: Teach
) -> TeacherCache:
    """Open the cache in ``folder``; ask the teacher for what is not in it yet. All ranks share the work.

    ``load(view, parts)``: batches of the images of the parts in that view, in order, none of them across two parts.

    Raises:
        UserError: as `open_cache`; the disk is full; or an answer does not fit the type.
    """
    with _only_one(folder):
        if rank() == 0 and open_cache(folder, facts) is None:
            _prepare(folder, facts, layout)
        barrier()
        if (folder / "unfinished").exists():
            _fill(folder, layout, load, answer)
            barrier()
            if rank() == 0:
                _finish(folder, facts, layout)
        barrier()
    cache = open_cache(folder, facts)
    assert cache is not None
    return cache


def _prepare(folder: Path, facts: Mapping[str, Any], layout: Layout) -> None:
    """The file at its full length, so that a full disk shows before the work."""
    unfinished, rows = folder / "unfinished", folder / "rows.bin"
    before = _description(unfinished / "cache.json")
    if before is not None:
        _check_facts(folder, before["facts"], facts)
    length = layout.shape[0] * layout.row_bytes
    if before is None or not rows.is_file() or rows.stat().st_size != length:
        shutil.rmtree(unfinished, ignore_errors=True)
        with rows.open("wb") as file, _room_for(folder, length):
            reserve(file, length)
        write_json(unfinished / "cache.json", _describe(facts, layout))
    print(
        f"The teacher answers for {layout.images:,} images x {layout.views}: {max(1, length / 1e6):,.0f} MB in {folder}"
    )


def _fill(folder: Path, layout: Layout, load: ViewLoader, answer: Teach) -> None:
    done = {entry.name for entry in (folder / "unfinished").iterdir()}
    waiting = [part for part in layout.parts if _marker(*part) not in done][rank() :: world_size()]
    images = sum(len(rows) for _, rows in waiting)
    with (
        (folder / "rows.bin").open("r+b", buffering=0) as file,
        tqdm(total=images, desc="teacher", unit="image", leave=False, disable=None if rank() == 0 else True) as bar,
    ):
        for view in sorted({view for view, _ in waiting}):
            parts = [rows for other, rows in waiting if other == view]
            for rows, table in _answers(load(view, parts), parts, layout, answer):
                with _room_for(folder, images * layout.row_bytes):
                    file.seek((view * layout.images + rows.start) * layout.row_bytes)
                    file.write(table.tobytes())
                    os.fsync(file.fileno())
                    (folder / "unfinished" / _marker(view, rows)).touch()
                bar.update(len(rows))


def _answers(
    batches: Iterable[Batch], parts: Sequence[range], layout: Layout, answer: Teach
) -> Iterator[tuple[range, NDArray[np.floating]]]:
    """(images, their rows of the file) of each part, as soon as its last batch was asked."""
    left, tables = iter(parts), list[NDArray[np.floating]]()
    part = next(left)
    for batch in batches:
        tables.append(_rows(answer(batch.images), layout))
        if sum(map(len, tables)) == len(part):
            yield part, np.concatenate(tables)
            part, tables = next(left, range(0)), []


def _rows(output: Output, layout: Layout) -> NDArray[np.floating]:
    columns = [output.embedding, output.neck, *([] if output.logits is None else [output.logits])]
    rows: NDArray[np.floating] = torch.cat([column.float() for column in columns], dim=1).cpu().numpy()
    with np.errstate(over="ignore"):
        stored = rows.astype(layout.dtype)
    if not np.isfinite(stored).all():
        largest = float(np.abs(rows).max())
        raise UserError(
            f"The teacher's answers reach {largest:.3g}, which {layout.dtype} does not hold. "
            f"Set teacher.cache_dtype: float32, or check the teacher if its numbers are not finite."
        )
    return stored


def _finish(folder: Path, facts: Mapping[str, Any], layout: Layout) -> None:
    write_json(folder / "cache.json", _describe(facts, layout))
    shutil.rmtree(folder / "unfinished")


def _marker(view: int, rows: range) -> str:
    return f"{view}-{rows.start}"


def _describe(facts: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    return {"facts": dict(facts), "layout": asdict(layout)}


def _description(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        return {"facts": dict(description["facts"]), "layout": dict(description["layout"])}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged; delete {path.parent} and the answers are computed anew.") from error


def _check_facts(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(wanted))
    other = [name for name in sorted(wanted.keys() | found.keys()) if found.get(name) != wanted.get(name)]
    if not other:
        return
    whose = "of another teacher" if "teacher" in other else "of the same teacher for another run"
    lines = "".join(f"\n  {name}: {found.get(name)!r}, and this run's is {wanted.get(name)!r}" for name in other)
    raise UserError(f"{folder} is a cache {whose}; delete it, or choose another folder as teacher.cache:{lines}")


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Rank 0 holds the folder's lock; the system takes it back from a process that dies."""
    if rank() != 0:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise UserError(f"Cannot write {folder}: {error.strerror}. Choose another folder as teacher.cache.") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _room_for(folder: Path, length: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        raise UserError(
            f"The teacher's answers need {length / 1e6:,.0f} MB in {folder}: {error.strerror}. Free space and start "
            f"again (what is there is kept), choose another teacher.cache, or keep fewer teacher.views."
        ) from error
