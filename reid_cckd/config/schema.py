"""Every key a configuration may have, with its default and its bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Stage = Literal["embedding", "neck", "logits", "feature_map"]


def bounded(default: Any, **bounds: float) -> Any:
    """A field whose number, or each of one or more, is ``at_least``, ``above``, ``at_most`` or ``below`` a limit."""
    return field(default=default, metadata=bounds)


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
    image_size: tuple[int, int] = bounded((256, 128), at_least=8)  # height, width
    use_val: bool = True  # MSMT17: train on list_train + list_val, as its protocol does
    augment: str | list[Any] = "reid"  # "reid", "none", or a list of albumentations transforms
    cache: Literal["none", "memory", "packed", "device"] = "none"  # device: augmented there, by other draws
    cache_dir: str | None = None  # of `packed`; null: .packed beside the data
    on_bad_image: Literal["error", "skip"] = "error"
    workers: int = bounded(2, at_least=0)


@dataclass(frozen=True)
class Sampler:
    """How a batch is drawn: `cur` = P classes x k images, `sur` = superclasses x images, or `uniform`."""

    kind: Literal["cur", "sur", "uniform"] = "cur"
    classes_per_batch: int = bounded(16, at_least=1)
    samples_per_class: int = bounded(4, at_least=1)
    superclasses_per_batch: int = bounded(8, at_least=1)
    samples_per_superclass: int = bounded(8, at_least=1)
    inner_samples_per_class: int | None = bounded(None, at_least=1)  # of `sur`: images in groups of so many of a class
    superclasses: str = "teacher"  # found in its embeddings; "data": the set's own; or a .csv or .npz file
    num_superclasses: int = bounded(64, at_least=1)  # K of the K-means over the teacher's embeddings
    cluster_by: Literal["instance", "class centroid"] = "instance"
    refresh_every: int | None = bounded(None, at_least=1)  # epochs after which the K-means starts from another seed
    short: Literal["replace", "cycle", "skip"] = "replace"  # what a class with fewer images than asked for does
    size_power: float = 0.0  # a class comes as often as its number of images to this power: 0 equally, 1 by size
    batch_size: int = bounded(64, at_least=2)  # of `uniform` only
    batches_per_epoch: int | None = bounded(None, at_least=1)
    camera_aware: bool = False


@dataclass(frozen=True)
class Model:
    """A backbone of timm or of models/, a pooling, an optional projection to the embedding width, a neck and a head."""

    backbone: str
    pretrained: bool | str = False  # true: timm's weights; a path: a local file
    options: dict[str, Any] = field(default_factory=dict)  # passed to timm.create_model
    pooling: Literal["gap", "gem", "gdc", "flatten"] = "gap"
    embedding: int | None = bounded(None, at_least=1)  # width; null keeps the backbone's
    neck: Literal["bn", "none"] = "bn"


@dataclass(frozen=True)
class Teacher:
    """A checkpoint of this toolkit, or a classifier as timm publishes it; each normalises its own input."""

    checkpoint: str | None = None
    backbone: str | None = None  # instead of a checkpoint; its classes are the data's, in order
    pretrained: bool | str = True  # of `backbone`: timm's weights, or a local file
    options: dict[str, Any] = field(default_factory=dict)  # of `backbone`, passed to timm.create_model
    image_size: tuple[int, int] | None = bounded(None, at_least=8)  # of `backbone`; null: that of the data
    mode: Literal["online", "clean", "views"] = "online"  # asked at every step, or answers kept on disk
    views: int = bounded(8, at_least=1)  # of `views`: augmentations of each image; epoch e shows number e mod views
    cache: str | None = None  # folder of the answers; null: beside the checkpoint
    cache_dtype: Literal["float16", "float32"] = "float16"
    amp: Literal["auto", "off", "bfloat16"] | None = None  # of its forward pass; null: as train.amp
    compile: bool = False  # torch.compile it: a fifth to a quarter of its time for half a minute at the start
    allow_weak: bool = False  # go on with a teacher that scores no better than chance

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.checkpoint or str(self.backbone)


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
    memory: int = bounded(0, at_least=0)  # past rows that each batch is correlated with too
    memory_age: int | None = None  # steps after which these are forgotten
    miner: str | None = None  # of PML; only the pairs it lists count
    miner_options: dict[str, Any] = field(default_factory=dict)
    compile: bool = False  # faster; needs a C++ compiler on CPU


@dataclass(frozen=True)
class Term:
    """A further weighted loss: a name of `reid_cckd.losses.LOSSES`, or any loss class of PML.

    ``on: null`` is where the loss belongs: logits for cross_entropy, kd, dist and dkd, the feature map for attention
    and fitnet, the embedding for all others. Widths and numbers of classes and images that a loss asks for are filled
    in.
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

    alpha: float = bounded(1.0, at_least=0, at_most=1)
    beta: float | Ramp = 0.0
    cross_entropy: bool = True  # false: a term takes the place of CE, such as a margin softmax
    label_smoothing: float = 0.0
    temperature: float = bounded(4.0, above=0)
    shared_classes: bool = False  # KD over the identities (by their ids) that teacher and training data share
    kernel: Kernel = field(default_factory=Kernel)
    correlate: Literal["embedding", "neck", "logits"] = "neck"  # where the correlation matrices are taken
    correlation: Correlation = field(default_factory=Correlation)
    terms: tuple[Term, ...] = ()


@dataclass(frozen=True)
class Optim:
    """timm's optimiser and scheduler by their timm names; epochs are whole ones."""

    name: str = "adamw"
    lr: float = bounded(1e-3, above=0)
    weight_decay: float = bounded(5e-4, at_least=0)
    options: dict[str, Any] = field(default_factory=dict)
    schedule: Literal["cosine", "multistep", "poly", "constant"] = "cosine"
    milestones: tuple[int, ...] = ()  # epochs, of `multistep`
    decay_rate: float = bounded(0.1, above=0)
    warmup_epochs: int = bounded(1, at_least=0)
    min_lr: float = bounded(0.0, at_least=0)


@dataclass(frozen=True)
class Train:
    """The loop."""

    epochs: int = bounded(60, at_least=1)
    device: str = "auto"
    amp: Literal["auto", "off", "bfloat16"] = "auto"  # auto: bfloat16 where the device computes in it
    ema: float | None = bounded(None, above=0, below=1)  # decay of averaged weights, which are then evaluated
    clip_norm: float | None = bounded(None, above=0)  # of the student's gradient; what losses train is not clipped
    chunk: int | None = bounded(None, at_least=2)  # images whose graph is held at once; null: the whole batch
    sync_bn: bool = False  # batch norms of several processes see the whole batch; on GPUs
    compile: bool = False  # torch.compile the student
    cuda_graph: bool = False  # on a GPU record a step once and replay it, which small networks gain much from
    channels_last: bool | None = None  # memory order of convolutions; null: on a CPU and in bfloat16, mostly faster so
    evaluate_every: int = bounded(10, at_least=1)  # epochs; the last is always evaluated
    checkpoint_every: int = bounded(500, at_least=1)  # steps; every epoch's end is always saved
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()  # where the rows of log.jsonl go as well


@dataclass(frozen=True)
class Evaluation:
    """The protocol, recorded with every result."""

    task: Literal["retrieval", "classification", "verification", "identification", "recall", "none"] = "retrieval"
    pairs: dict[str, str] = field(default_factory=dict)  # of verification: name -> an LFW-type .bin
    benchmark: str | None = None  # of identification: a folder in MegaFace's layout
    scales: tuple[int, ...] = bounded((10, 100, 1_000, 10_000, 100_000, 1_000_000), at_least=1)  # of identification
    convention: Literal["torchreid", "market1501"] = "torchreid"
    cameras: Literal["exclude-same", "ignore"] = "exclude-same"
    ranks: tuple[int, ...] = bounded((1, 5, 10), at_least=1)
    on: Literal["embedding", "neck"] = "neck"
    flip: bool = True  # add the embeddings of the image and its mirror (not in classification)
    top: tuple[int, ...] = bounded((1, 5), at_least=1)  # of classification: the true class among so many
    batch_size: int = bounded(128, at_least=1)
    sheet_rows: int = bounded(12, at_least=0)  # queries on the picture sheet; 0 draws none

    @property
    def is_scored(self) -> bool:
        """Whether there is a test set, and scores of it."""
        return self.task != "none"


@dataclass(frozen=True)
class Config:
    """One run."""

    output: str
    data: Data
    model: Model
    seed: int = bounded(0, at_least=0)
    teacher: Teacher | None = None
    sampler: Sampler = field(default_factory=Sampler)
    objective: Objective = field(default_factory=Objective)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    evaluation: Evaluation = field(default_factory=Evaluation)
