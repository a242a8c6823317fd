"""What public evaluators do with photos known to be of somebody else."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_cckd.evaluation.rows import Embeddings, Ids, Rows, as_array, codes_of, exact_float32, flags, same_length

_CPU = torch.device("cpu")


def clean_probes(probes: Embeddings, probe_ids: Ids, noisy: NDArray[np.bool_] | Tensor) -> NDArray[np.float32]:
    """(P, D) unit rows, the ``noisy`` ones (P,) replaced by the centre of their person's other rows.

    The centre is the L2-normalised mean of unit rows. Noisy distractors are `evaluate_identification`'s ``ignored``.

    Raises:
        ValueError: a person of whom every photo is noisy, different lengths, a row that is zero or not finite.
        TypeError: ``noisy`` is not boolean.

    Source: Deng et al., ArcFace, CVPR 2019, section 3.3 and its noise lists.
    """
    rows = Rows(probes, "probes", _CPU)
    same_length(probes=rows, probe_ids=probe_ids, noisy=noisy)
    people, noisy = codes_of(probe_ids, "probe_ids"), flags(noisy, "noisy")
    alone = np.setdiff1d(people[noisy], people[~noisy])
    if len(alone):
        name = as_array(probe_ids)[people == alone[0]][0]
        raise ValueError(f"probe_ids: every photo of {name} is noisy, so there is no centre to take instead")
    with exact_float32(_CPU):
        unit = rows.unit(0, len(rows))
        centres = torch.zeros(int(people.max()) + 1, rows.width)
        centres.index_add_(0, torch.from_numpy(people[~noisy]), unit[torch.from_numpy(~noisy)])
        own = centres[torch.from_numpy(people)]
        replaced = torch.where(torch.from_numpy(noisy)[:, None], torch.nn.functional.normalize(own, dim=1), unit)
    return replaced.numpy()
