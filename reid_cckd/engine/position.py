"""How far a run has come."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class Position:
    """``batch`` of ``epoch`` is next, ``step`` updates are done; behind an epoch's last batch it is to be evaluated."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float = -math.inf
    best_epoch: int = -1

    def is_past(self, row: Mapping[str, Any], score: str) -> bool:
        """Whether a row of the log was written before; one of scores, ``score`` among them, closes its epoch."""
        return row["step"] <= self.step and (score not in row or row["epoch"] <= self.epoch)
