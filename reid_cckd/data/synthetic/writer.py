"""Synthetic pedestrians on disk, in MSMT17_V1's own layout."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from reid_cckd.data.folders import describe
from reid_cckd.data.layouts import read_msmt17
from reid_cckd.data.manifest import Manifest
from reid_cckd.data.staging import read_object
from reid_cckd.data.synthetic.camera import make_camera, make_visit, photograph
from reid_cckd.data.synthetic.person import Person, make_people
from reid_cckd.errors import DataError
from reid_cckd.files import alone, write_json

MARKER = "synthetic.json"
REVISION = 1  # raise it with every change of a pixel: sets on disk are then made anew
NAME = "synthetic pedestrians"
TRACK = 2  # most pictures of one walk: nearly equal ones teach a network the backdrop

Split = Literal["train", "test"]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides about the bytes of a set.

    Raises:
        ValueError: no people, fewer than two cameras, or fewer than four images each (two cameras, query and gallery).
    """

    train_ids: int
    test_ids: int
    images_per_id: int
    cameras: int
    size: tuple[int, int]
    seed: int
    revision: int = REVISION

    def __post_init__(self) -> None:
        for name, least in {"train_ids": 1, "test_ids": 1, "images_per_id": 4, "cameras": 2}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if min(self.size) < 16:
            raise ValueError(f"size is {self.size}, expected at least 16 x 16")


def write_pedestrians(
    root: str | os.PathLike[str],
    *,
    train_ids: int = 160,
    test_ids: int = 80,
    images_per_id: int = 20,
    cameras: int = 6,
    size: tuple[int, int] = (128, 64),
    seed: int = 0,
    workers: int | None = None,
    reuse: bool = False,
) -> Manifest:
    """Make a set at ``root``, in place of one of the same arguments; ``size`` is (H, W).

    A person passes up to six cameras. In test, the first image of a person at each camera is a query, the others are
    the gallery. The same arguments give the same bytes for any number of ``workers`` (default: one per processor).
    The folder appears when it is complete; a killed run leaves only a hidden one beside it, which the next replaces.
    With ``reuse``, a complete set of the same arguments is left as it is.

    Raises:
        DataError: ``root`` holds something that this function did not write, or a set of other arguments.
        ValueError: numbers too small for a test split with matches across cameras.
    """
    recipe = Recipe(train_ids, test_ids, images_per_id, cameras, (int(size[0]), int(size[1])), seed)
    target = Path(root).expanduser().absolute()
    with alone(target):
        return (_complete(target, recipe) if reuse else None) or _write(target, recipe, workers)


ensure_pedestrians = partial(write_pedestrians, reuse=True)


def _complete(target: Path, recipe: Recipe) -> Manifest | None:
    if read_object(target / MARKER) == _plain(recipe):
        with contextlib.suppress(DataError):  # images gone since
            return read_msmt17(target, name=NAME)
    return None


def _plain(recipe: Recipe) -> dict[str, Any]:
    """As the marker holds it."""
    return {**asdict(recipe), "size": list(recipe.size)}


def _refuse_others(target: Path, recipe: Recipe) -> None:
    """Raises DataError where a set would take the place of anything but itself, whole or not, of any revision."""
    if target.exists() and not (target / MARKER).is_file() and any(target.iterdir()):
        raise DataError(
            f"Synthetic pedestrians cannot be written to {describe(target)}: without {MARKER} it is not a set made by "
            "this command, and nothing of yours is deleted. Choose an empty or a new folder."
        )
    before, wanted = read_object(target / MARKER) or {}, _plain(recipe)
    others = [name for name in before if name != "revision" and before[name] != wanted.get(name)]
    if others:
        old, new = (", ".join(f"{name}={numbers.get(name)}" for name in others) for numbers in (before, wanted))
        raise DataError(
            f"{target} holds synthetic pedestrians of other numbers ({old}; wanted {new}), and nothing is written over "
            "them. Choose a new folder, or remove that one."
        )


def _write(target: Path, recipe: Recipe, workers: int | None) -> Manifest:
    _refuse_others(target, recipe)
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    _write_images(part, recipe, workers)
    write_json(part / MARKER, _plain(recipe))
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    return read_msmt17(target, name=NAME)


def _write_images(part: Path, recipe: Recipe, workers: int | None) -> None:
    """Draw everybody in parallel, then write the lists."""
    jobs: list[tuple[Split, int]] = [("train", person) for person in range(recipe.train_ids)]
    jobs += [("test", person) for person in range(recipe.test_ids)]
    lists: dict[str, list[str]] = {"train": [], "val": [], "query": [], "gallery": []}
    draw = partial(_draw_person, part, recipe)
    bar = tqdm(
        total=len(jobs) * recipe.images_per_id,
        desc="synthetic pedestrians",
        unit="image",
        delay=1,
        leave=False,
        disable=None,
    )
    with bar, _map(draw, jobs, workers) as results:
        for rows in results:
            for name, line in rows:
                lists[name].append(line)
            bar.update(len(rows))
    for name, lines in lists.items():
        (part / f"list_{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def _draw_person(part: Path, recipe: Recipe, job: tuple[Split, int]) -> list[tuple[str, str]]:
    """All images of one person on disk; (list, line) of each."""
    split, number = job
    person = _people(recipe, split)[number]
    rng = np.random.default_rng([recipe.seed, 3, split == "test", number])
    visited = min(int(rng.integers(3, 7)), recipe.cameras, recipe.images_per_id // 2)
    cameras = rng.choice(recipe.cameras, visited, replace=False) + 1
    shares = np.array_split(np.arange(recipe.images_per_id), visited)
    folder = part / split / f"{number:04d}"
    folder.mkdir(parents=True)
    rows = []
    for camera, share in zip(cameras.tolist(), shares, strict=True):
        for track in np.array_split(share, -(-len(share) // TRACK)):
            files = _draw_track(folder, recipe, person, camera, track.tolist(), rng)
            rows += [(file, image == share[0]) for file, image in zip(files, track, strict=True)]
    names = _lists_of(split, [first for _, first in rows])
    return [(name, f"{folder.name}/{file} {number}") for name, (file, _) in zip(names, rows, strict=True)]


def _draw_track(
    folder: Path, recipe: Recipe, person: Person, number: int, images: list[int], rng: np.random.Generator
) -> list[str]:
    """File names of the pictures of one walk past camera ``number``."""
    camera = make_camera(number, recipe.size, recipe.seed)
    visit = make_visit(camera, recipe.size, rng)
    day, frame = int(rng.integers(1, 29)), int(rng.integers(0, 5000))
    files = []
    for image in images:
        frame += int(rng.integers(8, 40))
        files.append(f"{folder.name}_{image:03d}_{number:02d}_03{day:02d}{visit.time}_{frame:04d}_0.jpg")
        pixels = photograph(person, camera, visit, recipe.size, rng)
        Image.fromarray(pixels).save(folder / files[-1], quality=camera.quality)
    return files


def _lists_of(split: Split, first: list[bool]) -> list[str]:
    """The list file of each image of a person: in training, the last is for validation."""
    if split == "train":
        return ["train"] * (len(first) - 1) + ["val"]
    return ["query" if is_first else "gallery" for is_first in first]


@lru_cache(maxsize=4)
def _people(recipe: Recipe, split: Split) -> list[Person]:
    if split == "train":
        return make_people(recipe.train_ids, recipe.seed, start=0)
    return make_people(recipe.test_ids, recipe.seed, start=1)


@contextlib.contextmanager
def _map(draw: Callable[[T], R], jobs: Sequence[T], workers: int | None) -> Iterator[Iterator[R]]:
    """``map`` over processes, which end with the block."""
    count = min(workers or os.cpu_count() or 1, len(jobs))
    if count <= 1:
        yield map(draw, jobs)
        return
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None  # spawning imports torch anew
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(count, mp_context=context, initializer=cv2.setNumThreads, initargs=(0,)) as pool:
        try:
            yield pool.map(draw, jobs)
        except BaseException:  # an interrupt should not wait for everybody who is still to be drawn
            pool.shutdown(cancel_futures=True)
            raise
