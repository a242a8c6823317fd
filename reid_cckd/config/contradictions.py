"""Values and combinations of values that cannot be run, found before anything is read."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from reid_cckd.config.schema import Config, Ramp, Sampler, Teacher
from reid_cckd.config.tree import join


def contradictions(config: Config) -> Iterator[tuple[str, str]]:
    """(key path, what is wrong and what to do) for each value or combination that cannot be run."""
    yield from _ranges(config)
    yield from _teacher_contradictions(config)
    yield from _task_contradictions(config)
    yield from _term_contradictions(config)
    if config.optim.schedule == "multistep" and not config.optim.milestones:
        yield "optim.milestones", "the multistep schedule needs its epochs, for example [40, 70]"
    if 0 < config.optim.lr < config.optim.min_lr:
        yield "optim.min_lr", f"{config.optim.min_lr:g} is where the schedule ends, above optim.lr {config.optim.lr:g}"
    if config.train.cuda_graph and config.train.chunk is not None:
        yield "train.cuda_graph", "records a batch in one piece, train.chunk computes it in several; set one of the two"
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


COMPARISONS = {"at_least": operator.ge, "above": operator.gt, "at_most": operator.le, "below": operator.lt}


def _ranges(section: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Whatever is out of the bounds that its field names."""
    for one in fields(section):
        key, value = join(prefix, one.name), getattr(section, one.name)
        values = value if isinstance(value, tuple) else (value,)
        if is_dataclass(value):
            yield from _ranges(value, key)
        elif one.metadata and value is not None and not (values and all(_is_inside(it, one.metadata) for it in values)):
            bounds = " and ".join(f"{name.replace('_', ' ')} {limit:g}" for name, limit in one.metadata.items())
            yield key, f"must be {bounds}, is {list(value) if isinstance(value, tuple) else value}"


def _is_inside(value: float, bounds: Mapping[str, float]) -> bool:
    return all(COMPARISONS[name](value, limit) for name, limit in bounds.items())


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


def _task_contradictions(config: Config) -> Iterator[tuple[str, str]]:
    evaluation = config.evaluation
    if evaluation.task == "classification" and not config.objective.cross_entropy:
        yield "objective.cross_entropy", "is what trains the class head that classification is judged by; leave it true"
    if (evaluation.task == "verification") != bool(evaluation.pairs):
        yield "evaluation.pairs", "names the files of task: verification, and of no other; give both or neither"
    if (evaluation.task == "identification") != (evaluation.benchmark is not None):
        yield "evaluation.benchmark", "is the folder of task: identification, and of no other; give both or neither"
    if evaluation.task in ("identification", "recall") and 1 not in evaluation.ranks:
        yield "evaluation.ranks", f"must hold 1: checkpoints of task: {evaluation.task} are chosen by the first place"
    for name, path in evaluation.pairs.items():
        if not isinstance(path, str):
            yield f"evaluation.pairs.{name}", f"expected the path of a .bin, found {path!r}"


def _term_contradictions(config: Config) -> Iterator[tuple[str, str]]:
    weights = {f"objective.terms.{place}.weight": term.weight for place, term in enumerate(config.objective.terms)}
    for key, weight in {"objective.beta": config.objective.beta, **weights}.items():
        if min([weight.start, weight.stop] if isinstance(weight, Ramp) else [weight]) < 0:
            yield key, "below 0 a loss is made larger, not smaller; expected 0 or more"
    taken = {"ce", "kd", "cc", "loss"}
    for position, term in enumerate(config.objective.terms):
        if term.name in taken:
            yield (
                f"objective.terms.{position}.name",
                f"{term.name!r} is taken; names are unique, and not ce, kd, cc or loss",
            )
        taken.add(term.name)
