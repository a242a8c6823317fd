"""The endless stream of batches: schedule (which classes) and deal (which of their images) put together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from reid_cckd.samplers.chance import Ints, ranges
from reid_cckd.samplers.deal import Deal, deal_out
from reid_cckd.samplers.schedule import PassPlan, Schedule, plan_pass

_IMAGES_AT_ONCE = 1 << 16  # images of batches computed together
_CARDS_AT_ONCE = 1 << 18  # images of classes shuffled together: bounds the working memory


class BatchStream:
    """Batch number g as a pure function of g; what was computed for its neighbours is kept to save work."""

    def __init__(self, schedule: Schedule, deal: Deal) -> None:
        self.schedule = schedule
        self.deal = deal
        self.batch_size = schedule.classes_per_batch * deal.hands * deal.chunk
        images = int(deal.pools.kind_sizes.sum())
        self.batches_per_epoch = max(-(-images // self.batch_size), schedule.batches)
        self._plan: tuple[int, PassPlan] | None = None
        visits = deal.visits
        self._first_row = np.cumsum(visits) - visits
        self._rows = np.empty((int(visits.sum()), deal.hands * deal.chunk), deal.pools.images.dtype)
        self._cards = deal.pools.class_sizes
        self._cycle_held = np.full(len(visits), -1)

    def batches(self, first: int, stop: int, step: int) -> Iterator[list[int]]:
        """The batches ``range(first, stop, step)``, the first at once and then in growing blocks."""
        most = max(1, _IMAGES_AT_ONCE // self.batch_size)
        size = 1
        while first < stop:
            numbers = np.arange(first, min(first + size * step, stop), step)
            yield from self.at(numbers).tolist()
            first += size * step
            size = min(2 * size, most)

    def at(self, numbers: Ints) -> NDArray[np.integer]:
        """The batches of ascending numbers, one row of images each."""
        passes, rows = np.divmod(numbers, self.schedule.batches)
        classes, visits = [], []
        for number in range(int(passes[0]), int(passes[-1]) + 1):
            plan = self._plan_of(number)
            classes.append(plan.classes[rows[passes == number]])
            visits.append(plan.visits[rows[passes == number]])
        drawn = self._draw(np.concatenate(classes).ravel(), np.concatenate(visits).ravel())
        return drawn.reshape(len(numbers), self.batch_size)

    def _plan_of(self, number: int) -> PassPlan:
        if self._plan is None or self._plan[0] != number:
            self._plan = number, plan_pass(self.schedule, number)
        return self._plan[1]

    def _draw(self, classes: Ints, visits: Ints) -> NDArray[np.integer]:
        """The images of visits of classes, one row each."""
        cycles, turns = np.divmod(visits, self.deal.visits[classes])
        images: NDArray[np.integer] = self._rows[self._first_row[classes] + turns]
        new = np.flatnonzero(self._cycle_held[classes] != cycles)
        if len(new):
            images[new] = self._draw_new(classes[new], cycles[new], turns[new])
        return images

    def _draw_new(self, classes: Ints, cycles: Ints, turns: Ints) -> NDArray[np.integer]:
        """The same for cycles that are not held; some at a time, to bound the working memory."""
        span = int(cycles.max()) + 1
        pairs, pair = np.unique(classes * span + cycles, return_inverse=True)
        pair_class, pair_cycle = np.divmod(pairs, span)
        images = np.empty((len(classes), self._rows.shape[1]), self._rows.dtype)
        for some in _split(self._cards[pair_class]):
            rows = deal_out(self.deal, pair_class[some], pair_cycle[some])
            first_row = np.cumsum(self.deal.visits[pair_class[some]]) - self.deal.visits[pair_class[some]]
            mine = np.flatnonzero((some.start <= pair) & (pair < some.stop))
            images[mine] = rows[first_row[pair[mine] - some.start] + turns[mine]]
            self._hold(pair_class[some], pair_cycle[some], first_row, rows)
        return images

    def _hold(self, classes: Ints, cycles: Ints, first_row: Ints, rows: NDArray[np.integer]) -> None:
        """Keep the latest cycle of each class: its next visits are in it."""
        last = np.append(classes[1:] != classes[:-1], True)
        classes, visits = classes[last], self.deal.visits[classes[last]]
        self._rows[ranges(self._first_row[classes], visits)] = rows[ranges(first_row[last], visits)]
        self._cycle_held[classes] = cycles[last]


def _split(costs: Ints) -> list[slice]:
    """Consecutive parts that cost about `_CARDS_AT_ONCE` each."""
    part = np.cumsum(costs) // _CARDS_AT_ONCE
    ends = [0, *(np.flatnonzero(part[1:] != part[:-1]) + 1).tolist(), len(costs)]
    return [slice(start, stop) for start, stop in pairwise(ends)]
