"""Multi-query retrieval: one embedding for all query images of a person at a camera."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from reid_cckd.evaluation.rows import Embeddings, Ids, Rows, codes_of, exact_float32, same_length

_CPU = torch.device("cpu")


def pool_queries(
    query: Embeddings, query_ids: Ids, query_cameras: Ids
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """((P, D) means of the L2-normalised rows, (P,) first row of each): one per id and camera, in order of appearance.

    Give ``query_ids[first]`` and ``query_cameras[first]`` with the means to `evaluate_retrieval`.

    Raises:
        ValueError: different lengths, no rows, a row that is zero or not finite.

    Source: Zheng et al., Scalable Person Re-identification, ICCV 2015, section 5.
    """
    rows = Rows(query, "query", _CPU)
    same_length(query=rows, query_ids=query_ids, query_cameras=query_cameras)
    if len(rows) == 0:
        raise ValueError("query is empty")
    groups = np.stack([codes_of(query_ids, "query_ids"), codes_of(query_cameras, "query_cameras")])
    _, first, inverse = np.unique(groups, axis=1, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))  # from the sorted groups to their order of appearance
    members = torch.from_numpy(order[inverse.reshape(-1)])
    with exact_float32(_CPU):
        sums = torch.zeros(len(first), rows.width).index_add_(0, members, rows.unit(0, len(rows)))
        means = sums / torch.bincount(members)[:, None]
    return means.numpy(), np.sort(first)
