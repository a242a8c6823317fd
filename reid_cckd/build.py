"""The hall: the only place where a name in a configuration becomes an object."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.data import DataLoader

from reid_cckd import config as configuration
from reid_cckd.config import Config, hint
from reid_cckd.data import LAYOUTS, ImageDataset, Manifest, build_augment, collate, limit_threads
from reid_cckd.engine import (
    Feed,
    Trainer,
    autocast,
    create_optimizer,
    create_schedule,
    extract,
    file_hash,
    load_checkpoint,
)
from reid_cckd.errors import CheckpointError, ConfigError
from reid_cckd.losses import (
    LABEL_LOSSES,
    LOSSES,
    MMD,
    Bilinear,
    CorrelationCongruenceLoss,
    GaussianRBF,
    Objective,
    Ramp,
    Term,
    pml_loss,
    pml_miner,
)
from reid_cckd.models import Embedder, Teacher
from reid_cckd.samplers import (
    ClassUniformSampler,
    Superclasses,
    SuperclassUniformSampler,
    UniformSampler,
    build_superclasses,
)


@dataclass(frozen=True)
class Loaded:
    """A network from a checkpoint and what it was made with."""

    network: Embedder
    config: Config
    classes: list[int]  # the person ids of its class head, in order
    sha256: str


def read_manifest(data: configuration.Data) -> Manifest:
    """The table of images of a configuration.

    Raises:
        ConfigError: no layout of that name. DataError: the files on disk are not what the layout expects.
    """
    if data.dataset not in LAYOUTS:
        raise ConfigError(f"data.dataset: no layout {data.dataset!r}.{hint(data.dataset, LAYOUTS)}")
    options = {"use_val": data.use_val} if data.dataset == "msmt17" else {}
    return LAYOUTS[data.dataset](Path(data.root), **options)


def build_network(config: Config, num_classes: int, pretrained: bool = True) -> Embedder:
    """The network of ``config.model``; ``pretrained=False`` leaves weights out that a checkpoint will replace."""
    model = config.model
    return Embedder(
        model.backbone,
        image_size=config.data.image_size,
        num_classes=num_classes,
        pretrained=model.pretrained if pretrained else False,
        options=model.options,
        pooling=model.pooling,
        embedding=model.embedding,
        neck=model.neck,
    )


def load_network(path: str | Path) -> Loaded:
    """The network of a checkpoint of `train`: of last.pt the averaged weights where an average was kept.

    Raises:
        CheckpointError: the file is damaged, or its weights do not fit its own configuration.
    """
    content = load_checkpoint(path)
    config = configuration.config_from_dict(content["config"], str(path))
    network = build_network(config, len(content["classes"]), pretrained=False)
    try:
        network.load_state_dict(content.get("average") or content["model"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path}: its weights are of another architecture than its configuration: {reason}"
        ) from error
    return Loaded(network, config, content["classes"], file_hash(path))


def build_trainer(
    config: Config,
    manifest: Manifest,
    teacher: Loaded | None,
    device: torch.device,
    evaluate: Any,
) -> Trainer:
    """Everything one run needs, from its configuration and data.

    Raises:
        ConfigError: names the key that asks for something that does not fit the data or the teacher.
    """
    folder = Path(config.output)
    labels, classes = manifest.contiguous_labels()
    dataset = image_dataset(manifest, labels, config.data, augment=True, seed=config.seed)
    student = build_network(config, len(classes)).to(device)
    frozen = None if teacher is None else Teacher(teacher.network).to(device)
    objective = build_objective(config, classes.tolist(), student, teacher).to(device)
    feed = Feed(
        dataset,
        build_sampler(config, dataset, frozen, device),
        collate,
        name_of=lambda row: str(dataset.manifest.path(row)),
        workers=config.data.workers,
        pin_memory=device.type == "cuda",
        worker_init=limit_threads,
    )
    optim = config.optim
    networks: list[nn.Module] = [student, objective]
    optimizer = create_optimizer(networks, optim.name, optim.lr, optim.weight_decay, optim.options)
    return Trainer(
        folder=folder,
        student=student,
        teacher=frozen,
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
        device=device,
        precision=precision(config, device),
        epochs=config.train.epochs,
        meta={"config": configuration.to_dict(config), "classes": classes.tolist()},
        clip_norm=config.train.clip_norm,
        evaluate_every=config.train.evaluate_every,
        checkpoint_every=config.train.checkpoint_every,
    )


def precision(config: Config, device: torch.device) -> partial[AbstractContextManager[object]]:
    """Makes the context of a forward pass."""
    return partial(autocast, device, config.train.amp)


def _average(student: nn.Module, decay: float | None) -> ModelEmaV3 | None:
    return None if decay is None else ModelEmaV3(student, decay=decay, use_warmup=True)


def image_dataset(
    manifest: Manifest, labels: NDArray[np.int64], data: configuration.Data, augment: bool = False, seed: int = 0
) -> ImageDataset:
    """The images of a manifest as ``data`` asks for them; those that are skipped as damaged are printed."""
    dataset = ImageDataset(
        manifest,
        labels,
        data.image_size,
        augment=build_augment(data.augment, data.image_size) if augment else None,
        seed=seed,
        on_bad_image=data.on_bad_image,
        cache=data.cache,
    )
    for bad in dataset.bad:
        print(f"skipped, damaged: {manifest.path(bad.row)}: {bad.reason}")
    return dataset


def plain_loader(dataset: ImageDataset, batch_size: int, workers: int) -> DataLoader[Any]:
    """Every image once, in order."""
    return DataLoader(
        dataset, batch_size=batch_size, num_workers=workers, collate_fn=collate, worker_init_fn=limit_threads
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


def build_objective(config: Config, classes: list[int], student: Embedder, teacher: Loaded | None) -> Objective:
    """L = alpha CE + (1 - alpha) KD + beta CC + the further terms, leaving out what has no weight."""
    objective = config.objective
    terms: list[Term] = []
    if objective.alpha > 0:
        terms.append(
            Term("ce", LOSSES["cross_entropy"](label_smoothing=objective.label_smoothing), objective.alpha, "logits")
        )
    if objective.alpha < 1:
        _check_label_spaces(classes, teacher)
        terms.append(
            Term(
                "kd", LOSSES["kd"](temperature=objective.temperature), 1 - objective.alpha, "logits", needs_teacher=True
            )
        )
    if objective.beta != 0:
        kernel = CorrelationCongruenceLoss(distance=build_kernel(objective.kernel))
        terms.append(Term("cc", kernel, _weight(objective.beta), objective.correlate, needs_teacher=True))
    terms.extend(_term(position, term) for position, term in enumerate(objective.terms))
    if not terms:
        raise ConfigError("objective: every weight is 0, so there is nothing to train on")
    return Objective(terms)


def build_kernel(kernel: configuration.Kernel) -> Any:
    """phi of the correlation matrices."""
    if kernel.name == "gaussian":
        return GaussianRBF(gamma=kernel.gamma, order=kernel.order)
    return Bilinear() if kernel.name == "bilinear" else MMD()


def _term(position: int, term: configuration.Term) -> Term:
    key = f"objective.terms.{position}"
    try:
        make = LOSSES[term.loss] if term.loss in LOSSES else partial(pml_loss, term.loss)
        loss = make(**term.options)
        miner = None if term.miner is None else pml_miner(term.miner, **term.miner_options)
    except (ValueError, TypeError) as error:
        ours = "" if term.loss in LOSSES else f" Losses of this toolkit: {', '.join(sorted(LOSSES))}."
        raise ConfigError(f"{key} ({term.name}): {error}{ours}") from error
    learns = term.loss in LOSSES.keys() - LABEL_LOSSES
    return Term(term.name, loss, _weight(term.weight), term.on, miner, needs_teacher=learns)


def _weight(weight: float | configuration.Ramp) -> float | Ramp:
    if isinstance(weight, float):
        return weight
    return Ramp(weight.start, weight.stop, weight.begin, weight.end, weight.shape)


def _check_label_spaces(classes: list[int], teacher: Loaded | None) -> None:
    assert teacher is not None
    if teacher.classes != classes:
        shared = len(set(classes) & set(teacher.classes))
        raise ConfigError(
            f"objective.alpha: KD compares class scores, but the teacher's head has {len(teacher.classes)} identities "
            f"and the training data {len(classes)} ({shared} in common). Train the teacher on the same identities, or "
            f"set alpha: 1 and distil embeddings (beta, or a mimic term)."
        )
