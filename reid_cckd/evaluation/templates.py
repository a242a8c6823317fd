"""Templates: one embedding for all images of a person that belong together (IJB-B, IJB-C)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_cckd.evaluation.rows import BLOCK, Embeddings, Ids, Rows, as_array, codes_of, exact_float32, same_length

_CPU = torch.device("cpu")


def pool_templates(
    embeddings: Embeddings, templates: Ids, media: Ids, weights: NDArray[np.floating] | Tensor | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """((T, D) unit rows, (N,) the row of each image's template): templates in the order of their sorted ids.

    A template is the sum over its media of the mean over each medium's images, then L2-normalised: the frames of a
    video count as one photo. Rows (N, D) enter as they are, so that a short one, as networks give for a poor image,
    counts less; normalise them first for equal say. ``weights``: (N,) factors of the rows, such as detection scores.

    Raises:
        ValueError: different lengths, no rows, a row that is zero or not finite, a template whose images cancel out.

    Source: Whitelam et al., IARPA Janus Benchmark-B, CVPRW 2017; pooling as public evaluators of ArcFace have it.
    """
    rows = Rows(embeddings, "embeddings", _CPU)
    same_length(embeddings=rows, templates=templates, media=media, weights=weights)
    if len(rows) == 0:
        raise ValueError("embeddings is empty")
    owners = codes_of(templates, "templates")
    pairs = np.stack([owners, codes_of(media, "media")])
    parts, group = np.unique(pairs, axis=1, return_inverse=True)
    members = torch.from_numpy(group.reshape(-1))
    with exact_float32(_CPU):
        means = torch.zeros(parts.shape[1], rows.width)
        for start in range(0, len(rows), BLOCK):
            block = rows.raw(start, start + BLOCK)
            if weights is not None:
                block = block * torch.from_numpy(as_array(weights[start : start + BLOCK]).astype(np.float32))[:, None]
            means.index_add_(0, members[start : start + BLOCK], block)
        means /= torch.bincount(members)[:, None]
        sums = torch.zeros(int(parts[0, -1]) + 1, rows.width).index_add_(0, torch.from_numpy(parts[0]), means)
        unit = sums / Rows(sums, "templates", _CPU).lengths[:, None]
    return unit.numpy(), owners
