"""From labels and settings to a stream of batches: every setting is checked here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from reid_cckd.samplers.chance import Ints
from reid_cckd.samplers.checks import Weights, as_array, as_weights, digest
from reid_cckd.samplers.deal import Short, make_deal
from reid_cckd.samplers.pools import Pools, make_pools
from reid_cckd.samplers.schedule import make_schedule
from reid_cckd.samplers.stream import BatchStream


@dataclass(frozen=True)
class Recipe:
    """``groups`` different groups in a batch, ``hands`` hands of ``chunk`` images of one kind from each."""

    labels: Ints
    groups: int
    hands: int
    chunk: int = 1
    kinds: Ints | None = None
    weights: Weights | None = None
    short: Short = "replace"
    seed: int = 0
    noun: str = "classes"

    def stream(self) -> BatchStream:
        """The batches.

        Raises:
            ValueError: names the numbers that do not fit together.
        """
        if self.short not in get_args(Short):
            raise ValueError(f"short must be one of {', '.join(get_args(Short))}; got {self.short!r}")
        pools, weights = self._kept(make_pools(self.labels, self.kinds))
        if self.chunk == 1:
            pools = pools.merge_kinds(pools.class_sizes < self.hands)
        deal = make_deal(pools, self.hands, self.chunk, self.short, self.seed)
        batches = int(deal.visits[0]) if len(weights) == 1 else -(-len(weights) // self.groups)
        return BatchStream(make_schedule(weights, self.groups, batches, self.seed), deal)

    def facts(self) -> dict[str, Any]:
        """What must be the same for a state of the sampler to mean the same place."""
        return {
            "images": len(self.labels),
            "data": digest(self.labels, self.kinds, _plain(self.weights)),
            f"{self.noun}_per_batch": self.groups,
            "samples": self.hands * self.chunk,
            "samples_of_one_kind": self.chunk,
            "short": self.short,
            "seed": self.seed,
        }

    def _kept(self, pools: Pools) -> tuple[Pools, NDArray[np.float64]]:
        weights = as_weights(self.weights, pools.labels)
        if len(pools.labels) == 1 and self.noun != "images":
            raise ValueError(
                f"a batch compares {self.noun}, of which two or more are needed: all {len(self.labels)} images have "
                f"label {pools.labels[0]} (UniformSampler draws images of one)"
            )
        kept = weights > 0
        if self.short == "skip":
            kept &= pools.class_sizes >= self.hands * self.chunk
        if kept.sum() < self.groups:
            raise ValueError(
                f"{self.noun}_per_batch is {self.groups}, but only {kept.sum()} of {len(kept)} {self.noun} can be drawn"
                + (f" (short='skip' leaves out those below {self.hands * self.chunk} images)" * (self.short == "skip"))
            )
        self._check_shares(pools.labels[kept], weights[kept])
        return (pools if kept.all() else pools.only(kept)), weights[kept]

    def _check_shares(self, labels: Ints, weights: NDArray[np.float64]) -> None:
        heaviest = int(weights.argmax())
        share = weights[heaviest] / weights.sum()
        if share * self.groups > 1 + 1e-9:
            raise ValueError(
                f"class_weights give {labels[heaviest]} a share of {share:.4f}, more than 1 / {self.groups}: "
                f"it would be twice in a batch of {self.groups} different {self.noun}"
            )


def _plain(weights: Weights | None) -> NDArray[Any] | None:
    if weights is None:
        return None
    items = sorted(weights.items()) if isinstance(weights, Mapping) else weights
    return as_array(items).astype(np.float64)
