"""Approximate nearest neighbours by faiss, with the recall that the approximation costs."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reid_cckd.evaluation.neighbours import rank_gallery
from reid_cckd.evaluation.rows import BLOCK, Embeddings, Rows, two_sets

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class ApproximateResult:
    """(Q, k) gallery rows, best first (-1 where the index found fewer), and their cosine similarities.

    ``recall``: share of the exact k nearest that was found, over ``num_checked`` queries drawn for the comparison.
    """

    indices: NDArray[np.int64]
    scores: NDArray[np.float32]
    recall: float
    num_checked: int
    build_seconds: float
    search_seconds: float
    index: str  # faiss's name of it


def search_approximately(
    query: Embeddings,
    gallery: Embeddings,
    k: int = 10,
    *,
    index: str = "ivf",
    effort: int = 32,
    check: int = 200,
    seed: int = 0,
) -> ApproximateResult:
    """The k most similar of ``gallery`` (G, D) for each query (Q, D), most of them, faster than all products.

    ``index``: "ivf" (inverted lists, about 4 sqrt(G) of them), "hnsw" (a graph, 32 neighbours) or any string of faiss's
    index_factory. ``effort`` is how many lists are visited (nprobe) or candidates kept (efSearch). ``check`` queries,
    drawn with ``seed``, are searched exactly too. Memory: a normalised copy of the gallery, as faiss keeps it.

    Raises:
        ValueError: as `rank_gallery`; an index that faiss does not know; k above G; effort or check below 1.
        ImportError: faiss is not installed.

    Source: Douze et al., The Faiss Library, 2024.
    """
    import faiss

    if min(k, effort, check) < 1 or k > len(gallery):
        raise ValueError(f"k, effort and check must be at least 1 and k at most {len(gallery)}: {k}, {effort}, {check}")
    queries, items = two_sets(query, gallery, _CPU, ("query", "gallery"))
    names = {"ivf": f"IVF{_lists(len(items))},Flat", "hnsw": "HNSW32"}
    name = names.get(index, index)
    start = time.perf_counter()
    built = _build(faiss, name, items, effort, seed)
    middle = time.perf_counter()
    scores, indices = built.search(queries.unit(0, len(queries)).numpy(), k)
    seconds = (middle - start, time.perf_counter() - middle)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(queries))[:check])
    exact, _ = rank_gallery(queries.unit(0, len(queries))[torch.from_numpy(drawn)], gallery, k)
    found = [len(np.intersect1d(one, other)) for one, other in zip(exact, indices[drawn], strict=True)]
    return ApproximateResult(indices, scores, sum(found) / exact.size, len(drawn), *seconds, name)


def _lists(count: int) -> int:
    """As faiss advises, with at least 39 rows to train each on."""
    return max(1, min(int(4 * count**0.5), count // 39))


def _build(faiss: Any, name: str, items: Rows, effort: int, seed: int) -> Any:
    try:
        index = faiss.index_factory(items.width, name, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ValueError(f"index: faiss knows no {name!r}; expected ivf, hnsw or a string of its factory") from error
    if not index.is_trained:
        drawn = np.sort(np.random.default_rng([seed, 1]).permutation(len(items))[: 256 * _lists(len(items))])
        index.train(items.take(drawn).numpy())
    for start in range(0, len(items), BLOCK):
        index.add(items.unit(start, start + BLOCK).numpy())
    _make_effort(faiss, index, effort)
    return index


def _make_effort(faiss: Any, index: Any, effort: int) -> None:
    """Of inverted lists or a graph, inside whatever transforms, numbers or refines; other indices know no effort."""
    for name in ("nprobe", "efSearch"):
        with contextlib.suppress(RuntimeError):
            faiss.ParameterSpace().set_index_parameter(index, name, effort)
            return
