"""The processes of one run: who they are, waiting for one another, dividing work. Alone, all of it does nothing."""

from __future__ import annotations

from torch import distributed as dist


def is_distributed() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """The number of this process; 0 writes files and speaks."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if is_distributed() else 1


def barrier() -> None:
    """Wait for all processes."""
    if is_distributed():
        dist.barrier()
