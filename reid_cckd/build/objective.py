"""From `objective:` to a weighted sum of losses."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from reid_cckd import config as configuration
from reid_cckd.batch import Output
from reid_cckd.build.networks import Loaded, stage_of
from reid_cckd.config import Config, Stage
from reid_cckd.errors import ConfigError
from reid_cckd.losses import (
    MMD,
    TEACHER_LOSSES,
    Bilinear,
    CorrelationCongruenceLoss,
    CrossEntropy,
    GaussianRBF,
    HintonKD,
    Objective,
    PairMemory,
    Ramp,
    Term,
    filled,
    loss_class,
    pml_miner,
)
from reid_cckd.models import Embedder

TRIAL_ROWS = 8


@dataclass(frozen=True)
class Setting:
    """What a run has that a loss may ask for."""

    classes: list[int]
    student: Embedder
    teacher: Loaded | None
    num_images: int
    teacher_maps: bool = True  # a cached teacher's answers are vectors alone

    def known(self, stage: Stage) -> dict[str, int]:
        """Numbers under the names that arguments of losses have, for rows of that stage."""
        width = _widths(self.student, self.classes)[stage]
        found = dict.fromkeys(("width", "student_width", "embedding_size", "descriptors_dim"), width)
        if self.teacher is not None:
            found["teacher_width"] = _widths(self.teacher.network, self.teacher.classes)[stage]
        return {**found, "num_classes": len(self.classes), "num_images": self.num_images}


def build_objective(
    config: Config, classes: list[int], student: Embedder, teacher: Loaded | None, num_images: int
) -> Objective:
    """L = alpha CE + (1 - alpha) KD + beta CC + the further terms, leaving out what has no weight.

    Every term is tried on made-up outputs of the two networks: what does not fit them is known before work starts.

    Raises:
        ConfigError: names the key that is out of range, or does not fit the data, the student or the teacher.
    """
    objective, teaching = config.objective, config.teacher
    setting = Setting(classes, student, teacher, num_images, teaching is None or teaching.mode == "online")
    terms: dict[str, Term] = {}  # by their keys
    if objective.alpha > 0 and objective.cross_entropy:
        with _blaming("objective.label_smoothing"):
            terms["objective.alpha"] = Term("ce", CrossEntropy(objective.label_smoothing), objective.alpha)
    if objective.alpha < 1:
        terms["objective.alpha, KD"] = _kd(objective, setting)
    if objective.beta != 0:
        terms["objective.correlation"] = _cc(objective, setting)
    for position, term in enumerate(objective.terms):
        key = f"objective.terms.{position} ({term.name})"
        with _blaming(key):
            terms[key] = _further(term, objective, setting)
    if not terms:
        raise ConfigError("objective: every weight is 0, so there is nothing to train on")
    for key, made in terms.items():
        with _blaming(key):
            _try(made, setting)
    return Objective(list(terms.values()), gather=True)


def build_kernel(kernel: configuration.Kernel) -> Any:
    """phi of the correlation matrices."""
    options = {"normalize_embeddings": kernel.normalize}
    if kernel.name == "gaussian":
        return GaussianRBF(gamma=kernel.gamma, order=kernel.order, **options)
    return Bilinear(**options) if kernel.name == "bilinear" else MMD(**options)


def _kd(objective: configuration.Objective, setting: Setting) -> Term:
    lists = _class_lists("objective.alpha", setting, objective.shared_classes)
    with _blaming("objective.alpha, KD"):
        loss = HintonKD(objective.temperature, **lists)
    return Term("kd", loss, 1 - objective.alpha)


def _cc(objective: configuration.Objective, setting: Setting) -> Term:
    options, stage = objective.correlation, objective.correlate
    with _blaming("objective.kernel"):
        kernel = build_kernel(objective.kernel)
    with _blaming("objective.beta"):
        weight = _weight(objective.beta)
    widths = setting.known(stage)
    with _blaming("objective.correlation"):
        loss = CorrelationCongruenceLoss(
            kernel,
            within_weight=options.within_weight,
            between_weight=options.between_weight,
            project=(widths["student_width"], widths["teacher_width"]) if options.project else None,
            memory=PairMemory(options.memory, options.memory_age) if options.memory else None,
            compile=options.compile,
        )
        miner = None if options.miner is None else pml_miner(options.miner, **options.miner_options)
    return Term("cc", loss, weight, stage, miner)


def _further(term: configuration.Term, objective: configuration.Objective, setting: Setting) -> Term:
    make = loss_class(term.loss)
    learns = term.loss in TEACHER_LOSSES
    if learns and setting.teacher is None:
        raise ValueError(f"{term.loss} learns from a teacher; name its checkpoint in `teacher:`")
    stage = stage_of(term)
    options = filled(make, term.options, setting.known(stage))
    if learns and stage == "logits":
        lists = _class_lists(f"objective.terms ({term.name})", setting, objective.shared_classes and make is HintonKD)
        options = {**lists, **options}
    miner = None if term.miner is None else pml_miner(term.miner, **term.miner_options)
    return Term(term.name, make(**options), _weight(term.weight), stage, miner)


def _weight(weight: float | configuration.Ramp) -> float | Ramp:
    if isinstance(weight, float):
        return weight
    return Ramp(weight.start, weight.stop, weight.begin, weight.end, weight.shape)


def _class_lists(key: str, setting: Setting, shared_only: bool) -> dict[str, list[int]]:
    """What KD needs to be told where the label spaces differ; nothing where they agree."""
    assert setting.teacher is not None
    theirs, ours = setting.teacher.classes, setting.classes
    if theirs == ours:
        return {}
    if shared_only:
        return {"student_classes": ours, "teacher_classes": theirs}
    raise ConfigError(
        f"{key}: class scores are compared, but the teacher's head has {len(theirs)} identities and the training data "
        f"{len(ours)} ({len(set(ours) & set(theirs))} in common; {_difference(setting.teacher, ours)}). Train the "
        f"teacher on the same identities, let KD look at the common ones (objective.shared_classes: true, if an id is "
        f"the same person in both), or set alpha: 1 and distil embeddings (beta, or a mimic term)."
    )


def _difference(teacher: Loaded, ours: list[int]) -> str:
    """The first class of the teacher that is another one here, by its name if it has one."""
    for place, (label, name) in enumerate(zip(teacher.classes, teacher.names or teacher.classes, strict=True)):
        if ours[place : place + 1] != [label]:
            here = f"class {ours.index(label)} here" if label in ours else "none of the data"
            return f"{name!r} is class {place} of the teacher and {here}"
    return f"class {len(teacher.classes)} of the data is none of the teacher"


def _try(term: Term, setting: Setting) -> None:
    """One call of a copy of the loss; neither its state nor torch's generator is touched."""
    objective = Objective([replace(term, loss=copy.deepcopy(term.loss), weight=1.0)]).eval()
    rows = torch.arange(TRIAL_ROWS)
    labels, index = rows // 2 % max(len(setting.classes), 1), rows % setting.num_images
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        student = _made_up(setting.student, setting.classes)
        teacher = None if setting.teacher is None else _made_up(setting.teacher.network, setting.teacher.classes)
        if teacher is not None and not setting.teacher_maps:
            teacher = teacher._replace(feature_map=None)
        objective(student, labels, teacher, index=index)


def _made_up(network: Embedder, classes: list[int]) -> Output:
    """An output of the shapes and none of the sense of the network's."""
    width = _widths(network, classes)
    embedding, neck, logits = (torch.randn(TRIAL_ROWS, width[stage]) for stage in ("embedding", "neck", "logits"))
    feature_map = torch.randn(TRIAL_ROWS, width["feature_map"], *network.map_shape[1])
    return Output(embedding, neck, None if network.head is None else logits, feature_map)


def _widths(network: Embedder, classes: list[int]) -> dict[str, int]:
    own = {"logits": len(classes), "feature_map": network.map_shape[0]}
    return {"embedding": network.width, "neck": network.width, **own}


@contextmanager
def _blaming(key: str) -> Iterator[None]:
    """Whatever a loss, a kernel or a miner refuses was asked for by this key."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError, RuntimeError) as error:
        raise ConfigError(f"{key}: {error}") from error
