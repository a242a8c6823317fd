"""Identification: photos of a person look for each other among distractors, as in MegaFace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import nn

from reid_cckd.assess.extraction import Extraction
from reid_cckd.assess.verdict import Verdict
from reid_cckd.data import LAYOUTS, Manifest
from reid_cckd.engine import on_rank_zero
from reid_cckd.errors import ConfigError, DataError
from reid_cckd.evaluation import IdentificationResult, evaluate_identification

FPRS = (1e-6, 1e-5, 1e-4)
ORDER_SEED = 0


@dataclass
class IdentificationJudge(Extraction):
    """Probes and distractors of ``evaluation.benchmark``; ``rank1`` is that among the most distractors.

    Distractors count in one fixed random order. The lists and noises of the benchmark's own kit are for
    ``reid-cckd identify``.
    """

    main: ClassVar[str] = "rank1"
    _benchmark: Manifest = field(init=False, repr=False)

    def __post_init__(self) -> None:
        assert self.settings.benchmark is not None
        self._benchmark = LAYOUTS["megaface"](self.settings.benchmark)
        _within(self.settings.scales, len(self._benchmark.select("gallery")))  # refuses before anything is trained

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """Fractions by name, for the training log."""
        return self._scores(self.evaluate(network))

    def verdict(self, network: nn.Module) -> Verdict:
        """Rank-1 and TPR at every scale."""
        found = self.evaluate(network)
        protocol = {
            "task": "identification",
            "benchmark": self._benchmark.name,
            "probes": found.num_probes,
            "pairs": found.num_pairs,
            "order": f"random, seed {ORDER_SEED}",
            "flip": self.settings.flip,
            "embedding": self.settings.on,
        }
        return Verdict(self._scores(found), protocol, {"scales": found.summary()})

    def evaluate(self, network: nn.Module) -> IdentificationResult:
        """The result at every scale.

        Raises:
            DataError: nobody has two photos. UserError: an embedding is not finite.
        """
        photos, others = (self.images_of(role, self._benchmark.select(role)) for role in ("query", "gallery"))
        probes, distractors = (self.rows(network, one) for one in (photos, others))
        scales = _within(self.settings.scales, len(distractors))
        order = np.random.default_rng(ORDER_SEED).permutation(len(distractors))
        asked = (probes, photos.manifest.labels, distractors, scales, self.settings.ranks, FPRS)
        try:
            return on_rank_zero(lambda: evaluate_identification(*asked, order=order, device=self.device))
        except ValueError as error:
            raise DataError(f"{self._benchmark.root}: {error}") from error

    def _scores(self, found: IdentificationResult) -> dict[str, float]:
        last = max(found.rate)
        scores = {f"rank{rank}": value for rank, value in found.rate[last].items()}
        scores |= {f"tpr@{fpr:g}": value for fpr, value in found.tpr[last].items()}
        return scores | {f"rank1_of_{scale}": rates[1] for scale, rates in found.rate.items() if 1 in rates}


def _within(scales: Sequence[int], distractors: int) -> list[int]:
    """The scales that there are enough distractors for.

    Raises:
        ConfigError: none.
    """
    if reached := [scale for scale in scales if scale <= distractors]:
        return reached
    raise ConfigError(f"evaluation.scales: {list(scales)} all exceed the {distractors:,} distractors there are.")
