"""Of images that look for their like it must be known whom they show."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_cckd.data.manifest import UNLABELLED
from reid_cckd.errors import DataError


def refuse_unlabelled(labels: NDArray[Any], what: str) -> None:
    """Raises DataError where some of ``what`` have no label: together they would pass for one person."""
    count = int(np.count_nonzero(labels == UNLABELLED)) if labels.dtype.kind == "i" else 0
    if count:
        raise DataError(
            f"{count:,} of {len(labels):,} {what} are unlabelled (label {UNLABELLED}), and would count as images of "
            "one person. Label them, or leave them out; only distractors, which nobody looks for, may have no label."
        )
