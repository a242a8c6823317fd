"""The gradient of a batch: in one piece, or, where it does not fit into memory, of its rows first and then in chunks.

In chunks (Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021): all rows are
computed without a graph, the loss is differentiated by the rows, and each chunk is computed again with a graph that
takes its rows' gradient back. That is the gradient of the whole batch, because the loss reaches the network through
the rows only. Batch norms see a chunk at a time in both passes, as they would on as many devices.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from reid_cckd.batch import Output
from reid_cckd.engine.distributed import is_distributed
from reid_cckd.engine.randomness import random_state, set_random_state

Context = Callable[[], AbstractContextManager[object]]
ALL_STAGES = Output._fields


class Shown(nn.Module):
    """A network that gives the named stages of its output only.

    DistributedDataParallel waits for the gradient of everything that the output depends on: a stage that no loss
    looks at must not be in it.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, stages: Collection[str]) -> Output:
        output: Output = self.network(images)
        return Output(*(value if name in stages else None for name, value in output._asdict().items()))  # type: ignore[arg-type]


def show_stages(network: nn.Module, device: torch.device) -> nn.Module:
    """``forward(images, stages) -> Output``; in a distributed run the gradients of it are averaged over processes."""
    shown = Shown(network)
    if not is_distributed():
        return shown
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(shown, device_ids=devices, find_unused_parameters=True)


def backward_in_chunks(
    forward: nn.Module,
    images: Tensor,
    chunk: int,
    stages: Collection[str],
    loss_of: Callable[[Output], Tensor],
    precision: Context,
) -> None:
    """Add the gradient of ``loss_of(all rows)`` to the parameters, holding the graph of one chunk at a time.

    ``forward``: a `Shown` network, or its DistributedDataParallel. Random numbers (dropout) are drawn alike in both
    passes and run on after them as if there had been one.
    """
    network = forward.module if isinstance(forward, DistributedDataParallel) else forward
    parts, states, rows = images.split(chunk), [], []
    with torch.no_grad(), untouched_statistics(network):
        for part in parts:
            states.append(random_state(images.device))
            with precision():
                rows.append(network(part, stages))
    leaves = _leaves(rows)
    loss_of(leaves).backward()
    after = random_state(images.device)
    sizes = [len(part) for part in parts]
    for number, part in enumerate(parts):
        set_random_state(images.device, states[number])
        with _synchronised(forward, last=number == len(parts) - 1), precision():
            output = forward(part, stages)
            _pull(output, leaves, slice(sum(sizes[:number]), sum(sizes[: number + 1])))
    set_random_state(images.device, after)


def _leaves(rows: Sequence[Output]) -> Output:
    """The rows of all chunks as one batch from which a gradient can be asked."""
    stages = [None if columns[0] is None else torch.cat(columns) for columns in zip(*rows, strict=True)]
    return Output(*(None if stage is None else stage.requires_grad_() for stage in stages))  # type: ignore[arg-type]


def _pull(output: Output, leaves: Output, part: slice) -> None:
    """Take the gradient of the rows of one chunk back through its graph."""
    pairs = [
        (mine, all_rows.grad[part])
        for mine, all_rows in zip(output, leaves, strict=True)
        if all_rows is not None and all_rows.grad is not None and mine is not None and mine.requires_grad
    ]
    if pairs:
        rows, gradients = zip(*pairs, strict=True)
        torch.autograd.backward(rows, gradients)


def _synchronised(forward: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Processes exchange gradients once, with the last chunk."""
    if isinstance(forward, DistributedDataParallel) and not last:
        return forward.no_sync()
    return contextlib.nullcontext()


@contextlib.contextmanager
def untouched_statistics(network: nn.Module) -> Iterator[None]:
    """Batch norms in training mode normalise by the batch but leave their running statistics as they are."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
