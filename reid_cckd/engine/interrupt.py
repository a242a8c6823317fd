"""Ctrl-C and a scheduler's SIGTERM: finish the step, save, leave."""

from __future__ import annotations

import os
import signal
from types import FrameType


class Interrupted(Exception):  # noqa: N818 (it is no error)
    """The run was asked to stop and has saved its state; ``exit_code`` is 128 + the signal, as shells expect."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


class StopRequest:
    """A context in which SIGINT or SIGTERM is noted in ``signum``; a second SIGINT acts at once.

    A second SIGTERM does not: schedulers signal a whole tree of processes and torchrun passes its own on, so that one
    request comes twice. Under torchrun that holds for SIGINT too. SIGKILL always acts, and checkpoints survive it.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._previous[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        if signum == signal.SIGINT and "TORCHELASTIC_RUN_ID" not in os.environ:
            signal.signal(signum, signal.default_int_handler)
