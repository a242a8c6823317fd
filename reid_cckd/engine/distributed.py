"""The processes of one run: who they are, waiting for one another, dividing work. Alone, all of it does nothing.

torchrun (or SLURM's srun with the same variables) starts the processes; torch.distributed connects them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from reid_cckd.errors import ConfigError, DataError, UserError

PATIENCE = timedelta(hours=1)  # of the others while rank 0 evaluates
T = TypeVar("T")


def is_distributed() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """The number of this process; 0 writes files and speaks."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if is_distributed() else 1


@contextlib.contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Connect with the other processes that torchrun started, if it did; all but rank 0 are silent on stdout.

    Raises:
        ConfigError: they do not find each other: the port is in use, the address is wrong, or one is missing.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    _connect(device)
    try:
        with contextlib.ExitStack() as stack:
            if rank() != 0:
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
            yield
    finally:
        dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """The GPU of this process among those of its machine.

    Raises:
        ConfigError: there are fewer GPUs than processes on this machine.
    """
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type != "cuda" or device.index is not None or "WORLD_SIZE" not in os.environ:
        return device
    if number >= torch.cuda.device_count():
        raise ConfigError(
            f"This machine has {torch.cuda.device_count()} GPUs, and torchrun started process {number + 1} on it. "
            f"Start as many processes as GPUs (--nproc-per-node), or set train.device: cpu."
        )
    return torch.device("cuda", number)


def _connect(device: torch.device) -> None:
    place = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        store, number, count = next(rendezvous("env://", timeout=PATIENCE))
        # torchrun's store outlives a restart, and with it the addresses of the processes that were lost
        attempt = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group(backend, store=attempt, rank=number, world_size=count, timeout=PATIENCE)
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"The processes of this run cannot meet at {place}: {reason}. If the port is in use, choose another "
            f"(torchrun --master-port, or --rdzv-endpoint HOST:PORT); on several machines every one must reach it."
        ) from error


def barrier() -> None:
    """Wait for all processes."""
    if is_distributed():
        dist.barrier()


def gather_objects(value: T) -> list[T]:
    """A value of each process, in order of rank."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def on_rank_zero(work: Callable[[], T]) -> T:
    """What ``work`` returns on rank 0, on all processes; a fault there is raised on all: nobody waits for ever."""
    if not is_distributed():
        return work()
    box: list[Any] = [None, None]
    if rank() == 0:
        try:
            box[0] = work()
        except (UserError, ValueError, TypeError, OSError) as error:
            box[1] = error
    dist.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise box[1]
    result: T = box[0]
    return result


def any_process(flag: bool) -> bool:
    """Whether one of the processes says so."""
    if not is_distributed():
        return flag
    said = torch.tensor([float(flag)])
    dist.all_reduce(said)
    return bool(said.item())


def share_of(count: int, number: int, size: int = 1) -> range:
    """The numbers below ``count`` that process ``number`` works on: whole batches of ``size``, but for the last."""
    batches = -(-count // size)
    edges = [batches * part // world_size() * size for part in (number, number + 1)]
    return range(edges[0], min(edges[1], count))


def exchange_rows(rows: Tensor, size: int = 1) -> Tensor:
    """``rows``, in place, of which each process has filled in its share and gets the others'."""
    for number in range(world_size()) if is_distributed() else ():
        if own := share_of(len(rows), number, size):
            dist.broadcast(rows[own.start : own.stop], src=number)
    return rows


def share_buffers(network: nn.Module) -> nn.Module:
    """The network, its buffers those of rank 0: batch norms count each process's own part of the batches."""
    for buffer in network.buffers() if is_distributed() else ():
        dist.broadcast(buffer, src=0)
    return network


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """The mean over processes of gradients that DistributedDataParallel does not look after."""
    for parameter in parameters if is_distributed() else ():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world_size()


def check_alike(facts: dict[str, str]) -> None:
    """Refuse to start where processes were given different things.

    Raises:
        DataError: names what differs, and on which ranks.
    """
    everywhere = gather_objects(facts)
    for name, mine in everywhere[0].items():
        other = [number for number, theirs in enumerate(everywhere) if theirs.get(name) != mine]
        if other:
            raise DataError(
                f"{name} is not the same on all processes: rank 0 has {mine[:200]}, rank {other[0]} has "
                f"{everywhere[other[0]].get(name, 'nothing')[:200]} ({len(other)} of {len(everywhere)} differ from "
                f"rank 0). Give every machine the same files and the same command."
            )
