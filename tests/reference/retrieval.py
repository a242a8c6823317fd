"""Retrieval metrics in float64 numpy, one query at a time, by sorting the whole ranking."""

import numpy as np


def unit(rows):
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))


def ranked_hits(query, gallery, query_ids, gallery_ids, query_cameras=None, gallery_cameras=None):
    """For each query: hit or not, from the best item to the worst, junk left out."""
    scores = unit(query) @ unit(gallery).T
    lists = []
    for i, row in enumerate(scores):
        order = np.argsort(-row, kind="stable")
        hit = np.asarray(gallery_ids)[order] == query_ids[i]
        if query_cameras is not None:
            junk = hit & (np.asarray(gallery_cameras)[order] == query_cameras[i])
            hit = hit[~junk]
        lists.append(hit)
    return lists


def is_decided(query, gallery, query_ids, gallery_ids, *_, rounding=4e-7):
    """Whether float32 tells every true match from what stands beside it: no two of them nearly, but not quite, tie."""
    for own, row in zip(query_ids, unit(query) @ unit(gallery).T, strict=True):
        order = np.argsort(-row, kind="stable")
        gaps, hits = -np.diff(row[order]), np.asarray(gallery_ids)[order] == own
        if ((gaps > 1e-12) & (gaps < rounding) & (hits[1:] != hits[:-1])).any():
            return False
    return True


def average_precision(hit, convention="torchreid"):
    found, value = 0, 0.0
    for place, is_hit in enumerate(hit):
        if is_hit:
            before = found / place if place else 1.0
            found += 1
            precision = found / (place + 1)
            value += precision if convention == "torchreid" else (before + precision) / 2
    return value / found if found else np.nan


def evaluate(lists, ranks=(1, 5, 10), convention="torchreid"):
    """(mean AP, mean INP, {rank: CMC}, valid queries)."""
    valid = [hit for hit in lists if hit.any()]
    count = len(valid) if convention == "torchreid" else len(lists)
    ap = sum(average_precision(hit, convention) for hit in valid) / count
    inp = sum(hit.sum() / (np.flatnonzero(hit)[-1] + 1) for hit in valid) / count
    cmc = {k: sum(hit[:k].any() for hit in valid) / count for k in ranks}
    return ap, inp, cmc, len(valid)
