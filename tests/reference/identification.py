"""The MegaFace protocol in float64, pair by pair."""

import numpy as np

from tests.reference.retrieval import unit

TIE = 2**-19  # scores this near are equal


def is_decided(probes, ids, distractors, rounding=8e-7):
    """Whether float32 tells every pair of one person from every impostor: no two of them just a tie, or just none."""
    photos = unit(probes)
    same = (np.asarray(ids)[:, None] == np.asarray(ids)) & ~np.eye(len(photos), dtype=bool)
    genuine = (photos @ photos.T)[same]
    edges = np.concatenate([genuine - TIE, genuine + TIE])
    impostors = np.sort((photos @ unit(np.asarray(distractors, dtype=np.float64)).T).ravel())
    place = np.searchsorted(impostors, edges)
    beside = [impostors[np.clip(place + step, 0, len(impostors) - 1)] for step in (-1, 0)]
    return (np.abs(np.concatenate(beside) - np.tile(edges, 2)) > rounding).all()


def evaluate(probes, ids, distractors, scale, ranks, fprs, ignored=None):
    """({rank: rate}, {fpr: tpr}) of the first ``scale`` distractors."""
    photos, others = unit(probes), np.asarray(distractors[:scale], dtype=np.float64)
    used = np.ones(scale, bool) if ignored is None else ~np.asarray(ignored[:scale])
    impostors = np.sort((photos @ unit(others[used]).T).ravel())[::-1]
    hits, genuine = [], []
    for mate in range(len(photos)):
        for probe in range(len(photos)):
            if mate != probe and ids[mate] == ids[probe]:
                score = photos[probe] @ photos[mate]
                genuine.append(score)
                hits.append((photos[probe] @ unit(others[used]).T > score + TIE).sum())
    rate = {r: np.mean([above < r for above in hits]) for r in ranks}
    tpr = {}
    for fpr in fprs:
        allowed = int(fpr * len(photos) * scale * (1 + 1e-12))
        least = impostors[allowed] if allowed < len(impostors) else -np.inf
        tpr[fpr] = np.mean(np.array(genuine) > least + TIE)
    return rate, tpr
