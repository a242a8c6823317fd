"""Which images a visit of a class takes: each cycle of visits deals out the whole class anew, like cards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reid_cckd.samplers.chance import Ints, noise, ranges, shuffle
from reid_cckd.samplers.pools import Pools

Short = Literal["replace", "cycle", "skip"]
_KINDS, _IMAGES, _REPEATS = 4, 5, 6  # purposes of the noise


@dataclass(frozen=True)
class Deal:
    """How classes are dealt out.

    A hand is ``chunk`` images of one kind, a visit is ``hands`` hands, a cycle of class c is ``visits[c]`` visits, in
    which each image comes at least once. Kind i gives ``shares[i]`` hands to a cycle of its class.
    """

    pools: Pools
    hands: int
    chunk: int
    visits: Ints
    shares: Ints
    short: Short
    seed: int


def make_deal(pools: Pools, hands: int, chunk: int, short: Short, seed: int) -> Deal:
    """Cycles of ceil(hands of a class / hands) visits, their places shared out among the kinds of a class."""
    own = -(-pools.kind_sizes // chunk)
    per_class = np.add.reduceat(own, pools.first_kind)
    visits = -(-per_class // hands)
    shares = _share_places(pools, own, visits, visits * hands - per_class)
    return Deal(pools, hands, chunk, visits, shares, short, seed)


def _share_places(pools: Pools, own: Ints, visits: Ints, spare: Ints) -> Ints:
    """Hands of each kind in a cycle: its own ones, and the places left over.

    They go to rare kinds first, until each is in every visit of the cycle, then to the others.
    """
    of_kind = np.repeat(np.arange(len(visits)), pools.kinds_in)
    missing = np.maximum(visits[of_kind] - own, 0)
    taken = _pour(spare, missing, pools)
    left = spare - np.add.reduceat(taken, pools.first_kind)
    rounds = -(-left // np.maximum(np.add.reduceat(np.where(missing > 0, 0, own), pools.first_kind), 1))
    room = np.where(missing > 0, 0, own * rounds[of_kind])
    return own + taken + _pour(left, room, pools)


def _pour(budget: Ints, room: Ints, pools: Pools) -> Ints:
    """Fill the room of the kinds of each class one after the other until its budget is spent."""
    filled = np.cumsum(room) - room
    before = filled - np.repeat(filled[pools.first_kind], pools.kinds_in)
    return np.clip(np.repeat(budget, pools.kinds_in) - before, 0, room)


def deal_out(deal: Deal, classes: Ints, cycles: Ints) -> NDArray[np.integer]:
    """The visits of one cycle of each class, in order: one row of images for each visit."""
    if deal.chunk == 1 and len(deal.shares) == len(deal.visits):
        return _deal_plain(deal, classes, cycles)
    return _deal_kinds(deal, classes, cycles)


def _deal_plain(deal: Deal, classes: Ints, cycles: Ints) -> NDArray[np.integer]:
    """`_deal_kinds` for classes of one kind each: the visits cut the shuffled class into consecutive parts."""
    kinds = deal.pools.first_kind[classes]
    images = _shuffled_images(deal, kinds, cycles)
    sizes, places = deal.pools.kind_sizes[kinds], deal.shares[kinds]
    starts = np.cumsum(sizes) - sizes
    cards = ranges(starts, places)
    beyond = places - sizes  # the last visit of a cycle is filled up from the beginning
    ring, owner = ranges(sizes, beyond), np.repeat(np.arange(len(kinds)), beyond)
    again = ring % sizes[owner]
    if deal.short == "replace":
        over = np.flatnonzero(sizes[owner] < deal.hands)
        again[over] = _redrawn(deal, kinds[owner[over]], cycles[owner[over]], ring[over])
    cards[ranges(np.cumsum(places) - beyond, beyond)] = starts[owner] + again
    dealt: NDArray[np.integer] = images[cards].reshape(-1, deal.hands)
    return dealt


def _deal_kinds(deal: Deal, classes: Ints, cycles: Ints) -> NDArray[np.integer]:
    """Shuffle the kinds of each class and the images of each kind, and deal the hands round the visits."""
    pools = deal.pools
    kinds_in = pools.kinds_in[classes]
    pairs = np.repeat(np.arange(len(classes)), kinds_in)
    kinds = ranges(pools.first_kind[classes], kinds_in)
    kinds = kinds[shuffle(kinds_in, noise(deal.seed, _KINDS, kinds, cycles[pairs]))]
    cycles = cycles[pairs]
    visits = deal.visits[classes]
    rows, columns, cards = _seats(deal, kinds, cycles, visits[pairs], kinds_in)
    rows += np.repeat(np.cumsum(visits) - visits, visits * deal.hands)
    images = _shuffled_images(deal, kinds, cycles)
    seats = np.empty((int(visits.sum()), deal.hands, deal.chunk), images.dtype)
    seats[rows, columns] = images[cards]
    return seats.reshape(len(seats), -1)


def _shuffled_images(deal: Deal, kinds: Ints, cycles: Ints) -> NDArray[np.integer]:
    """The images of each kind in a random order, one kind after the other."""
    sizes = deal.pools.kind_sizes[kinds]
    images = deal.pools.images[ranges(deal.pools.kind_starts[kinds], sizes)]
    return images[shuffle(sizes, noise(deal.seed, _IMAGES, images, np.repeat(cycles, sizes)))]


def _seats(deal: Deal, kinds: Ints, cycles: Ints, visits: Ints, kinds_in: Ints) -> tuple[Ints, Ints, Ints]:
    """Visit, place in the visit, and cards (positions among the shuffled images) of every hand of the cycles.

    Hand x of a cycle goes to visit ``x % visits``: the hands of a kind spread over the visits as evenly as can be.
    Within the kind, hands take their images in the order of the visits, so those of one visit are neighbours on the
    ring of the kind's images and do not repeat one before the ring is used up.
    """
    shares = deal.shares[kinds]
    start = np.cumsum(shares) - shares
    start -= np.repeat(start[np.cumsum(kinds_in) - kinds_in], kinds_in)
    hand = ranges(start, shares)
    kind = np.repeat(np.arange(len(kinds)), shares)
    start, stop, visits = start[kind], (start + shares)[kind], visits[kind]
    columns, rows = np.divmod(hand, visits)
    earlier_visits = _hands_before(stop, visits, rows) - _hands_before(start, visits, rows)
    same_visit = columns + (rows - start) // visits
    offset = same_visit[:, None] * deal.chunk + np.arange(deal.chunk)
    ring = earlier_visits[:, None] * deal.chunk + offset
    sizes = deal.pools.kind_sizes[kinds]
    cards = ring % sizes[kind, None]
    if deal.short == "replace":
        over, place = np.nonzero(offset >= sizes[kind, None])
        cards[over, place] = _redrawn(deal, kinds[kind[over]], cycles[kind[over]], ring[over, place])
    return rows, columns, cards + (np.cumsum(sizes) - sizes)[kind, None]


def _hands_before(stop: Ints, visits: Ints, row: Ints) -> Ints:
    """How many of the hands 0..stop-1 go to a visit before ``row``."""
    rounds, rest = np.divmod(stop, visits)
    return rounds * row + np.minimum(rest, row)


def _redrawn(deal: Deal, kinds: Ints, cycles: Ints, ring: Ints) -> Ints:
    """Cards drawn with replacement, for what a visit asks of a kind beyond all of its images."""
    bits = noise(deal.seed, _REPEATS, (kinds << 32) + ring, cycles)
    return (bits % deal.pools.kind_sizes[kinds].astype(np.uint64)).astype(np.int64)
