"""Template pooling and 1:N search in float64, image by image and probe by probe."""

import numpy as np

from tests.reference.retrieval import unit


def pool(rows, templates, media, weights=None):
    rows = np.asarray(rows, dtype=np.float64) * (1 if weights is None else np.asarray(weights)[:, None])
    pooled = []
    for template in sorted(set(templates)):
        total = np.zeros(rows.shape[1])
        for medium in {m for t, m in zip(templates, media, strict=True) if t == template}:
            own = [r for r, t, m in zip(rows, templates, media, strict=True) if (t, m) == (template, medium)]
            total += np.mean(own, axis=0)
        pooled.append(total)
    return unit(pooled)


def clean(rows, ids, noisy):
    rows = unit(rows)
    out = rows.copy()
    for i in np.flatnonzero(noisy):
        out[i] = unit([rows[[j for j in range(len(ids)) if ids[j] == ids[i] and not noisy[j]]].mean(axis=0)])[0]
    return out


def search(probes, gallery, probe_ids, gallery_ids, ranks, fpirs):
    """({rank: rate}, {fpir: tpir})."""
    scores = unit(probes) @ unit(gallery).T
    places, mates, strangers = [], [], []
    for row, own in zip(scores, probe_ids, strict=True):
        order = sorted(range(len(row)), key=lambda item: (-round(row[item], 12), item))
        if own in list(gallery_ids):
            mate = list(gallery_ids).index(own)
            places.append(order.index(mate))
            mates.append(row[mate])
        else:
            strangers.append(row.max())
    cmc = {k: np.mean(np.array(places) < k) for k in ranks}
    tpir = {}
    for fpir in fpirs:
        allowed = [t for t in strangers if np.mean(np.array(strangers) > t + 1e-12) <= fpir]
        tpir[fpir] = np.mean(np.array(mates) > min(allowed) + 1e-12)
    return cmc, tpir
