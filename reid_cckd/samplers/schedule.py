"""Which classes meet in which batch: an endless sequence of passes, each computable alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid_cckd.samplers.chance import Ints, noise, ranges, shuffle

_BITS = 30  # quotas are fixed-point numbers, so that sums over passes are exact
_ONE = 1 << _BITS
_ERA = 8  # passes; a power of two, so that the roundings of an era add up to nothing
_CLASSES, _LANES, _BATCHES, _ERAS = 1, 2, 3, 7  # purposes of the noise


@dataclass(frozen=True)
class Schedule:
    """Passes of ``batches`` batches of ``classes_per_batch`` different classes.

    ``edges`` are the running sums, from 0 to the number of places in a pass, of the visits that a pass owes to each
    class. A pass gives each class its quota rounded up or down, and the roundings even out over passes.
    """

    edges: Ints
    classes_per_batch: int
    batches: int
    seed: int


@dataclass(frozen=True)
class PassPlan:
    """Row b: the classes of batch b of a pass, and how often each was visited before, in all passes."""

    classes: Ints
    visits: Ints


def make_schedule(weights: NDArray[np.float64], classes_per_batch: int, batches: int, seed: int) -> Schedule:
    """Passes of ``batches`` batches in which each class has places in proportion to its weight."""
    return Schedule(_edges(weights, batches * classes_per_batch), classes_per_batch, batches, seed)


def _edges(weights: NDArray[np.float64], places: int) -> Ints:
    """Running sums, from 0 to ``places``, of the visits owed to each class, in fixed point.

    Of equal weights by whole numbers: float64 has too few digits for many millions of classes, some of which a pass
    would leave out.
    """
    if (weights == weights[0]).all():
        whole, rest = np.divmod(np.arange(len(weights) + 1) * places, len(weights))
        edges: Ints = (whole << _BITS) + (rest << _BITS) // len(weights)
    else:
        sums = np.concatenate([[0.0], np.cumsum(weights)])
        edges = np.rint(sums / sums[-1] * places * _ONE).astype(np.int64)
    return edges


def plan_pass(schedule: Schedule, number: int) -> PassPlan:
    """The batches of one pass, each with different classes."""
    seed = schedule.seed
    before, quotas = _visits_of_pass(schedule, number)
    order = shuffle(np.array([len(quotas)]), noise(seed, _CLASSES, np.arange(len(quotas)), number))
    quotas, before = quotas[order], before[order]
    lanes = _mixed_lanes(quotas, schedule.batches, schedule.classes_per_batch, seed, number)
    batches = shuffle(np.array([schedule.batches]), noise(seed, _BATCHES, np.arange(schedule.batches), number))
    table = lanes.reshape(schedule.classes_per_batch, schedule.batches).T[batches]
    visits = np.repeat(before, quotas) + _turns(table, quotas)
    return PassPlan(np.repeat(order, quotas)[table], visits[table])


def _visits_of_pass(schedule: Schedule, number: int) -> tuple[Ints, Ints]:
    """Visits of each class before a pass and in it.

    Systematic sampling rounds up the same classes together. So it first shares out a whole era, where rounding
    hardly matters, and then the passes of the era, with the classes in an order of the era's own.
    """
    if not (schedule.edges & (_ONE - 1)).any():  # nothing to round
        quotas = np.diff(schedule.edges >> _BITS)
        return number * quotas, quotas
    era, turn = divmod(number, _ERA)
    earlier = visits_before(schedule.edges * _ERA, era)
    in_era = visits_before(schedule.edges * _ERA, era + 1) - earlier
    order = shuffle(np.array([len(in_era)]), noise(schedule.seed, _ERAS, np.arange(len(in_era)), era))
    edges = np.concatenate([[0], np.cumsum(in_era[order])]) * (_ONE // _ERA)
    before = visits_before(edges, turn)
    quotas = np.empty_like(in_era)
    quotas[order] = visits_before(edges, turn + 1) - before
    earlier[order] += before
    return earlier, quotas


def _turns(table: Ints, quotas: Ints) -> Ints:
    """Which visit of its class in this pass each place is, in the order of the batches."""
    batch = np.empty(table.size, np.int64)
    batch[table] = np.arange(len(table))[:, None]
    turns = np.zeros_like(batch)
    several = np.flatnonzero(quotas > 1)
    cells = ranges((np.cumsum(quotas) - quotas)[several], quotas[several])
    in_time = np.lexsort((batch[cells], np.repeat(several, quotas[several])))
    turns[cells[in_time]] = ranges(np.zeros_like(several), quotas[several])
    return turns


def visits_before(edges: Ints, passes: int) -> Ints:
    """How often each class is visited in the first ``passes`` passes, in closed form.

    Pass p visits class c ``floor(edges[c + 1] + u_p) - floor(edges[c] + u_p)`` times (systematic sampling), where
    u_p is the van der Corput sequence; the sum over passes only has to count the u_p beyond a threshold.
    """
    whole, part = edges >> _BITS, edges & (_ONE - 1)
    return np.diff(passes * whole + passes - _count_below(_ONE - part, passes))


def _count_below(thresholds: Ints, length: int) -> Ints:
    """How many of the first ``length`` van der Corput numbers (times 2**30) lie below each threshold.

    The numbers 0..length-1 fall into one block per set bit i of ``length``, in which the i lowest bits run free:
    mirrored, such a block is an arithmetic sequence of 2**i terms.
    """
    counts = np.zeros_like(thresholds)
    for bit in range(length.bit_length()):
        if length >> bit & 1:
            step = _ONE >> bit
            first = _mirror(length >> (bit + 1) << (bit + 1))
            counts += np.clip((thresholds - first + step - 1) // step, 0, 1 << bit)
    return counts


def _mirror(number: int) -> int:
    return int(f"{number:0{_BITS}b}"[::-1], 2)


def _mixed_lanes(quotas: Ints, batches: int, lanes: int, seed: int, number: int) -> Ints:
    """Places of a pass, lane by lane, in which place i belongs to batch ``i % batches``.

    A class fills consecutive places, so its visits are in different batches. Shuffling each lane keeps that true for
    classes within the lane; the few that reach over its end stay where they are.
    """
    first = np.cumsum(quotas) - quotas
    within = first // batches == (first + quotas - 1) // batches
    free = np.flatnonzero(np.repeat(within, quotas))
    sizes = np.bincount(free // batches, minlength=lanes)
    places = np.arange(batches * lanes)
    places[free] = free[shuffle(sizes, noise(seed, _LANES, free, number))]
    return places
