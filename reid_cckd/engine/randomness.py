"""The states of torch's random generators: of one forward pass, and of all processes of a run."""

from __future__ import annotations

from typing import Any

import torch

from reid_cckd.engine.distributed import gather_objects, rank


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of the generators that a forward pass may draw from."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None}


def set_random_state(device: torch.device, state: dict[str, Any]) -> None:
    """Go back to a state."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)


def states_of_run() -> list[dict[str, Any]]:
    """The state of every generator of every process, in order of rank."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return gather_objects({"cpu": torch.get_rng_state(), "cuda": cuda})


def restore_state_of_run(states: list[dict[str, Any]], step: int) -> None:
    """This process's generators as they were; a rank that was not there then starts its own, by the step."""
    if rank() >= len(states):
        torch.manual_seed((step << 16) + rank())
        return
    mine = states[rank()]
    torch.set_rng_state(mine["cpu"])
    if mine["cuda"] and len(mine["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(mine["cuda"])
