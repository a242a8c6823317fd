"""Retrieval with the gallery divided over the processes of torch.distributed, equal to that of one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import distributed as dist

from reid_cckd.evaluation.ranking import Pairs, Positions, Progress, Relevance, chunk_size, count_above, product_chunks
from reid_cckd.evaluation.retrieval import (
    CameraPolicy,
    Convention,
    RetrievalResult,
    camera_tags,
    check_options,
    no_match,
    score_positions,
)
from reid_cckd.evaluation.rows import (
    BLOCK,
    Embeddings,
    Ids,
    Rows,
    choose_device,
    exact_float32,
    same_length,
    shared_codes,
)

T = TypeVar("T")


def evaluate_sharded(
    query: Embeddings,
    gallery: Embeddings,
    query_ids: Ids,
    gallery_ids: Ids,
    query_cameras: Ids | None = None,
    gallery_cameras: Ids | None = None,
    ranks: Sequence[int] = (1, 5, 10),
    *,
    convention: Convention = "torchreid",
    cameras: CameraPolicy = "exclude-same",
    device: torch.device | str | None = None,
    chunk: int | None = None,
    block: int = BLOCK,
    progress: Progress | None = None,
) -> RetrievalResult:
    """`evaluate_retrieval` by all processes of the default group together; each of them gets the whole result.

    Every process gives the same arguments and reads only its own part of ``gallery``, which is best a memory map. Parts
    are whole blocks of ``block`` rows, which one process multiplies too, so the scores are the same to the last bit;
    a gallery of fewer blocks than processes leaves some idle. Of a chunk of queries the processes exchange the scores
    of the true matches and how many items lie above each, nothing else.

    Raises:
        ValueError, TypeError: as `evaluate_retrieval`, on every process, whichever one found the fault.
    """
    check_options(ranks, convention, cameras, chunk)
    place = choose_device(device, gallery, query)
    own = _part(len(gallery), block)
    queries, items = _together(lambda: _rows(query, gallery, own, place))
    same_length(query=queries, query_ids=query_ids, query_cameras=query_cameras)
    same_length(gallery=gallery, gallery_ids=gallery_ids, gallery_cameras=gallery_cameras)
    query_tags, gallery_tags, policy = camera_tags(query_cameras, gallery_cameras, cameras)
    codes = shared_codes(query_ids, gallery_ids, ("query_ids", "gallery_ids"))
    relevance = Relevance(*codes, query_tags, gallery_tags)
    positions = _positions(queries, items, own, relevance, chunk or chunk_size(len(gallery)), progress)
    if not positions.counts.any():
        raise ValueError(no_match(relevance, query_tags, gallery_tags))
    return score_positions(positions, ranks, convention, policy, len(gallery), None)


def _part(count: int, block: int) -> range:
    """The rows of this process: whole blocks, as evenly as they go."""
    blocks, rank, world = -(-count // block), dist.get_rank(), dist.get_world_size()
    edges = [min(count, block * (blocks * k // world)) for k in (rank, rank + 1)]
    return range(*edges)


def _rows(query: Embeddings, gallery: Embeddings, own: range, place: torch.device) -> tuple[Rows, Rows]:
    queries, items = Rows(query, "query", place), Rows(gallery[own.start : own.stop], "gallery", place, first=own.start)
    if not len(query) or not len(gallery):
        raise ValueError(f"{'query' if not len(query) else 'gallery'} is empty")
    if queries.width != items.width:
        raise ValueError(f"query has {queries.width} columns and gallery has {items.width}")
    return queries, items


def _together(work: Callable[[], T]) -> T:
    """Do local work; where it fails on one process it fails on all, so that nobody waits for ever."""
    fault: Exception | None = None
    try:
        done = work()
    except (ValueError, TypeError) as error:
        fault = error
    faults: list[Exception | None] = [None] * dist.get_world_size()
    dist.all_gather_object(faults, fault)
    first = next((fault for fault in faults if fault is not None), None)
    if first is not None:
        raise first
    return done


def _positions(
    queries: Rows, items: Rows, own: range, relevance: Relevance, size: int, progress: Progress | None
) -> Positions:
    places, counts = [], []
    with exact_float32(queries.device):
        for start, products in product_chunks(queries, items, size):
            scores = products.div_(items.lengths)
            pairs = relevance.pairs(start, start + len(scores))
            places.append(_places(scores, pairs, own))
            counts.append(np.bincount(pairs.rows, minlength=len(scores)))
            if progress is not None:
                progress(start + len(scores), len(queries))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return Positions(np.concatenate(places), offsets)


def _places(scores: Tensor, pairs: Pairs, own: range) -> NDArray[np.int64]:
    """0-based places of the true matches of a chunk, best first within a query; ``scores`` are those of this part."""
    junk = (pairs.junk_columns >= own.start) & (pairs.junk_columns < own.stop)
    junk_rows, junk_columns = (torch.from_numpy(x[junk]) for x in (pairs.junk_rows, pairs.junk_columns - own.start))
    scores[junk_rows.to(scores.device), junk_columns.to(scores.device)] = -torch.inf
    held = (pairs.columns >= own.start) & (pairs.columns < own.stop)
    rows, columns = (torch.from_numpy(x[held]).to(scores.device) for x in (pairs.rows, pairs.columns - own.start))
    wanted = torch.zeros(len(held), device=scores.device)
    wanted[torch.from_numpy(held).to(scores.device)] = scores[rows, columns]
    dist.all_reduce(wanted)  # each match is held by one process, so this adds zeros to it
    ahead = torch.from_numpy(_ahead(scores.cpu().numpy(), wanted.cpu().numpy(), pairs, own, held)).to(scores.device)
    dist.all_reduce(ahead)
    places = ahead.cpu().numpy()
    return places[np.lexsort((places, pairs.rows))]


def _ahead(
    table: NDArray[np.float32], wanted: NDArray[np.float32], pairs: Pairs, own: range, held: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """How many items of this part stand before each true match: those that score higher, and earlier ones as high."""
    ahead = np.zeros(len(wanted), dtype=np.int64)
    if not len(own):
        return ahead
    bounds = np.searchsorted(pairs.rows, np.arange(len(table) + 1))
    for row, scores in enumerate(table):
        of_row = slice(bounds[row], bounds[row + 1])
        if of_row.start < of_row.stop:
            ahead[of_row], equal = count_above(scores, wanted[of_row])
            for match in of_row.start + np.flatnonzero(equal > held[of_row]):
                earlier = scores[: max(0, pairs.columns[match] - own.start)]
                ahead[match] += np.count_nonzero(earlier == wanted[match])
    return ahead
