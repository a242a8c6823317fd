"""From `objective:` to a weighted sum of losses."""

from __future__ import annotations

from functools import partial
from typing import Any

from reid_cckd import config as configuration
from reid_cckd.build.networks import Loaded
from reid_cckd.config import Config
from reid_cckd.errors import ConfigError
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
from reid_cckd.models import Embedder


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
