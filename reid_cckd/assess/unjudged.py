"""No test set: a network is trained, and nobody says how good it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from torch import nn

from reid_cckd.assess.extraction import Extraction
from reid_cckd.assess.recall import RecallJudge
from reid_cckd.assess.verdict import Judge, Verdict
from reid_cckd.data import UNLABELLED, Manifest

LOOKED_AT = 128  # classes of the training images by which a teacher is told from one that guesses


@dataclass
class Unjudged(Extraction):
    """Gives a network no score, and judges a teacher by training images."""

    main: ClassVar[str] = ""

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """Nothing, and no image is read for it."""
        return {}

    def verdict(self, network: nn.Module) -> Verdict:
        """No score."""
        return Verdict({}, {"task": "none"})

    def for_teacher(self, classes: Sequence[int]) -> Judge:
        """Pairs of training images that search each other; the same judge where no class has two of them."""
        pairs, settings = _pairs(self.manifest.select("train")), replace(self.settings, ranks=(1,))
        return _Pairs(pairs, settings, self.data, self.device, self.precision) if len(pairs) else self


class _Pairs(RecallJudge):
    """Says of its one score where it is from, as a teacher's score on images that it has learned is no measure."""

    main: ClassVar[str] = "recall@1 of training images"

    def __call__(self, network: nn.Module) -> dict[str, float]:
        return {self.main: self.evaluate(network).recall[1]}


def _pairs(train: Manifest) -> Manifest:
    """The first and the last image of up to `LOOKED_AT` classes that have two or more, as if they were to be tested."""
    labelled = np.flatnonzero(train.labels != UNLABELLED)
    order = labelled[np.argsort(train.labels[labelled], kind="stable")]
    _, first, counts = np.unique(train.labels[order], return_index=True, return_counts=True)
    first, last = first[counts > 1], (first + counts - 1)[counts > 1]
    some = np.linspace(0, len(first) - 1, min(LOOKED_AT, len(first))).astype(np.int64)
    pairs = train.take(order[np.concatenate([first[some], last[some]])])
    return replace(pairs, roles=np.full(len(pairs), "test"))
