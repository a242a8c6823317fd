"""From `evaluation.task` to a judge."""

from __future__ import annotations

from typing import Any

import torch

from reid_cckd.assess.classification import ClassificationJudge
from reid_cckd.assess.identification import IdentificationJudge
from reid_cckd.assess.recall import RecallJudge
from reid_cckd.assess.retrieval import RetrievalJudge
from reid_cckd.assess.unjudged import Unjudged
from reid_cckd.assess.verdict import Judge
from reid_cckd.assess.verification import VerificationJudge
from reid_cckd.batch import Answer
from reid_cckd.build import precision
from reid_cckd.config import Config, Evaluation
from reid_cckd.data import Manifest

JUDGES: dict[str, Any] = {
    "retrieval": RetrievalJudge,
    "classification": ClassificationJudge,
    "verification": VerificationJudge,
    "identification": IdentificationJudge,
    "recall": RecallJudge,
    "none": Unjudged,
}


def build_judge(config: Config, manifest: Manifest, device: torch.device) -> Judge:
    """Who scores the networks of this configuration on ``manifest``, or on what it names.

    Raises:
        UserError: the images that are to be evaluated are not there.
    """
    make = JUDGES[config.evaluation.task]
    judge: Judge = make(manifest, config.evaluation, config.data, device, precision(config, device))
    judge.check()
    return judge


def answer_of(settings: Evaluation) -> Answer:
    """What of a network the task's evaluation looks at: what its cost is counted of, and what is exported of it."""
    answer: Answer = JUDGES[settings.task].looks_at(settings)
    return answer
