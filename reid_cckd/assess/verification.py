"""Verification: pairs of faces, in the files of LFW, CFP-FP, AgeDB-30 and the like."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import nn

from reid_cckd.assess.extraction import Extraction
from reid_cckd.assess.verdict import Verdict
from reid_cckd.data import Pairs, read_pairs
from reid_cckd.engine import on_rank_zero
from reid_cckd.errors import DataError
from reid_cckd.evaluation import VerificationResult, evaluate_verification

FAR = 1e-3  # of the true accept rate in the scores, as is customary for these sets


@dataclass
class VerificationJudge(Extraction):
    """The pair files of ``evaluation.pairs``; ``accuracy`` is the mean over them of their 10-fold accuracies."""

    main: ClassVar[str] = "accuracy"
    _pairs: dict[str, Pairs] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._pairs = {name: read_pairs(path) for name, path in self.settings.pairs.items()}

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """Fractions by name, for the training log."""
        return _scores(self.evaluate(network))

    def verdict(self, network: nn.Module) -> Verdict:
        """Accuracy and TAR of every set."""
        found = self.evaluate(network)
        protocol = {
            "task": "verification",
            "folds": 10,
            "far": FAR,
            "flip": self.settings.flip,
            "embedding": self.settings.on,
            "pairs": {name: len(pairs.same) for name, pairs in self._pairs.items()},
        }
        return Verdict(_scores(found), protocol, {name: result.summary() for name, result in found.items()})

    def evaluate(self, network: nn.Module) -> dict[str, VerificationResult]:
        """The result of every set.

        Raises:
            DataError: images were left out as damaged, or the pairs are too few, or all of one kind.
        """
        return {name: self._evaluate_set(network, name) for name in self._pairs}

    def _evaluate_set(self, network: nn.Module, name: str) -> VerificationResult:
        pairs = self._pairs[name]
        dataset = self.images_of(name, pairs.manifest)
        if len(dataset) != 2 * len(pairs.same):
            raise DataError(f"{self.settings.pairs[name]}: images are damaged, and pairs cannot do without them.")
        vectors = self.rows(network, dataset)
        try:
            pair = vectors[0::2], vectors[1::2]
            return on_rank_zero(lambda: evaluate_verification(*pair, pairs.same, fars=(FAR,), device=self.device))
        except ValueError as error:
            raise DataError(f"{self.settings.pairs[name]}: {error}") from error


def _scores(found: dict[str, VerificationResult]) -> dict[str, float]:
    mean = float(np.mean([result.accuracy for result in found.values()]))
    each = {name: result.accuracy for name, result in found.items()}
    return {"accuracy": mean, **each, **{f"{name}_tar": result.tar[FAR] for name, result in found.items()}}
