"""From `sampler:` to batches of row numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from reid_cckd.build.data import image_dataset, plain_loader
from reid_cckd.build.networks import precision
from reid_cckd.config import Config
from reid_cckd.data import ImageDataset
from reid_cckd.engine import extract
from reid_cckd.errors import ConfigError
from reid_cckd.models import Teacher
from reid_cckd.samplers import (
    ClassUniformSampler,
    Superclasses,
    SuperclassUniformSampler,
    UniformSampler,
    build_superclasses,
)


def build_sampler(config: Config, dataset: ImageDataset, teacher: Teacher | None, device: torch.device) -> Any:
    """The batch sampler of ``config.sampler`` over the images that can be read."""
    sampler = config.sampler
    common: dict[str, Any] = {"seed": config.seed, "batches_per_epoch": sampler.batches_per_epoch}
    try:
        if sampler.kind == "uniform":
            return UniformSampler(dataset.labels, sampler.batch_size, **common)
        if sampler.kind == "cur":
            cameras = dataset.manifest.cameras if sampler.camera_aware else None
            return ClassUniformSampler(
                dataset.labels, sampler.classes_per_batch, sampler.samples_per_class, cameras=cameras, **common
            )
        assert teacher is not None
        found = _superclasses(config, dataset, teacher, device)
        return SuperclassUniformSampler(
            found.assignments, sampler.superclasses_per_batch, sampler.samples_per_superclass, **common
        )
    except ValueError as error:
        raise ConfigError(f"sampler: {error}") from error


def _superclasses(config: Config, dataset: ImageDataset, teacher: Teacher, device: torch.device) -> Superclasses:
    """Clusters of the teacher's embeddings of the un-augmented images, found once for a run and kept beside it."""
    path = Path(config.output) / "superclasses.npz"
    if path.exists():
        return Superclasses.load(path)
    data, evaluation = config.data, config.evaluation
    plain = image_dataset(dataset.manifest, dataset.labels, data)
    batches = plain_loader(plain, evaluation.batch_size, data.workers)
    make = precision(config, device)
    vectors = extract(teacher, batches, len(plain), device=device, precision=make, on=evaluation.on)
    found = build_superclasses(
        vectors.numpy(), dataset.labels, config.sampler.num_superclasses, by=config.sampler.cluster_by, seed=config.seed
    )
    found.save(path)
    return found
