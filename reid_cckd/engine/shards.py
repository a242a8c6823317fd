"""Weights whose rows are shared out between processes: whole in a checkpoint, in parts in the processes.

`TrainingObjective.shards` says of a parameter which rows of the whole this process holds. What an optimiser remembers
of each of its numbers is shared out with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim import Optimizer

from reid_cckd.engine.distributed import gather_objects, rank
from reid_cckd.engine.protocols import TrainingObjective

States = dict[str, Any]  # of "objective" and "optimizer"


def whole_states(objective: TrainingObjective, optimizer: Optimizer) -> States:
    """The states of both with the rows of all processes, on rank 0; every process must call it."""
    states = {"objective": objective.state_dict(), "optimizer": optimizer.state_dict()}
    return _changed(objective, optimizer, states, lambda part, rows: _whole(part))


def own_states(objective: TrainingObjective, optimizer: Optimizer, states: States) -> States:
    """Of the whole states what this process holds, whatever the number of processes that wrote them."""
    return _changed(objective, optimizer, states, lambda whole, rows: whole[rows.start : rows.stop].clone())


def _changed(
    objective: TrainingObjective, optimizer: Optimizer, states: States, change: Callable[[Tensor, range], Tensor]
) -> States:
    shards = objective.shards()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    new, remembered = dict(states["objective"]), dict(states["optimizer"]["state"])
    for name, parameter in objective.named_parameters():
        if parameter in shards and name in new:
            new[name] = change(new[name], shards[parameter])
    for number, parameter in enumerate(parameters):
        if parameter in shards and number in remembered:
            remembered[number] = {
                key: change(value, shards[parameter]) if _is_by_rows(value, parameter) else value
                for key, value in remembered[number].items()
            }
    return {"objective": new, "optimizer": {**states["optimizer"], "state": remembered}}


def _is_by_rows(value: Any, parameter: nn.Parameter) -> bool:
    """Whether a part of an optimiser's state has a row for each row of the parameter."""
    return isinstance(value, Tensor) and value.ndim == parameter.ndim and value.shape[1:] == parameter.shape[1:]


def _whole(part: Tensor) -> Tensor:
    """On rank 0 the rows of all processes in order of rank, in the memory of the CPU; elsewhere the own ones."""
    counts = gather_objects(len(part))
    mine = part.detach().cpu()
    if rank() > 0:
        dist.send(mine, 0)
        return mine
    rows = torch.empty(sum(counts), *mine.shape[1:], dtype=mine.dtype)
    for number, block in enumerate(rows.split(counts)):
        block.copy_(mine) if number == 0 else dist.recv(block, number)
    return rows
