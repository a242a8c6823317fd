"""The samplers in plain Python: one class, one visit and one image at a time, with the same random numbers."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

WORD = 1 << 64


def mix(word: int) -> int:
    word ^= word >> 30
    word = word * 0xBF58476D1CE4E5B9 % WORD
    word ^= word >> 27
    word = word * 0x94D049BB133111EB % WORD
    return word ^ word >> 31


def noise(seed: int, purpose: int, counter: int, turn: int) -> int:
    step, other = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03
    start = mix((mix((seed + step) % WORD) + purpose + step) % WORD)
    return mix((start + counter * step + turn * other) % WORD)


def shuffled(items: list[int], bits: list[int]) -> list[int]:
    return [item for _, item in sorted(zip(bits, items, strict=True))]


def van_der_corput(number: int) -> Fraction:
    value, share = Fraction(0), Fraction(1, 2)
    while number:
        value += share * (number % 2)
        number, share = number // 2, share / 2
    return value


def rounded(shares: list[Fraction], number: int) -> list[int]:
    """Shares as whole numbers: systematic sampling, shifted by the next van der Corput number."""
    shift = van_der_corput(number)
    edges = [sum(shares[:c]) + shift for c in range(len(shares) + 1)]
    return [int(edges[c + 1]) - int(edges[c]) for c in range(len(shares))]


def quotas(weights: list[Fraction], places: int, seed: int, number: int) -> list[int]:
    """Visits of each class in a pass: rounded for an era of 8 passes, then for each of them in random order."""
    era, turn = number // 8, number % 8
    in_era = rounded([8 * places * weight / sum(weights) for weight in weights], era)
    order = shuffled(list(range(len(weights))), [noise(seed, 7, c, era) for c in range(len(weights))])
    in_order = rounded([Fraction(in_era[c], 8) for c in order], turn)
    return [in_order[order.index(c)] for c in range(len(weights))]


def pass_plan(
    weights: list[Fraction], per_batch: int, batches: int, seed: int, number: int
) -> list[list[tuple[int, int]]]:
    """(class, visits before) for every place of every batch of a pass."""
    count, places = len(weights), batches * per_batch
    before = [sum(quotas(weights, places, seed, p)[c] for p in range(number)) for c in range(count)]
    mine = quotas(weights, places, seed, number)
    order = shuffled(list(range(count)), [noise(seed, 1, c, number) for c in range(count)])
    line: list[int] = []
    stays: list[bool] = []
    for c in order:
        crosses = len(line) // batches != (len(line) + mine[c] - 1) // batches
        line += [c] * mine[c]
        stays += [crosses] * mine[c]
    lanes = [list(range(lane * batches, (lane + 1) * batches)) for lane in range(per_batch)]
    for lane in lanes:
        free = [place for place in lane if not stays[place]]
        moved = iter(shuffled(free, [noise(seed, 2, place, number) for place in free]))
        lane[:] = [place if stays[place] else next(moved) for place in lane]
    columns = shuffled(list(range(batches)), [noise(seed, 3, b, number) for b in range(batches)])
    visits = list(before)
    plan = []
    for column in columns:
        row = []
        for lane in lanes:
            c = line[lane[column]]
            row.append((c, visits[c]))
            visits[c] += 1
        plan.append(row)
    return plan


def cycle_of(
    kinds: list[list[int]],
    kind_numbers: list[int],
    hands: int,
    chunk: int,
    short: str,
    seed: int,
    cycle: int,
) -> list[list[int]]:
    """The visits of one cycle of a class, given the images of each of its kinds."""
    own = [-(-len(kind) // chunk) for kind in kinds]
    visits = -(-sum(own) // hands)
    shares = share_out(own, visits, hands)
    order = shuffled(list(range(len(kinds))), [noise(seed, 4, number, cycle) for number in kind_numbers])
    table: list[list[tuple[int, int]]] = [[] for _ in range(visits)]
    hand = 0
    for kind in order:
        for _ in range(shares[kind]):
            table[hand % visits].append((kind, kind_numbers[kind]))
            hand += 1
    cards = [shuffled(kind, [noise(seed, 5, image, cycle) for image in kind]) for kind in kinds]
    taken = [0] * len(kinds)
    dealt = []
    for row in table:
        images: list[int] = []
        in_visit: dict[int, int] = defaultdict(int)
        for kind, number in row:
            for _ in range(chunk):
                size = len(cards[kind])
                card = taken[kind] % size
                if short == "replace" and in_visit[kind] >= size:
                    card = noise(seed, 6, (number << 32) + taken[kind], cycle) % size
                images.append(cards[kind][card])
                taken[kind] += 1
                in_visit[kind] += 1
        dealt.append(images)
    return dealt


def share_out(own: list[int], visits: int, hands: int) -> list[int]:
    """Places left over go to rare kinds first, one after the other, then to the others."""
    shares, spare = list(own), visits * hands - sum(own)
    rare = [size < visits for size in own]
    for kind, size in enumerate(own):
        if rare[kind]:
            more = min(spare, visits - size)
            shares[kind] += more
            spare -= more
    common = sum(size for kind, size in enumerate(own) if not rare[kind])
    rounds = -(-spare // max(common, 1))
    for kind, size in enumerate(own):
        if not rare[kind]:
            more = min(spare, size * rounds)
            shares[kind] += more
            spare -= more
    return shares


def batch(
    number: int,
    labels: list[int],
    per_batch: int,
    hands: int,
    chunk: int = 1,
    kinds: list[int] | None = None,
    short: str = "replace",
    seed: int = 0,
    weights: list[Fraction] | None = None,
) -> list[int]:
    """Batch ``number`` of a sampler, from nothing but its settings."""
    names = sorted(set(labels))
    groups: list[tuple[list[list[int]], list[int]]] = []
    kind_count = 0
    for name in names:
        members = [i for i, label in enumerate(labels) if label == name]
        merged = kinds is None or (chunk == 1 and len(members) < hands)
        of = [0 if merged else kinds[i] for i in members]  # type: ignore[index]
        if merged and kinds is not None:
            members.sort(key=lambda i: kinds[i])
        parts = [[i for i, k in zip(members, of, strict=True) if k == kind] for kind in sorted(set(of))]
        groups.append((parts, list(range(kind_count, kind_count + len(parts)))))
        kind_count += len(parts)
    batches = -(-len(names) // per_batch)
    shares = weights or [Fraction(1)] * len(names)
    plan = pass_plan(shares, per_batch, batches, seed, number // batches)[number % batches]
    images: list[int] = []
    for c, visit in plan:
        parts, numbers = groups[c]
        length = -(-sum(-(-len(part) // chunk) for part in parts) // hands)
        images += cycle_of(parts, numbers, hands, chunk, short, seed, visit // length)[visit % length]
    return images
