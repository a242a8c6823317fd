"""Alpha query expansion: a query moves towards its best matches before it searches again."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from reid_cckd.evaluation.neighbours import rank_gallery
from reid_cckd.evaluation.rows import Embeddings, exact_float32, two_sets


def expand_queries(
    query: Embeddings,
    gallery: Embeddings,
    *,
    k: int = 10,
    alpha: float = 3.0,
    device: torch.device | str | None = None,
    chunk: int | None = None,
) -> NDArray[np.float32]:
    """(Q, D) unit rows: each query plus its k nearest gallery rows, weighted by max(similarity, 0) ** alpha.

    Expand the gallery by itself with the same call. ``alpha`` 0 averages plainly.

    Raises:
        ValueError: as `rank_gallery`, or a negative alpha.

    Source: Radenovic et al., Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2019, section 3.5.
    """
    if alpha < 0:
        raise ValueError(f"alpha must be at least 0, is {alpha}")
    indices, scores = rank_gallery(query, gallery, k, device=device, chunk=chunk)
    queries, items = two_sets(query, gallery, device, ("query", "gallery"))
    weights = torch.from_numpy(np.maximum(scores, 0) ** np.float32(alpha)).to(queries.device)
    expanded = []
    with exact_float32(queries.device):
        for start in range(0, len(queries), 1024):
            rows = queries.unit(start, start + 1024)
            near = items.take(indices[start : start + 1024])
            rows = rows + torch.einsum("qk,qkd->qd", weights[start : start + 1024], near)
            expanded.append(torch.nn.functional.normalize(rows, dim=1).cpu())
    return torch.cat(expanded).numpy()
