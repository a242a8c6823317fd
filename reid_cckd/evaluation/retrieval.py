"""Re-identification: mAP, CMC and mINP of queries against a gallery, exact and streaming."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from reid_cckd.evaluation.options import check_chunk, check_counts, check_word
from reid_cckd.evaluation.products import chunk_size, product_chunks, workers
from reid_cckd.evaluation.ranking import Positions, Progress, Relevance, match_positions
from reid_cckd.evaluation.reranking import Reranking, reranked_chunks
from reid_cckd.evaluation.rows import Codes, Embeddings, Ids, exact_float32, same_length, shared_codes, two_sets
from reid_cckd.evaluation.share import ALONE, Share

Convention = Literal["torchreid", "market1501"]
CameraPolicy = Literal["exclude-same", "ignore"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RetrievalResult:
    """Scores are fractions in [0, 1]; the arrays have one entry per query, NaN (rank 0) where it has no match."""

    per_query: ClassVar[tuple[str, ...]] = ("ap", "inp")  # arrays whose means are scores

    mean_ap: float
    mean_inp: float
    cmc: dict[int, float]
    num_valid_queries: int
    num_queries: int
    num_gallery: int
    convention: Convention
    camera_policy: str  # "exclude-same", "ignore", or "none given": every same-id item counted as a match
    reranking: Reranking | None
    valid: NDArray[np.bool_]
    ap: Floats
    inp: Floats
    first_rank: NDArray[np.int64]  # 1 is the top

    def cmc_at(self, ranks: Sequence[int]) -> dict[int, float]:
        """Rank -> share of queries whose first match stands there or before, under the result's own convention."""
        found = np.bincount(self.first_rank[self.valid], minlength=max(ranks) + 1).cumsum()
        queries = self.num_queries if self.convention == "market1501" else self.num_valid_queries
        return {int(k): float(found[k] / queries) for k in ranks}

    def summary(self) -> dict[str, Any]:
        """The numbers without the arrays, ready for JSON."""
        ranks = {f"rank{k}": value for k, value in self.cmc.items()}
        counts = {name: getattr(self, name) for name in ("num_valid_queries", "num_queries", "num_gallery")}
        reranking = asdict(self.reranking) if self.reranking is not None else None
        protocol = {"convention": self.convention, "camera_policy": self.camera_policy, "reranking": reranking}
        return {"mean_ap": self.mean_ap, **ranks, "mean_inp": self.mean_inp, **counts, **protocol}


def evaluate_retrieval(
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
    progress: Progress | None = None,
    share: Share = ALONE,
) -> RetrievalResult:
    """Rank the gallery (G, D) by cosine similarity for each query (Q, D) and score the places of the true matches.

    Gallery items of the query's id seen by the query's own camera are junk and left out, unless ``cameras`` is
    "ignore" or no cameras are given; the result says which. Equal similarities keep the gallery's order.

    ``convention``: "torchreid" (also fast-reid, TransReID) takes AP as the mean of the precision at each hit and
    averages over queries that have a match. "market1501" (the data set's own code) takes the trapezoid rule and counts
    a query without match as 0.

    ``reranking`` ranks by k-reciprocal neighbours among queries and gallery; its scores come from all queries at once,
    so its numbers are to be compared with their like only.

    ``share`` divides queries and neighbourhoods between processes that all have the same arguments, and each gets the
    whole result (`evaluate_sharded`).

    ``device`` (default: the gallery's, then the query's) computes the float32 products; ``chunk`` queries at a time
    need chunk x G x 8 bytes there (default: at most 384 MiB, but for galleries of millions). A GPU takes 5 more for
    counts, and keeps the rows of the host that fill up to a quarter of its free memory. ``progress(done, total)`` is
    called after each chunk.

    Raises:
        ValueError: an empty set, different widths or lengths, a row that is zero or not finite (with its number),
            cameras on one side only, or no query with any match. TypeError: embeddings or ids of a wrong type.

    Sources: Zheng et al., Scalable Person Re-identification, ICCV 2015; mINP: Ye et al., TPAMI 2021, eq. 6.
    """
    names = ("query_ids", "gallery_ids")
    check_options(ranks, cameras, chunk)
    check_word(convention, Convention, "convention")
    queries, items = two_sets(query, gallery, device, ("query", "gallery"))
    same_length(query=queries, query_ids=query_ids, query_cameras=query_cameras)
    same_length(gallery=items, gallery_ids=gallery_ids, gallery_cameras=gallery_cameras)
    query_tags, gallery_tags, policy = camera_tags(query_cameras, gallery_cameras, cameras)
    relevance = Relevance(*shared_codes(query_ids, gallery_ids, names), query_tags, gallery_tags)
    size = chunk or chunk_size(len(queries), len(items))
    own = share.part(len(queries), size)
    with exact_float32(queries.device), workers() as pool:
        if reranking is None:
            chunks, lengths = product_chunks(queries, items, size, pool, own), items.lengths
        else:
            chunks = reranked_chunks(queries, items, reranking, pool, size, share)
            lengths = torch.ones(len(items))
        positions = match_positions(chunks, lengths, relevance, pool, progress, queries=own).whole(share)
    if not positions.counts.any():
        raise ValueError(no_match(relevance, query_tags, gallery_tags))
    return score_positions(positions, ranks, convention, policy, len(items), reranking)


def camera_tags(
    query_cameras: Ids | None, gallery_cameras: Ids | None, policy: CameraPolicy
) -> tuple[Codes | None, Codes | None, str]:
    """Camera codes of both sides where the policy uses them, and the policy in words for the result.

    Raises:
        ValueError: cameras on one side only.
    """
    if (query_cameras is None) != (gallery_cameras is None):
        raise ValueError("query_cameras and gallery_cameras must both be given or both be None")
    if query_cameras is None or gallery_cameras is None:
        return None, None, "none given"
    if policy == "ignore":
        return None, None, policy
    return *shared_codes(query_cameras, gallery_cameras, ("query_cameras", "gallery_cameras")), policy


def average_precision(positions: Positions, convention: Convention) -> Floats:
    """(Q,) average precision, NaN for a query without match."""
    hits = np.arange(len(positions.places)) - np.repeat(positions.offsets[:-1], positions.counts)  # 0, 1, ... a query
    precision = (hits + 1) / (positions.places + 1)
    if convention == "market1501":
        before = np.where(positions.places > 0, hits / np.maximum(positions.places, 1), 1.0)
        precision = (precision + before) / 2
    return mean_per_query(precision, positions)


def mean_per_query(values: Floats, positions: Positions) -> Floats:
    """(Q,) means of values that belong to the matches, NaN for a query without match."""
    owners = np.repeat(np.arange(len(positions.counts)), positions.counts)
    sums = np.bincount(owners, weights=values, minlength=len(positions.counts))
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / positions.counts, dtype=np.float64)


def score_positions(
    positions: Positions,
    ranks: Sequence[int],
    convention: Convention,
    policy: str,
    num_gallery: int,
    reranking: Reranking | None,
) -> RetrievalResult:
    """The metrics of the places of the true matches."""
    counts, valid = positions.counts, positions.counts > 0
    denominator = len(valid) if convention == "market1501" else int(valid.sum())
    first, inp = np.zeros(len(valid), dtype=np.int64), np.full(len(valid), np.nan)
    first[valid] = positions.places[positions.offsets[:-1][valid]] + 1
    inp[valid] = counts[valid] / (positions.places[positions.offsets[1:][valid] - 1] + 1)
    ap = average_precision(positions, convention)
    return RetrievalResult(
        mean_ap=float(ap[valid].sum() / denominator),
        mean_inp=float(inp[valid].sum() / denominator),
        cmc={int(k): float(np.count_nonzero(first[valid] <= k) / denominator) for k in ranks},
        num_valid_queries=int(valid.sum()),
        num_queries=len(valid),
        num_gallery=num_gallery,
        convention=convention,
        camera_policy=policy,
        reranking=reranking,
        valid=valid,
        ap=ap,
        inp=inp,
        first_rank=first,
    )


def check_options(ranks: Sequence[int], cameras: str, chunk: int | None) -> None:
    """Refuse ranks below 1, an unknown policy and an empty chunk."""
    check_counts(ranks, "ranks")
    check_chunk(chunk)
    check_word(cameras, CameraPolicy, "cameras")


def no_match(relevance: Relevance, query_tags: Codes | None, gallery_tags: Codes | None) -> str:
    """Why no query has a true match, as far as ids and cameras tell."""
    if not relevance.counts.any():
        return "no query has a true match: query_ids and gallery_ids share no id"
    assert query_tags is not None
    assert gallery_tags is not None
    cameras = len(np.union1d(query_tags, gallery_tags))
    return (
        "no query has a true match in another camera: every gallery item of its id was seen by its own camera "
        f"({cameras} camera{'s' * (cameras > 1)} in all); cameras='ignore' (evaluation.cameras: ignore) counts those"
    )
