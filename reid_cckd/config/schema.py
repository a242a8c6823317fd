"""Every key a configuration may have, with its default, and the combinations that make no sense."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Stage = Literal["embedding", "neck", "logits", "feature_map"]


@dataclass(frozen=True)
class Ramp:
    """A weight that moves from ``start`` to ``stop`` between two fractions of the training."""

    start: float
    stop: float
    begin: float = 0.0
    end: float = 1.0
    shape: Literal["linear", "cosine"] = "linear"


@dataclass(frozen=True)
class Data:
    """Which images, how they are decoded and augmented."""

    root: str
    dataset: str = "msmt17"
    image_size: tuple[int, int] = (256, 128)  # height, width
    use_val: bool = True  # MSMT17: train on list_train + list_val, as its protocol does
    augment: str | list[Any] = "reid"  # "reid", "none", or a list of albumentations transforms
    cache: Literal["none", "memory", "packed", "device"] = "none"  # device: augmented there, batch by batch
    cache_dir: str | None = None  # of `packed`; null: .packed beside the data
    on_bad_image: Literal["error", "skip"] = "error"
    workers: int = 2


@dataclass(frozen=True)
class Sampler:
    """How a batch is drawn: `cur` = P classes x k images, `sur` = superclasses x images, or `uniform`."""

    kind: Literal["cur", "sur", "uniform"] = "cur"
    classes_per_batch: int = 16
    samples_per_class: int = 4
    superclasses_per_batch: int = 8
    samples_per_superclass: int = 8
    inner_samples_per_class: int | None = None  # of `sur`: a superclass's images come in groups of so many of a class
    superclasses: str = "teacher"  # found in its embeddings; "data": the set's own; or a .csv or .npz file
    num_superclasses: int = 64  # K of the K-means over the teacher's embeddings
    cluster_by: Literal["instance", "class centroid"] = "instance"
    refresh_every: int | None = None  # epochs after which the K-means starts from another seed
    short: Literal["replace", "cycle", "skip"] = "replace"  # what a class with fewer images than asked for does
    size_power: float = 0.0  # a class comes as often as its number of images to this power: 0 equally, 1 by size
    batch_size: int = 64  # of `uniform` only
    batches_per_epoch: int | None = None
    camera_aware: bool = False


@dataclass(frozen=True)
class Model:
    """A backbone of timm or of models/, a pooling, an optional projection to the embedding width, a neck and a head."""

    backbone: str
    pretrained: bool | str = False  # true: timm's weights; a path: a local file
    options: dict[str, Any] = field(default_factory=dict)  # passed to timm.create_model
    pooling: Literal["gap", "gem", "gdc", "flatten"] = "gap"
    embedding: int | None = None  # width; null keeps the backbone's
    neck: Literal["bn", "none"] = "bn"


@dataclass(frozen=True)
class Teacher:
    """A checkpoint of this toolkit; its architecture and its normalisation are read from it."""

    checkpoint: str
    mode: Literal["online", "clean", "views"] = "online"  # asked at every step, or answers kept on disk
    views: int = 8  # of `views`: augmentations of each image; epoch e shows number e mod views to both networks
    cache: str | None = None  # folder of the answers; null: beside the checkpoint
    cache_dtype: Literal["float16", "float32"] = "float16"
    allow_weak: bool = False  # go on with a teacher that scores no better than chance


@dataclass(frozen=True)
class Kernel:
    """phi of the correlation matrix; ``order: null`` is the exact Gaussian RBF."""

    name: Literal["gaussian", "bilinear", "mmd"] = "gaussian"
    gamma: float | Literal["median"] = 0.4
    order: int | None = 2
    normalize: bool = True  # rows to length 1 first; the Gaussian needs it


@dataclass(frozen=True)
class Correlation:
    """Which pairs the correlation term sees, and how they count."""

    within_weight: float = 1.0  # of pairs of one identity
    between_weight: float = 1.0  # of pairs of two
    project: bool = False  # a linear layer on the student's side, trained with it, to the teacher's width
    memory: int = 0  # past rows that each batch is correlated with too
    memory_age: int | None = None  # steps after which these are forgotten
    miner: str | None = None  # of PML; only the pairs it lists count
    miner_options: dict[str, Any] = field(default_factory=dict)
    compile: bool = False  # faster; needs a C++ compiler on CPU


@dataclass(frozen=True)
class Term:
    """A further weighted loss: a name of `reid_cckd.losses.LOSSES`, or any loss class of PML.

    ``on: null`` is where the loss belongs: logits for cross_entropy, kd and dist, the feature map for attention and
    fitnet, the embedding for all others. Widths and numbers of classes and images that a loss asks for are filled in.
    """

    name: str
    loss: str
    weight: float | Ramp = 1.0
    on: Stage | None = None
    options: dict[str, Any] = field(default_factory=dict)
    miner: str | None = None
    miner_options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Objective:
    """L = alpha CE + (1 - alpha) KD + beta CC (+ terms). Without a teacher: alpha 1 and beta 0."""

    alpha: float = 1.0
    beta: float | Ramp = 0.0
    cross_entropy: bool = True  # false: a term takes the place of CE, such as a margin softmax
    label_smoothing: float = 0.0
    temperature: float = 4.0
    shared_classes: bool = False  # KD over the identities (by their ids) that teacher and training data share
    kernel: Kernel = field(default_factory=Kernel)
    correlate: Literal["embedding", "neck", "logits"] = "neck"  # where the correlation matrices are taken
    correlation: Correlation = field(default_factory=Correlation)
    terms: tuple[Term, ...] = ()


@dataclass(frozen=True)
class Optim:
    """timm's optimiser and scheduler by their timm names; epochs may be fractions."""

    name: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 5e-4
    options: dict[str, Any] = field(default_factory=dict)
    schedule: Literal["cosine", "multistep", "poly", "constant"] = "cosine"
    milestones: tuple[int, ...] = ()  # epochs, of `multistep`
    decay_rate: float = 0.1
    warmup_epochs: int = 1
    min_lr: float = 0.0


@dataclass(frozen=True)
class Train:
    """The loop."""

    epochs: int = 60
    device: str = "auto"
    amp: Literal["auto", "off", "bfloat16"] = "auto"  # auto: bfloat16 where the device computes in it
    ema: float | None = None  # decay of the averaged weights, which are then what is evaluated
    clip_norm: float | None = None
    chunk: int | None = None  # images whose graph is held at once; null: the whole batch
    sync_bn: bool = False  # batch norms of several processes see the whole batch; on GPUs
    compile: bool = False  # torch.compile the student
    channels_last: bool = False  # memory order of images and convolutions
    evaluate_every: int = 10  # epochs; the last is always evaluated
    checkpoint_every: int = 500  # steps; every epoch's end is always saved


@dataclass(frozen=True)
class Evaluation:
    """The protocol, recorded with every result."""

    task: Literal["retrieval", "classification", "verification"] = "retrieval"
    pairs: dict[str, str] = field(default_factory=dict)  # of verification: name -> an LFW-type .bin
    convention: Literal["torchreid", "market1501"] = "torchreid"
    cameras: Literal["exclude-same", "ignore"] = "exclude-same"
    ranks: tuple[int, ...] = (1, 5, 10)
    on: Literal["embedding", "neck"] = "neck"
    flip: bool = True  # average the embeddings of the image and its mirror (not in classification)
    top: tuple[int, ...] = (1, 5)  # of classification: the true class among so many
    batch_size: int = 128
    sheet_rows: int = 12  # queries on the picture sheet; 0 draws none


@dataclass(frozen=True)
class Config:
    """One run."""

    output: str
    data: Data
    model: Model
    seed: int = 0
    teacher: Teacher | None = None
    sampler: Sampler = field(default_factory=Sampler)
    objective: Objective = field(default_factory=Objective)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    evaluation: Evaluation = field(default_factory=Evaluation)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """(key path, what is wrong and what to do) for each value or combination that cannot be run."""
        yield from _ranges(self)
        yield from _teacher_contradictions(self)
        yield from _task_contradictions(self.evaluation)
        yield from _device_contradictions(self)
        yield from _term_contradictions(self)
        if self.optim.schedule == "multistep" and not self.optim.milestones:
            yield "optim.milestones", "the multistep schedule needs its epochs, for example [40, 70]"
        yield from _sampler_contradictions(self.sampler)


def _sampler_contradictions(sampler: Sampler) -> Iterator[tuple[str, str]]:
    if sampler.kind == "cur" and sampler.samples_per_class == 1:
        yield (
            "sampler.samples_per_class",
            "1 puts no two images of a person in a batch; set 2 or more, or kind: uniform",
        )
    if sampler.camera_aware and sampler.kind != "cur":
        yield "sampler.camera_aware", "only the cur sampler draws by camera; set sampler.kind: cur"
    default = Sampler()
    for key in ("inner_samples_per_class", "superclasses", "refresh_every"):
        if sampler.kind != "sur" and getattr(sampler, key) != getattr(default, key):
            yield f"sampler.{key}", "is of the sur sampler; set sampler.kind: sur"
    if sampler.superclasses not in ("teacher", "data") and not sampler.superclasses.endswith((".csv", ".npz")):
        yield "sampler.superclasses", f"expected teacher, data, or a .csv or .npz file, found {sampler.superclasses!r}"
    if sampler.refresh_every is not None and sampler.superclasses != "teacher":
        yield "sampler.refresh_every", "given superclasses do not change; leave it out or set superclasses: teacher"
    if sampler.refresh_every is not None and sampler.size_power != 0:
        yield (
            "sampler.size_power",
            "follows the sizes of superclasses, which refresh_every changes; keep one of the two",
        )
    inner = sampler.inner_samples_per_class
    if inner is not None and inner > 0 and sampler.samples_per_superclass % inner:
        yield (
            "sampler.inner_samples_per_class",
            f"samples_per_superclass {sampler.samples_per_superclass} is no multiple of {inner}",
        )
    if sampler.kind == "uniform" and (sampler.short, sampler.size_power) != (default.short, default.size_power):
        yield "sampler.kind", "uniform knows no classes: short and size_power are of cur and sur"


def _ranges(config: Config) -> Iterator[tuple[str, str]]:
    at_least = {
        "data.workers": (config.data.workers, 0),
        "sampler.classes_per_batch": (config.sampler.classes_per_batch, 1),
        "sampler.samples_per_class": (config.sampler.samples_per_class, 1),
        "sampler.superclasses_per_batch": (config.sampler.superclasses_per_batch, 1),
        "sampler.samples_per_superclass": (config.sampler.samples_per_superclass, 1),
        "sampler.num_superclasses": (config.sampler.num_superclasses, 1),
        "sampler.inner_samples_per_class": (
            1 if config.sampler.inner_samples_per_class is None else config.sampler.inner_samples_per_class,
            1,
        ),
        "sampler.refresh_every": (1 if config.sampler.refresh_every is None else config.sampler.refresh_every, 1),
        "sampler.batch_size": (config.sampler.batch_size, 2),
        "optim.warmup_epochs": (config.optim.warmup_epochs, 0),
        "train.chunk": (config.train.chunk if config.train.chunk is not None else 2, 2),
        "teacher.views": (config.teacher.views if config.teacher else 1, 1),
        "train.epochs": (config.train.epochs, 1),
        "train.evaluate_every": (config.train.evaluate_every, 1),
        "train.checkpoint_every": (config.train.checkpoint_every, 1),
        "evaluation.batch_size": (config.evaluation.batch_size, 1),
        "evaluation.sheet_rows": (config.evaluation.sheet_rows, 0),
        "objective.correlation.memory": (config.objective.correlation.memory, 0),
        "seed": (config.seed, 0),
    }
    for key, (value, lowest) in at_least.items():
        if value < lowest:
            yield key, f"must be at least {lowest}, is {value}"
    if min(config.data.image_size) < 8:
        yield (
            "data.image_size",
            f"(height, width) must be at least 8 x 8, is {list(config.data.image_size)}",
        )
    if config.optim.lr <= 0:
        yield "optim.lr", f"must be above 0, is {config.optim.lr}"
    if config.train.ema is not None and not 0 < config.train.ema < 1:
        yield "train.ema", f"is the decay of an average and lies between 0 and 1, is {config.train.ema}"
    if not 0 <= config.objective.alpha <= 1:
        yield "objective.alpha", f"must lie in [0, 1], is {config.objective.alpha}"
    if config.objective.temperature <= 0:
        yield "objective.temperature", f"must be above 0, is {config.objective.temperature}"
    if not config.evaluation.ranks or min(config.evaluation.ranks) < 1:
        yield "evaluation.ranks", f"must be ranks from 1 up, is {list(config.evaluation.ranks)}"


def _teacher_contradictions(config: Config) -> Iterator[tuple[str, str]]:
    objective = config.objective
    if config.teacher is None:
        if objective.alpha != 1:
            yield (
                "objective.alpha",
                f"{objective.alpha} leaves weight for KD, which needs `teacher:`; set 1 or name one",
            )
        if objective.beta != 0:
            yield "objective.beta", "the correlation term needs `teacher:`; set beta: 0 or name one"
        if config.sampler.kind == "sur" and config.sampler.superclasses == "teacher":
            yield "sampler.kind", "sur clusters the teacher's embeddings and needs `teacher:`, or sampler.superclasses"
    elif objective.alpha == 1 and objective.beta == 0 and not objective.terms:
        yield (
            "teacher",
            "is not used: lower objective.alpha (KD), raise objective.beta (CC) or add a term",
        )
    if config.teacher is not None and config.teacher.mode != "online":
        yield from _cache_contradictions(config, config.teacher)


def _cache_contradictions(config: Config, teacher: Teacher) -> Iterator[tuple[str, str]]:
    for row, term in enumerate(config.objective.terms):
        if term.on == "feature_map":
            yield (
                f"objective.terms.{row}.on",
                f"teacher.mode: {teacher.mode} keeps no feature maps; set teacher.mode: online or another stage",
            )
    if teacher.mode == "views" and config.data.augment in ("none", [], ()):
        yield "teacher.mode", "without data.augment all views are the same; set mode: clean"


def _device_contradictions(config: Config) -> Iterator[tuple[str, str]]:
    if config.evaluation.task == "classification" and not config.objective.cross_entropy:
        yield "objective.cross_entropy", "is what trains the class head that classification is judged by; leave it true"
    if config.data.cache == "device" and config.teacher is not None and config.teacher.mode == "views":
        yield "teacher.mode", "views are made of single images, data.cache: device draws others; set one of the two"


def _task_contradictions(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    if (evaluation.task == "verification") != bool(evaluation.pairs):
        yield "evaluation.pairs", "names the files of task: verification, and of no other; give both or neither"
    for name, path in evaluation.pairs.items():
        if not isinstance(path, str):
            yield f"evaluation.pairs.{name}", f"expected the path of a .bin, found {path!r}"
    if not evaluation.top or min(evaluation.top) < 1:
        yield "evaluation.top", f"must be numbers from 1 up, is {list(evaluation.top)}"


def _term_contradictions(config: Config) -> Iterator[tuple[str, str]]:
    taken = {"ce", "kd", "cc", "loss"}
    for position, term in enumerate(config.objective.terms):
        if term.name in taken:
            yield (
                f"objective.terms.{position}.name",
                f"{term.name!r} is taken; names are unique, and not ce, kd, cc or loss",
            )
        taken.add(term.name)
