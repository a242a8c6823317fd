"""What options of losses have to be."""

from __future__ import annotations

import math


def positive(name: str, value: float) -> float:
    """The value, or a ValueError that names it."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: expected a number above 0, got {value}")
    return value
