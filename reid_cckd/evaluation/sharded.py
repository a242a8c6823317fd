"""Retrieval with the gallery divided over the processes of torch.distributed, equal to that of one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import distributed as dist

from reid_cckd.evaluation.products import chunk_size, product_chunks, workers
from reid_cckd.evaluation.ranking import Progress, Relevance, match_positions
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
    with exact_float32(place), workers() as pool:
        chunks = product_chunks(queries, items, chunk or chunk_size(len(queries), len(gallery)), pool)
        positions = match_positions(chunks, items.lengths, relevance, pool, progress, own, dist.all_reduce)
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
