"""Image retrieval without queries of its own: every test image searches all others (CUB, Cars, SOP and their like)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from reid_cckd.assess.extraction import Extraction
from reid_cckd.assess.verdict import Verdict
from reid_cckd.data import ImageDataset, refuse_unlabelled
from reid_cckd.engine import on_rank_zero
from reid_cckd.errors import DataError
from reid_cckd.evaluation import RecallResult, evaluate_recall


@dataclass
class RecallJudge(Extraction):
    """The test images of a data set, or where it has none all that are not for training."""

    main: ClassVar[str] = "recall@1"

    def check(self) -> None:
        """Raises DataError where no two images are of one class, or one is of none."""
        labels = self.manifest.labels[searchers(self.manifest.roles)]
        refuse_unlabelled(labels, f"images of {self.manifest.name} that search each other")
        if len(np.unique(labels)) == len(labels):
            raise DataError(
                f"{self.manifest.name} at {self.manifest.root}: {len(labels):,} test images, no two of one class, so "
                "that none can find another. evaluation.task: recall needs a data set that holds some back; "
                "none trains without."
            )

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """Fractions by name, for the training log."""
        return self.evaluate(network).scores()

    def verdict(self, network: nn.Module) -> Verdict:
        """Recall@k, MAP@R and R-precision."""
        result = self.evaluate(network)
        protocol = {
            "task": "recall",
            "flip": self.settings.flip,
            "embedding": self.settings.on,
            "valid_queries": result.num_valid_queries,
            "queries": result.num_queries,
        }
        return Verdict(result.scores(), protocol, queries=(self._searchers().manifest, result))

    def evaluate(self, network: nn.Module) -> RecallResult:
        """Exact metrics of the network's embeddings."""
        dataset = self._searchers()
        rows = self.rows(network, dataset)
        labels, ranks = dataset.manifest.labels, self.settings.ranks
        return on_rank_zero(lambda: evaluate_recall(rows, labels, ranks, device=self.device))

    def _searchers(self) -> ImageDataset:
        """Those of them that can be read, if damaged ones are to be left out."""
        return self.images_of("searchers", self.manifest.take(searchers(self.manifest.roles)))


def searchers(roles: NDArray[np.str_]) -> NDArray[np.bool_]:
    """(N,) which images search each other: those of role "test", or where there are none all that are not to train."""
    test: NDArray[np.bool_] = roles == "test"
    return test if test.any() else roles != "train"
