"""k-reciprocal re-ranking with sets and dense float64 matrices."""

import numpy as np

from tests.reference.retrieval import unit


def distances(query, gallery, k1=20, k2=6, weight=0.3):
    """(Q, G) final distances."""
    rows = np.concatenate([unit(query), unit(gallery)])
    original = 2 - 2 * rows @ rows.T
    order = np.argsort(original, axis=1, kind="stable")
    original = original / original.max(axis=1, keepdims=True)

    def reciprocal(i, k):
        return {j for j in order[i, : k + 1] if i in order[j, : k + 1]}

    features = np.zeros_like(original)
    for i in range(len(rows)):
        near = reciprocal(i, k1)
        expanded = set(near)
        for j in near:
            other = reciprocal(j, int(np.around(k1 / 2)))
            if len(other & near) > 2 / 3 * len(other):
                expanded |= other
        members = sorted(expanded)
        features[i, members] = np.exp(-original[i, members]) / np.exp(-original[i, members]).sum()
    features = np.stack([features[order[i, :k2]].mean(axis=0) for i in range(len(rows))])
    count = len(query)
    common = np.minimum(features[:count, None], features[None, count:]).sum(axis=2)
    jaccard = 1 - common / (2 - common)
    return (1 - weight) * jaccard + weight * original[:count, count:]
