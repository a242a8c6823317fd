"""Options that several evaluators take, checked and read alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args


def check_counts(counts: Sequence[int], name: str) -> None:
    """Refuse an empty list, and what is no whole number from 1 up."""
    if not len(counts) or any(k < 1 or int(k) != k for k in counts):
        raise ValueError(f"{name} must be whole numbers from 1 up, are {list(counts)}")


def check_rates(rates: Sequence[float], name: str) -> None:
    """Refuse rates that accept nothing or all."""
    if any(not 0 < rate < 1 for rate in rates):
        raise ValueError(f"{name} must lie between 0 and 1, are {list(rates)}")


def check_chunk(chunk: int | None) -> None:
    """Refuse a chunk of no rows."""
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, is {chunk}")


def check_word(word: str, known: Any, name: str) -> None:
    """Refuse what is no word of the Literal ``known``."""
    if word not in get_args(known):
        raise ValueError(f"{name} must be one of {get_args(known)}, is {word!r}")


def accepted(rate: float, impostors: int) -> int:
    """How many impostors a rate accepts; the hair's breadth keeps 1e-6 of a million at 1."""
    return int(rate * impostors * (1 + 1e-12))
