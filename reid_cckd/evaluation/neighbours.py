"""The best gallery items of each query, for picture sheets, re-ranking and search."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from reid_cckd.evaluation.options import check_chunk
from reid_cckd.evaluation.products import workers
from reid_cckd.evaluation.ranking import Relevance
from reid_cckd.evaluation.rows import Embeddings, Ids, exact_float32, same_length, shared_codes, two_sets
from reid_cckd.evaluation.search import search


def rank_gallery(
    query: Embeddings,
    gallery: Embeddings,
    k: int,
    *,
    query_ids: Ids | None = None,
    gallery_ids: Ids | None = None,
    query_cameras: Ids | None = None,
    gallery_cameras: Ids | None = None,
    device: torch.device | str | None = None,
    chunk: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Indices and cosine similarities, (Q, min(k, G)) each, best first; equal ones keep the gallery's order.

    With all four id and camera lists, items of the query's id and camera are left out; where fewer than k remain, the
    row ends in index -1 and similarity -inf. ``chunk``: queries that a thread searches for at a time; for them it holds
    ``chunk`` x 4,096 scores, or ``chunk`` x G on a GPU.

    Raises:
        ValueError: k or chunk < 1, an empty set, different widths or lengths, only some of the lists, a row that is
            zero or not finite. TypeError: embeddings or ids of a wrong type.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, is {k}")
    check_chunk(chunk)
    queries, items = two_sets(query, gallery, device, ("query", "gallery"))
    relevance = _relevance(len(queries), len(items), query_ids, gallery_ids, query_cameras, gallery_cameras)

    def junk(start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        assert relevance is not None
        pairs = relevance.pairs(start, stop)
        return pairs.junk_rows, pairs.junk_columns

    with exact_float32(queries.device), workers() as pool:
        every = range(len(queries))
        found = search(queries, items, min(k, len(items)), every, pool, junk if relevance else None, chunk=chunk)
    return found.indices, found.scores


def _relevance(
    num_queries: int,
    num_items: int,
    query_ids: Ids | None,
    gallery_ids: Ids | None,
    query_cameras: Ids | None,
    gallery_cameras: Ids | None,
) -> Relevance | None:
    lists = (query_ids, gallery_ids, query_cameras, gallery_cameras)
    if all(values is None for values in lists):
        return None
    if query_ids is None or gallery_ids is None or query_cameras is None or gallery_cameras is None:
        raise ValueError("query_ids, gallery_ids, query_cameras and gallery_cameras go together: give all or none")
    same_length(query=range(num_queries), query_ids=query_ids, query_cameras=query_cameras)
    same_length(gallery=range(num_items), gallery_ids=gallery_ids, gallery_cameras=gallery_cameras)
    return Relevance(
        *shared_codes(query_ids, gallery_ids, ("query_ids", "gallery_ids")),
        *shared_codes(query_cameras, gallery_cameras, ("query_cameras", "gallery_cameras")),
    )
