"""Re-identification against one image per person: CUHK03's single-gallery-shot CMC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from reid_cckd.evaluation.products import product_chunks
from reid_cckd.evaluation.ranking import Pairs, Relevance
from reid_cckd.evaluation.retrieval import CameraPolicy, camera_tags, check_options
from reid_cckd.evaluation.rows import Embeddings, Ids, exact_float32, same_length, shared_codes, two_sets


@dataclass(frozen=True)
class SingleShotResult:
    """``cmc[rank]`` is the mean over the repeats, ``std[rank]`` their standard deviation; fractions in [0, 1].

    ``ranks``: (repeats, Q) of each query's match from 1 up, 0 where it has none; `bootstrap_interval` takes of them
    ``(ranks[:, valid] <= k).mean(axis=0)`` with ``valid = ranks[0] > 0``.
    """

    cmc: dict[int, float]
    std: dict[int, float]
    num_valid_queries: int
    num_queries: int
    repeats: int
    camera_policy: str
    ranks: NDArray[np.int64]


def evaluate_single_shot(
    query: Embeddings,
    gallery: Embeddings,
    query_ids: Ids,
    gallery_ids: Ids,
    query_cameras: Ids | None = None,
    gallery_cameras: Ids | None = None,
    ranks: Sequence[int] = (1, 5, 10),
    *,
    cameras: CameraPolicy = "exclude-same",
    repeats: int = 10,
    seed: int = 0,
    device: torch.device | str | None = None,
    chunk: int | None = None,
) -> SingleShotResult:
    """CMC when the gallery holds one random image of each person, averaged over seeded repeats.

    Arguments as in `evaluate_retrieval`. A repeat draws the same image of every other person for all queries, and for
    each query one image of its own person that is not junk.

    Raises:
        ValueError: as `evaluate_retrieval`, or fewer than one repeat.

    Source: Li et al., DeepReID, CVPR 2014.
    """
    check_options(ranks, cameras, chunk)
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, is {repeats}")
    queries, items = two_sets(query, gallery, device, ("query", "gallery"))
    same_length(query=queries, query_ids=query_ids, query_cameras=query_cameras)
    same_length(gallery=items, gallery_ids=gallery_ids, gallery_cameras=gallery_cameras)
    query_codes, gallery_codes = shared_codes(query_ids, gallery_ids, ("query_ids", "gallery_ids"))
    query_tags, gallery_tags, policy = camera_tags(query_cameras, gallery_cameras, cameras)
    relevance = Relevance(query_codes, gallery_codes, query_tags, gallery_tags)
    draws = [_draw(gallery_codes, len(queries), seed, repeat) for repeat in range(repeats)]
    places = []
    with exact_float32(queries.device):
        for own, products in product_chunks(queries, items, chunk):
            scores = products().div_(items.lengths).cpu().numpy()
            rows = slice(own.start, own.stop)
            pairs = relevance.pairs(own.start, own.stop)
            places.append([_places(scores, pairs, query_codes[rows], gallery_codes, draw, rows) for draw in draws])
    ranked = np.concatenate(places, axis=1) + 1
    valid = ranked[0] > 0
    if not valid.any():
        raise ValueError("no query has a true match that its camera policy leaves in the gallery")
    rates = {int(k): (ranked[:, valid] <= k).mean(axis=1) for k in ranks}
    return SingleShotResult(
        cmc={k: float(rate.mean()) for k, rate in rates.items()},
        std={k: float(rate.std()) for k, rate in rates.items()},
        num_valid_queries=int(valid.sum()),
        num_queries=len(valid),
        repeats=repeats,
        camera_policy=policy,
        ranks=ranked,
    )


def _draw(
    codes: NDArray[np.int64], queries: int, seed: int, repeat: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """One gallery item of each person, and for each query a number in [0, 1) that picks one of its own person."""
    random = np.random.default_rng([seed, repeat])
    shuffled = random.permutation(len(codes))
    _, first = np.unique(codes[shuffled], return_index=True)
    return np.sort(shuffled[first]), random.random(queries)


def _places(
    scores: NDArray[np.float32],
    pairs: Pairs,
    query_codes: NDArray[np.int64],
    gallery_codes: NDArray[np.int64],
    draw: tuple[NDArray[np.int64], NDArray[np.float64]],
    rows: slice,
) -> NDArray[np.int64]:
    """0-based places of the one true match of each query; ties keep the gallery's order."""
    columns, fractions = draw
    counts = np.bincount(pairs.rows, minlength=len(scores))
    valid = np.flatnonzero(counts)
    picked = (np.cumsum(counts) - counts + (fractions[rows] * counts).astype(np.int64))[valid]
    own = pairs.columns[picked]
    wanted, others = scores[valid, own][:, None], scores[np.ix_(valid, columns)]
    ahead = (others > wanted) | ((others == wanted) & (columns < own[:, None]))
    ahead &= gallery_codes[columns] != query_codes[valid][:, None]
    places = np.full(len(scores), -1, dtype=np.int64)
    places[valid] = ahead.sum(axis=1)
    return places
