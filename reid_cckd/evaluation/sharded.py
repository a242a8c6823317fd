"""Retrieval with the gallery divided over the processes of torch.distributed, equal to that of one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed as dist

from reid_cckd.evaluation.expansion import expand_queries
from reid_cckd.evaluation.options import check_word
from reid_cckd.evaluation.products import chunk_size, product_chunks, workers
from reid_cckd.evaluation.ranking import Progress, Relevance, match_positions
from reid_cckd.evaluation.reranking import Reranking
from reid_cckd.evaluation.retrieval import (
    CameraPolicy,
    Convention,
    RetrievalResult,
    camera_tags,
    check_options,
    evaluate_retrieval,
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
    two_sets,
)
from reid_cckd.evaluation.search import search_chunk
from reid_cckd.evaluation.share import Share

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
    reranking: Reranking | None = None,
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

    With ``reranking`` every process reads everything, and they share the search for the neighbours of all rows, which
    are (Q + G)^2 products, the neighbourhoods and then the queries, each in the blocks that one process would make.

    Raises:
        ValueError, TypeError: as `evaluate_retrieval`, on every process, whichever one found the fault.
    """
    check_options(ranks, cameras, chunk)
    check_word(convention, Convention, "convention")
    if reranking is not None:
        _together(lambda: two_sets(query, gallery, device, ("query", "gallery")))
        lists = query_ids, gallery_ids, query_cameras, gallery_cameras, ranks
        options: dict[str, Any] = {"convention": convention, "cameras": cameras, "chunk": chunk, "progress": progress}
        return evaluate_retrieval(query, gallery, *lists, reranking=reranking, device=device, share=TOGETHER, **options)
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
        positions = match_positions(chunks, items.lengths, relevance, pool, progress, own, _add)
    if not positions.counts.any():
        raise ValueError(no_match(relevance, query_tags, gallery_tags))
    return score_positions(positions, ranks, convention, policy, len(gallery), None)


def expand_sharded(
    query: Embeddings,
    gallery: Embeddings,
    *,
    k: int = 10,
    alpha: float = 3.0,
    device: torch.device | str | None = None,
    chunk: int | None = None,
) -> NDArray[np.float32]:
    """`expand_queries` by all processes of the default group together; each of them gets all rows.

    Every process gives the same arguments, reads all of ``gallery`` and expands its part of ``query``, whole chunks.

    Raises:
        ValueError: as `expand_queries`, on every process, whichever one found the fault.
    """
    size = chunk or search_chunk(len(query))
    own = _part(len(query), size)
    options: dict[str, Any] = {"k": k, "alpha": alpha, "device": device, "chunk": size}
    rows = _together(lambda: expand_queries(query[own.start : own.stop] if own else query[:1], gallery, **options))
    return _whole(rows[: len(own)])


def _whole(rows: NDArray[Any]) -> NDArray[Any]:
    """The rows of all processes, one after another."""
    lengths: list[int] = [0] * dist.get_world_size()
    dist.all_gather_object(lengths, len(rows))
    whole = torch.empty(sum(lengths), *rows.shape[1:], dtype=torch.from_numpy(rows).dtype, device=_meeting_place())
    for rank, part in enumerate(whole.split(lengths)):
        if rank == dist.get_rank():
            part.copy_(torch.from_numpy(rows))
        if len(part):
            dist.broadcast(part, src=rank)
    return whole.cpu().numpy()


def _add(values: torch.Tensor) -> None:
    """Sum over all processes, in place."""
    brought = values.to(_meeting_place())
    dist.all_reduce(brought)
    values.copy_(brought)


def _meeting_place() -> torch.device:
    """Where the processes exchange tensors: NCCL alone takes none of the CPU."""
    nccl = dist.get_backend() == dist.Backend.NCCL
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


def _part(count: int, block: int) -> range:
    """The rows of this process: whole blocks, as evenly as they go."""
    blocks, world, rank = -(-count // block), dist.get_world_size(), dist.get_rank()
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


TOGETHER = Share(_part, _whole)
