"""The best gallery items of each query, for picture sheets, re-ranking and search."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_cckd.evaluation.products import product_chunks
from reid_cckd.evaluation.ranking import Relevance
from reid_cckd.evaluation.rows import Embeddings, Ids, exact_float32, same_length, shared_codes, two_sets


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
    row ends in index -1 and similarity -inf. Streaming: ``chunk`` x G scores are held at a time.

    Raises:
        ValueError: k < 1, an empty set, different widths or lengths, only some of the lists, a row that is zero or not
            finite. TypeError: embeddings or ids of a wrong type.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, is {k}")
    queries, items = two_sets(query, gallery, device, ("query", "gallery"))
    relevance = _relevance(len(queries), len(items), query_ids, gallery_ids, query_cameras, gallery_cameras)
    found = []
    with exact_float32(queries.device):
        for start, products in product_chunks(queries, items, chunk):
            scores = products.div_(items.lengths)
            if relevance is not None:
                pairs = relevance.pairs(start, start + len(scores))
                junk = (torch.from_numpy(x).to(scores.device) for x in (pairs.junk_rows, pairs.junk_columns))
                scores[tuple(junk)] = -torch.inf
            found.append(best_of(scores, min(k, len(items))))
    indices, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return indices, values


def best_of(scores: Tensor, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best columns of each row; `topk` finds the scores, a stable sort of what reaches them settles ties."""
    least = scores.topk(k, dim=1, sorted=True).values[:, -1:]
    rows, columns = torch.nonzero(scores >= least, as_tuple=True)
    values = scores[rows, columns].cpu().numpy()
    order = np.lexsort((-values, rows.cpu().numpy()))
    counts = np.bincount(rows.cpu().numpy(), minlength=len(scores))
    chosen = order[(np.cumsum(counts) - counts)[:, None] + np.arange(k)]
    best = values[chosen]
    return np.where(np.isneginf(best), -1, columns.cpu().numpy()[chosen]), best


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
