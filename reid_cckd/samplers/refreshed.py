"""SUR batches whose superclasses change in the course of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from reid_cckd.samplers.batch_samplers import SuperclassUniformSampler
from reid_cckd.samplers.checks import Labels, at_least


class RefreshedSuperclassSampler(SuperclassUniformSampler):
    """SUR with other superclasses every ``every`` epochs; ``every=None`` keeps the first.

    ``find(epoch)``: the superclasses of an epoch, the same whenever it is asked (see `superclasses_of_epoch`), which is
    what makes an interrupted run go on with the same batches. Everything else is as in `SuperclassUniformSampler`; an
    epoch keeps the length of the first.

    Raises:
        ValueError: names the numbers that do not fit together.
    """

    def __init__(
        self,
        find: Callable[[int], Labels],
        every: int | None,
        superclasses_per_batch: int = 8,
        samples_per_superclass: int = 8,
        **options: Any,
    ) -> None:
        super().__init__(find(0), superclasses_per_batch, samples_per_superclass, **options)
        self._find = find
        self._every = None if every is None else at_least(every, 1, "every")
        self._turn = 0
        self._batches_wanted = self._facts["batches_per_epoch"]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch and its superclasses."""
        self._turn_to(epoch)
        super().set_epoch(epoch)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken, with the superclasses of that epoch; raises as without refreshing."""
        if "epoch" in state:
            self._turn_to(at_least(state["epoch"], 0, "epoch"))
        super().load_state_dict(state)

    def _turn_to(self, epoch: int) -> None:
        turn = 0 if self._every is None else at_least(epoch, 0, "epoch") // self._every
        if turn != self._turn:
            self.set_superclasses(self._find(epoch))
            self._turn = turn
