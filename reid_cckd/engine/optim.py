"""timm's optimisers and schedules, stepped once per update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from reid_cckd.errors import ConfigError

if TYPE_CHECKING:  # timm takes as long to import as torch, and most commands do not train
    from timm.scheduler.scheduler import Scheduler


FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)  # which torch has in one operation on a GPU


def create_optimizer(
    networks: Sequence[nn.Module], name: str, lr: float, weight_decay: float, options: dict[str, Any]
) -> Optimizer:
    """One optimiser over the trainable parameters of all networks (the student, and losses that learn).

    On a GPU in torch's fused form, where it has one and ``options`` say nothing else.

    Raises:
        ConfigError: timm has no such optimiser, or it refuses an option.
    """
    from timm.optim import create_optimizer_v2

    everything = nn.ModuleList(networks)
    try:
        optimizer: Optimizer = create_optimizer_v2(everything, name, lr=lr, weight_decay=weight_decay, **options)
    except (ValueError, TypeError, AssertionError, KeyError, RuntimeError) as error:
        raise ConfigError(f"optim: timm cannot make the optimiser {name!r} with {options}: {error}") from error
    _fuse(optimizer)
    return optimizer


def _fuse(optimizer: Optimizer) -> None:
    """One operation for all parameters of a GPU, where nobody chose a way to step."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    told = optimizer.defaults
    chosen = any(told.get(way) is not None for way in ("fused", "foreach"))
    chosen |= any(told.get(way) for way in ("capturable", "differentiable"))
    if isinstance(optimizer, FUSED) and not chosen and all(parameter.is_cuda for parameter in parameters):
        for group in optimizer.param_groups:
            group["fused"] = True


def take_up(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Go on from the ``state_dict`` of an optimiser on any device, fused or not, in any memory order.

    Whether to step in one operation stays as it is here. What is remembered of a parameter gets its memory order: such
    an operation passes over all of them as they lie, and on a CPU nothing would say that they lie otherwise.

    Raises:
        ValueError: it is the state of other parameters.
    """
    pairs = zip(state["param_groups"], optimizer.param_groups, strict=True)
    groups = [{**group, **({"fused": own["fused"]} if "fused" in own else {})} for group, own in pairs]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for parameter, remembered in optimizer.state.items():
        for name, value in remembered.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                remembered[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def moves_rows_apart(name: str, lr: float, weight_decay: float, options: dict[str, Any]) -> bool:
    """Whether such an optimiser moves a row of a weight by that row's gradients alone, so that parts can be trained."""
    whole = torch.linspace(0.1, 1.2, 12).view(4, 3)

    def trained(rows: int) -> Tensor:
        parts = nn.ParameterList([nn.Parameter(part.clone()) for part in whole.split(rows)])
        optimizer = create_optimizer([parts], name, lr, weight_decay, options)
        for step in range(1, 4):
            for part, gradient in zip(parts, (whole.sin() * step).split(rows), strict=True):
                part.grad = gradient.clone()
            optimizer.step()
        return torch.cat([part.detach() for part in parts])

    return torch.allclose(trained(4), trained(2), rtol=1e-5, atol=1e-8)


def create_schedule(
    optimizer: Optimizer,
    name: str,
    *,
    epochs: int,
    steps_per_epoch: int,
    warmup_epochs: int,
    min_lr: float,
    milestones: Sequence[int],
    decay_rate: float,
) -> Scheduler:
    """A schedule that is a function of the number of updates alone, so that a resumed run continues it exactly.

    A training that is over before it is warm takes the first steps of a longer one.
    """
    from timm.scheduler import create_scheduler_v2

    constant = name == "constant"
    schedule: Scheduler
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched="multistep" if constant else name,
        num_epochs=epochs,
        warmup_epochs=warmup_epochs,
        warmup_lr=0.0 if warmup_epochs == 0 else optimizer.param_groups[0]["lr"] / (warmup_epochs * steps_per_epoch),
        min_lr=min_lr,
        decay_milestones=[] if constant else list(milestones),
        decay_rate=decay_rate if name == "multistep" else 1.0,
        step_on_epochs=False,
        updates_per_epoch=steps_per_epoch,
    )
    schedule.step_update(0)
    return schedule
