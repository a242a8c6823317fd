"""From `sampler:` to batches of row numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reid_cckd.build.data import plain_loader
from reid_cckd.build.networks import teacher_precision
from reid_cckd.config import Config
from reid_cckd.data import ImageDataset, read_superclasses
from reid_cckd.engine import extract, on_rank_zero
from reid_cckd.errors import ConfigError
from reid_cckd.models import Teacher
from reid_cckd.samplers import (
    ClassUniformSampler,
    RefreshedSuperclassSampler,
    Superclasses,
    UniformSampler,
    build_superclasses,
    superclass_report,
    superclasses_of_epoch,
)


def build_sampler(config: Config, dataset: ImageDataset, teacher: Teacher | None, device: torch.device) -> Any:
    """The batch sampler of ``config.sampler`` over the images that can be read."""
    sampler = config.sampler
    common: dict[str, Any] = {"seed": config.seed, "batches_per_epoch": sampler.batches_per_epoch}
    try:
        if sampler.kind == "uniform":
            return UniformSampler(dataset.labels, sampler.batch_size, **common)
        if sampler.kind == "sur":
            return _superclass_sampler(config, dataset, teacher, device, {**common, "short": sampler.short})
        return ClassUniformSampler(
            dataset.labels,
            sampler.classes_per_batch,
            sampler.samples_per_class,
            cameras=dataset.manifest.cameras if sampler.camera_aware else None,
            short=sampler.short,
            class_weights=_weights(dataset.labels, sampler.size_power),
            **common,
        )
    except ValueError as error:
        raise ConfigError(f"sampler: {error}") from error


def _superclass_sampler(
    config: Config, dataset: ImageDataset, teacher: Teacher | None, device: torch.device, options: dict[str, Any]
) -> RefreshedSuperclassSampler:
    sampler = config.sampler
    first, find = _finder(config, dataset, teacher, device)
    report = superclass_report(first, dataset.labels)
    print(
        f"{len(report.sizes)} superclasses of {report.sizes.min()} to {report.sizes.max()} images: "
        f"purity {100 * report.purity:.1f} %, NMI {report.nmi:.3f} against the labels",
        flush=True,
    )
    inner = sampler.inner_samples_per_class
    return RefreshedSuperclassSampler(
        find,
        sampler.refresh_every,
        sampler.superclasses_per_batch,
        sampler.samples_per_superclass,
        labels=None if inner is None else dataset.labels,
        samples_per_class=inner,
        class_weights=_weights(first, sampler.size_power),
        **options,
    )


def _finder(
    config: Config, dataset: ImageDataset, teacher: Teacher | None, device: torch.device
) -> tuple[NDArray[np.int64], Callable[[int], NDArray[np.int64]]]:
    """The superclasses of the first epoch, and a function that gives those of any."""
    if config.sampler.superclasses != "teacher":
        given = _given(config.sampler.superclasses, dataset)
        return given, lambda epoch: given
    assert teacher is not None

    @cache
    def embeddings() -> NDArray[np.float32]:
        return _embed(config, dataset, teacher, device)

    def cluster(turn: int) -> Superclasses:
        sampler, seed = config.sampler, config.seed + 1000 * turn
        return build_superclasses(
            embeddings(), dataset.labels, sampler.num_superclasses, by=sampler.cluster_by, seed=seed
        )

    def find(epoch: int) -> NDArray[np.int64]:
        every = config.sampler.refresh_every
        found = on_rank_zero(lambda: superclasses_of_epoch(config.output, epoch, every, cluster).assignments)
        if len(found) != len(dataset.labels):
            raise ConfigError(
                f"{config.output} holds superclasses of {len(found)} images, the data set has {len(dataset.labels)}: "
                f"they are of other data. Choose another output, or remove superclasses_*.npz there."
            )
        return found

    return find(0), find


def _embed(config: Config, dataset: ImageDataset, teacher: Teacher, device: torch.device) -> NDArray[np.float32]:
    """What the teacher makes of the un-augmented images, each as it is shown."""
    batches = plain_loader(dataset.without_augment(), config.evaluation.batch_size, config.data.workers)
    vectors = extract(
        teacher,
        batches,
        len(dataset),
        device=device,
        precision=teacher_precision(config, device),
        on=config.evaluation.on,
    )
    return vectors.numpy()[dataset.shown]


def _given(source: str, dataset: ImageDataset) -> NDArray[np.int64]:
    """The data set's own superclasses, or those of a file."""
    manifest = dataset.manifest
    if source == "data":
        if manifest.superclasses is None:
            raise ConfigError(
                f"sampler.superclasses: {manifest.name} has no superclasses of its own; give a .csv or .npz file"
            )
        return manifest.superclasses
    if source.endswith(".csv"):
        return read_superclasses(source, manifest)
    if not Path(source).is_file():
        raise ConfigError(f"sampler.superclasses: there is no file {source}")
    found = Superclasses.load(source).assignments
    if len(found) != len(manifest):
        raise ConfigError(f"sampler.superclasses: {source} is of {len(found)} images, the data set has {len(manifest)}")
    return found


def _weights(groups: NDArray[np.int64], power: float) -> NDArray[np.float64] | None:
    """How often each class comes: its number of images to a power."""
    if power == 0:
        return None
    return np.unique(groups, return_counts=True)[1].astype(np.float64) ** power
