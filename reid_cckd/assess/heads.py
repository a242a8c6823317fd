"""Whether a teacher's class scores are about the classes of the data: equal ids need not be the same people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from reid_cckd.assess.classification import ClassificationJudge
from reid_cckd.build import precision
from reid_cckd.build.networks import stage_of
from reid_cckd.config import Config, Objective
from reid_cckd.data import Manifest
from reid_cckd.losses import TEACHER_LOSSES

LOOKED_AT = 256  # training images


def asks_for_scores(objective: Objective) -> bool:
    """Whether a student learns from what its teacher's head says."""
    terms = [term for term in objective.terms if term.loss in TEACHER_LOSSES]
    return objective.alpha < 1 or any(stage_of(term) == "logits" for term in terms)


def head_judge(
    config: Config, train: Manifest, classes: Sequence[int], device: torch.device
) -> ClassificationJudge | None:
    """Who scores a head of these classes on some training images of them; None where there are none."""
    known = np.flatnonzero(np.isin(train.labels, classes))
    if not len(known):
        return None
    some = train.take(known[np.linspace(0, len(known) - 1, min(LOOKED_AT, len(known))).astype(np.int64)])
    held = replace(some, roles=np.full(len(some), "test"))
    settings = replace(config.evaluation, top=(1,))
    judge = ClassificationJudge(held, settings, config.data, device, precision(config, device))
    return judge.for_classes(classes)
