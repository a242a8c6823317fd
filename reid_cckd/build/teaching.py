"""From `teacher:` to whom the student asks: the network, or what it said of every image before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from reid_cckd import config as configuration
from reid_cckd.batch import Batch
from reid_cckd.build.networks import Loaded, teacher_precision
from reid_cckd.build.numbering import Numbering
from reid_cckd.config import Config
from reid_cckd.data import DeviceImages, ImageDataset, collate, limit_threads
from reid_cckd.engine import CachedTeacher, Layout, OnlineTeacher, TeacherSource, build_cache, open_cache
from reid_cckd.engine.feed import naming_lost_workers
from reid_cckd.errors import DataError
from reid_cckd.models import Teacher


def build_teacher(
    config: Config,
    loaded: Loaded,
    teacher: Teacher,
    dataset: ImageDataset,
    numbering: Numbering,
    device: torch.device,
    held: DeviceImages | None = None,
) -> TeacherSource:
    """Whom the student asks; a cache that is missing is computed now. ``held``: the images, if they are on the device.

    Raises:
        UserError: the cache in the folder is of something else, or there is no room for one; or it is missing and an
            image has been damaged since the run began.
    """
    assert config.teacher is not None
    settings = config.teacher
    network: nn.Module = torch.compile(teacher) if settings.compile else teacher  # type: ignore[assignment]
    online = OnlineTeacher(network, teacher_precision(config, device))
    if settings.mode == "online":
        return online
    facts = _facts(config, settings, loaded, numbering.fingerprint(dataset), device)
    key = hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:16]
    beside = Path(settings.checkpoint).parent if settings.checkpoint else Path(config.output)
    default = beside / "answers" / key
    folder = default if settings.cache is None else Path(settings.cache)
    found = open_cache(folder, facts)
    if found is None:
        _refuse_damaged(dataset, folder)
        augmented = dataset if held is None else held
        views = _Views(augmented if settings.mode == "views" else dataset.without_augment(), config)
        layout = Layout(len(dataset), facts["views"], _widths(loaded), settings.cache_dtype)
        found = build_cache(folder, facts, layout, views.batches, lambda images: online.answer(images.to(device)))
    return CachedTeacher(found, None if held is None else found.on(device))


def _refuse_damaged(dataset: ImageDataset, folder: Path) -> None:
    """Answers are kept for every image, under its own number."""
    replaced = np.flatnonzero(dataset.shown != np.arange(len(dataset)))
    if len(replaced):
        raise DataError(
            f"{dataset.manifest.path(int(replaced[0]))} and {len(replaced) - 1} more images were damaged since the run "
            f"began, and {folder} does not hold what the teacher says of them. Restore the images, or that folder."
        )


@dataclass(frozen=True)
class _Views:
    """All images of a data set, as they look in one epoch."""

    images: ImageDataset | DeviceImages
    config: Config

    def batches(self, view: int, parts: Sequence[range]) -> Iterator[Batch]:
        """The images of the parts in order; no batch is across two of them."""
        size, workers = self.config.evaluation.batch_size, self.config.data.workers
        rows = [part[start : start + size] for part in parts for start in range(0, len(part), size)]
        if isinstance(self.images, DeviceImages):
            yield from self.images.batches(rows, view)
            return
        self.images.set_epoch(view)
        loader = DataLoader(
            self.images,
            batch_sampler=rows,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=limit_threads,
            generator=torch.Generator(),  # a run whose answers were there already must draw the same numbers
        )
        with naming_lost_workers("while the teacher answered"):
            yield from loader


def _widths(loaded: Loaded) -> tuple[int, int, int]:
    width = loaded.network.width
    return width, width, len(loaded.classes) if loaded.network.head is not None else 0


def _facts(
    config: Config, settings: configuration.Teacher, loaded: Loaded, images: str, device: torch.device
) -> dict[str, Any]:
    """Everything that an answer depends on."""
    with teacher_precision(config, device)():
        computed_in = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32
    augmented = settings.mode == "views"
    drawn = {"drawn_on": device.type} if augmented and config.data.cache == "device" else {}  # its own views
    return {
        "teacher": loaded.sha256,
        "images": images,
        "image_size": list(config.data.image_size),
        "augment": config.data.augment if augmented else "none",
        "seed": config.seed if augmented else 0,
        "views": settings.views if augmented else 1,
        "dtype": settings.cache_dtype,
        "precision": str(computed_in).removeprefix("torch."),
        **drawn,
    }
