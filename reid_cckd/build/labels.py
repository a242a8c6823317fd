"""Training images without a label: who can learn from them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from reid_cckd.config import Config, Objective, Sampler
from reid_cckd.data import UNLABELLED
from reid_cckd.errors import ConfigError
from reid_cckd.losses import LABEL_FREE


def check_labels_suffice(config: Config, labels: NDArray[np.int64]) -> None:
    """Terms and samplers that go by labels meet no image that has none: -1 would be one more person to them.

    Raises:
        ConfigError: they do; names the keys.
    """
    count = int((labels == UNLABELLED).sum())
    needy = [*_terms_by_label(config.objective), *_sampler_by_label(config.sampler)]
    if count and needy:
        raise ConfigError(
            f"{', '.join(needy)}: labels are needed here, and {count:,} of {len(labels):,} training images have none. "
            f"Label them or leave them out, or learn from a teacher alone: sampler.kind: uniform, "
            f"objective.cross_entropy: false, beta, and terms among {', '.join(sorted(LABEL_FREE))}."
        )


def _sampler_by_label(sampler: Sampler) -> Iterator[str]:
    if sampler.kind == "cur" or sampler.inner_samples_per_class is not None:
        yield f"sampler.kind ({sampler.kind})"


def _terms_by_label(objective: Objective) -> Iterator[str]:
    if objective.alpha > 0 and objective.cross_entropy:
        yield "objective.cross_entropy"
    pairs = objective.correlation
    if objective.beta != 0 and (pairs.within_weight != pairs.between_weight or pairs.miner):
        yield "objective.correlation"
    for position, term in enumerate(objective.terms):
        if term.loss not in LABEL_FREE or term.miner:
            yield f"objective.terms.{position} ({term.name})"
