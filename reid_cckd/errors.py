"""Mistakes that a user can mend: commands print the message alone, without a traceback, and exit with 2."""

from __future__ import annotations


class UserError(Exception):
    """What was wrong, where, what was expected and what to do, in one paragraph."""


class ConfigError(UserError):
    """A configuration that cannot be run as it is written."""


class DataError(UserError):
    """Data on disk that is missing, misplaced or damaged."""


class CheckpointError(UserError):
    """A checkpoint that is damaged or belongs to something else."""
