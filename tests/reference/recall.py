"""Recall@k, MAP@R and R-precision in plain loops."""

import numpy as np

from tests.reference.retrieval import unit


def evaluate(embeddings, ids, ranks):
    scores = unit(embeddings) @ unit(embeddings).T
    recall, map_at_r, r_precision, valid = dict.fromkeys(ranks, 0.0), [], [], 0
    for i, row in enumerate(scores):
        order = [j for j in np.argsort(-row, kind="stable") if j != i]
        hits = [ids[j] == ids[i] for j in order]
        total = sum(hits)
        if not total:
            continue
        valid += 1
        for k in ranks:
            recall[k] += any(hits[:k])
        r_precision.append(sum(hits[:total]) / total)
        map_at_r.append(sum(sum(hits[: n + 1]) / (n + 1) for n in range(total) if hits[n]) / total)
    return {k: value / valid for k, value in recall.items()}, np.mean(map_at_r), np.mean(r_precision), valid
