"""How several processes divide rows among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Share:
    """By default one process does all.

    ``part(count, block)``: of ``count`` rows those of this process, whole blocks. ``whole``: the array of all rows,
    given those of this process; all processes call it and get the same.
    """

    part: Callable[[int, int], range] = lambda count, block: range(count)
    whole: Callable[[NDArray[Any]], NDArray[Any]] = lambda rows: rows


ALONE = Share()
