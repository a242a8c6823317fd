"""Mistakes that a user can mend: commands print the message alone, without a traceback, and exit with 2."""

from __future__ import annotations

import difflib
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
    """``" Did you mean 'x'?"`` for the name nearest to ``wanted``, whatever its case, or nothing."""
    folded = {name.rstrip("/").lower(): name for name in names}
    close = difflib.get_close_matches(wanted.lower(), folded, n=1, cutoff=0.6)
    return f" Did you mean {folded[close[0]]!r}?" if close else ""
