"""Values and combinations of values that cannot be run, found before anything is read."""

from __future__ import annotations

from collections.abc import Iterator

from reid_cckd.config.schema import Config, Evaluation, Sampler, Teacher


def contradictions(config: Config) -> Iterator[tuple[str, str]]:
    """(key path, what is wrong and what to do) for each value or combination that cannot be run."""
    yield from _ranges(config)
    yield from _teacher_contradictions(config)
    yield from _task_contradictions(config.evaluation)
    yield from _device_contradictions(config)
    yield from _term_contradictions(config)
    if config.optim.schedule == "multistep" and not config.optim.milestones:
        yield "optim.milestones", "the multistep schedule needs its epochs, for example [40, 70]"
    yield from _sampler_contradictions(config.sampler)


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
    if config.teacher is not None and bool(config.teacher.checkpoint) == bool(config.teacher.backbone):
        yield "teacher", "name either the checkpoint of a run, or the backbone of a published classifier"
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
    if (evaluation.task == "identification") != (evaluation.benchmark is not None):
        yield "evaluation.benchmark", "is the folder of task: identification, and of no other; give both or neither"
    if evaluation.task in ("identification", "recall") and 1 not in evaluation.ranks:
        yield "evaluation.ranks", f"must hold 1: checkpoints of task: {evaluation.task} are chosen by the first place"
    if not evaluation.scales or min(evaluation.scales) < 1:
        yield "evaluation.scales", f"must be numbers from 1 up, is {list(evaluation.scales)}"
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
