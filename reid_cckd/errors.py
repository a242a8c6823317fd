"""Mistakes that a user can mend: commands print the message alone, without a traceback, and exit with 2."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable


class UserError(Exception):
    """What was wrong, where, what was expected and what to do, in one paragraph."""


class ConfigError(UserError):
    """A configuration that cannot be run as it is written."""


class DataError(UserError):
    """Data on disk that is missing, misplaced or damaged."""


class CheckpointError(UserError):
    """A checkpoint that is damaged or belongs to something else."""


def did_you_mean(wanted: str, names: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the name nearest to ``wanted``, whatever its case, or nothing.

    Of equally near names it is the one that begins most alike: resnet10q is more likely resnet10t than resnet61q.
    """
    word, folded = wanted.lower(), {name.rstrip("/").lower(): name for name in names}

    def nearness(name: str) -> tuple[float, int]:
        alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(name, word, strict=False))
        return difflib.SequenceMatcher(None, name, word).ratio(), len(list(alike))

    close = difflib.get_close_matches(word, folded, n=8, cutoff=0.6)
    return f" Did you mean {folded[max(close, key=nearness)]!r}?" if close else ""
