"""From a whole configuration to a run that can start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import Optimizer

from reid_cckd import config as configuration
from reid_cckd.build.data import device_images, image_dataset
from reid_cckd.build.labels import check_labels_suffice
from reid_cckd.build.networks import Loaded, build_network, place, precision
from reid_cckd.build.numbering import Numbering
from reid_cckd.build.objective import build_objective
from reid_cckd.build.sampling import build_sampler
from reid_cckd.build.teaching import build_teacher
from reid_cckd.config import Config
from reid_cckd.data import DeviceImages, ImageDataset, Manifest, collate, limit_threads
from reid_cckd.engine import (
    DirectFeed,
    Feed,
    Trainer,
    create_optimizer,
    create_schedule,
    moves_rows_apart,
    rank,
    world_size,
)
from reid_cckd.errors import ConfigError
from reid_cckd.losses import Objective
from reid_cckd.models import Embedder, Teacher

LOOK_EVERY = 20  # steps after which an accelerator is asked for the losses: asking waits for it


class Evaluate(Protocol):
    """Scores a network; ``main`` names the score by which the best checkpoint is chosen."""

    @property
    def main(self) -> str: ...
    def __call__(self, network: nn.Module) -> dict[str, float]: ...


def build_trainer(
    config: Config,
    manifest: Manifest,
    teacher: Loaded | None,
    device: torch.device,
    evaluate: Evaluate,
    began: Numbering | None = None,
) -> Trainer:
    """Everything one run needs, from its configuration and data; ``began``: that of a run that goes on.

    Raises:
        ConfigError: names the key that asks for something that does not fit the data or the teacher.
        DataError: the images are not those that the run began with, or too many of them are damaged.
    """
    folder = Path(config.output)
    labels, classes = manifest.contiguous_labels()
    check_labels_suffice(config, labels)
    dataset = _training_images(config, manifest, labels, began)
    numbering = began or Numbering.of(manifest, dataset)
    student = _prepared(build_network(config, len(classes)), config, device)
    frozen = None if teacher is None else place(Teacher(teacher.network), config, device)
    objective = build_objective(config, classes.tolist(), student, teacher, len(manifest)).to(device)
    held = device_images(dataset, config.data, config.seed, device) if config.data.cache == "device" else None
    feed = _feed(config, dataset, held, _divisible(build_sampler(config, dataset, frozen, device)), device)
    if rank() > 0:  # networks begin alike on all processes, but dropout does not go on alike
        torch.manual_seed(config.seed + rank())
    optim, optimizer = config.optim, _optimizer(config, student, objective)
    return Trainer(
        folder=folder,
        student=student,
        teacher=None
        if frozen is None or teacher is None
        else build_teacher(config, teacher, frozen, dataset, numbering, device, held),
        objective=objective,
        data=feed,
        optimizer=optimizer,
        schedule=create_schedule(
            optimizer,
            optim.schedule,
            epochs=config.train.epochs,
            steps_per_epoch=len(feed),
            warmup_epochs=optim.warmup_epochs,
            min_lr=optim.min_lr,
            milestones=optim.milestones,
            decay_rate=optim.decay_rate,
        ),
        average=_average(student, config.train.ema),
        evaluate=evaluate,
        main_score=evaluate.main,
        device=device,
        precision=precision(config, device),
        epochs=config.train.epochs,
        meta={
            "config": configuration.to_dict(config),
            "classes": classes.tolist(),
            "class_names": [] if student.head is None else manifest.names_of(classes),
            "numbering": numbering.to_dict(),
            "teacher_sha256": None if teacher is None else teacher.sha256,
        },
        clip_norm=config.train.clip_norm,
        chunk=config.train.chunk,
        compiled=config.train.compile,
        recorded=_recorded(config, objective, device),
        look_every=1 if device.type == "cpu" else LOOK_EVERY,
        evaluate_every=config.train.evaluate_every,
        checkpoint_every=config.train.checkpoint_every,
    )


def rehearse(config: Config, manifest: Manifest, teacher: Loaded | None) -> None:
    """Build once what needs no look at an image, so that a mistake shows before the teacher is judged and asked.

    Raises:
        ConfigError: names the key that asks for something that does not fit.
    """
    labels, classes = manifest.contiguous_labels()
    check_labels_suffice(config, labels)
    with torch.random.fork_rng(devices=[]):
        student = build_network(config, len(classes))
        objective = build_objective(config, classes.tolist(), student, teacher, len(manifest))
    _optimizer(config, student, objective)
    if config.sampler.kind != "sur":  # which asks the teacher
        unread = replace(config.data, cache="none", on_bad_image="error")
        build_sampler(config, image_dataset(manifest, labels, unread), None, torch.device("cpu"))


def _training_images(
    config: Config, manifest: Manifest, labels: NDArray[np.int64], began: Numbering | None
) -> ImageDataset:
    """Every image under the number that it had when the run began."""
    if began is not None:
        began.check(manifest)
    views = config.teacher.views if config.teacher and config.teacher.mode == "views" else None
    left_out = None if began is None else began.left_out
    options: dict[str, Any] = {"augment": True, "seed": config.seed, "views": views, "left_out": left_out}
    return image_dataset(manifest, labels, config.data, **options)


def _optimizer(config: Config, student: nn.Module, objective: Objective) -> Optimizer:
    optim = config.optim
    settings = optim.name, optim.lr, optim.weight_decay, optim.options
    if objective.shards() and not moves_rows_apart(*settings):
        raise ConfigError(
            f"optim.name: {optim.name} looks at a whole weight to move a part of it, and a term shares its weights out "
            f"between processes. Take an optimiser that does not, such as sgd or adamw, or leave out shard: true."
        )
    return create_optimizer([student, objective], *settings)


def _prepared(student: Embedder, config: Config, device: torch.device) -> Embedder:
    """The student in its place, with the batch norms that are asked for."""
    if config.train.sync_bn and world_size() > 1:
        if device.type != "cuda":
            raise ConfigError("train.sync_bn: torch has it for GPUs only; set it to false on the CPU")
        student = nn.SyncBatchNorm.convert_sync_batchnorm(student)
    return place(student, config, device)


def _recorded(config: Config, objective: Objective, device: torch.device) -> bool:
    """Whether steps are recorded, as is asked for, and can be; elsewhere than on a GPU the wish means nothing."""
    if not config.train.cuda_graph or device.type != "cuda":
        return False
    if world_size() > 1:
        raise ConfigError("train.cuda_graph: a step of several processes is not recorded; set it to false")
    if changing := objective.changing():
        raise ConfigError(
            f"train.cuda_graph: {', '.join(changing)} computes something else in every step, by a ramp, a miner or a "
            f"memory, and a recording would repeat the first; set it to false"
        )
    return True


def _divisible(sampler: Any) -> Any:
    """The sampler, if every process can have an equal part of each of its batches."""
    size, processes = sampler.batch_size, world_size()
    if size % processes or size < 2 * processes:
        raise ConfigError(
            f"sampler: a batch of {size} images cannot be split over {processes} processes; each needs as many as the "
            f"others, and 2 or more. Change the sampler's numbers, or the number of processes."
        )
    return sampler


def _feed(
    config: Config, dataset: ImageDataset, held: DeviceImages | None, sampler: Any, device: torch.device
) -> Feed | DirectFeed:
    """Batches by workers, or on the device itself."""

    def name_of(row: int) -> str:
        return str(dataset.manifest.path(row))

    if held is not None:
        return DirectFeed(held.batches, sampler, name_of)
    pin = device.type == "cuda"
    if config.data.on_bad_image == "skip":
        dataset = dataset.forgiving()
    return Feed(dataset, sampler, collate, name_of, config.data.workers, pin_memory=pin, worker_init=limit_threads)


def _average(student: nn.Module, decay: float | None) -> ModelEmaV3 | None:
    return None if decay is None else ModelEmaV3(student, decay=decay, use_warmup=True)
