"""Weights shared out between two processes: whole in a checkpoint, whoever reads it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from reid_cckd.engine.shards import own_states, whole_states
from reid_cckd.losses import Objective, PartialMargin, Term
from tests.two_processes import in_two_processes

CLASSES, WIDTH = 7, 3


def state_after_steps(shard: bool, start: dict[str, Any] | None = None) -> tuple[dict[str, Any], Objective]:
    """Two steps of AdamW, from whole states if given, and the whole states then."""
    torch.manual_seed(0)
    head = PartialMargin(CLASSES, WIDTH, shard=shard)
    objective = Objective([Term("faces", head), Term("other", nn.Linear(2, 2))])
    optimizer = torch.optim.AdamW(objective.parameters(), lr=0.1)
    if start is not None:
        own = own_states(objective, optimizer, copy.deepcopy(start))
        objective.load_state_dict(own["objective"])
        optimizer.load_state_dict(own["optimizer"])
    for step in range(2):
        whole = torch.arange(CLASSES * WIDTH).view(CLASSES, WIDTH).sin() * (step + 1)
        head.weight.grad = whole[head.own.start : head.own.stop].clone()
        optimizer.step()
    return copy.deepcopy(whole_states(objective, optimizer)), objective


def work(rank: int, start: dict[str, Any]) -> tuple[Any, Any, int]:
    new, objective = state_after_steps(shard=True)
    rows = sum(len(parameter) for parameter in objective.shards())
    return new, state_after_steps(shard=True, start=start)[0], rows


@pytest.fixture(scope="module")
def alone() -> list[dict[str, Any]]:
    """The states of one process that has all rows, after two steps and after four."""
    first = state_after_steps(shard=False)[0]
    return [first, state_after_steps(shard=False, start=first)[0]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, alone: list[dict[str, Any]]) -> list[Any]:
    return in_two_processes(work, tmp_path_factory.mktemp("shards"), alone[0])


def test_the_first_process_has_the_states_of_one(found: list[Any], alone: list[dict[str, Any]]) -> None:
    torch.testing.assert_close(found[0][0], alone[0], rtol=0, atol=0)
    assert [rows for _, _, rows in found] == [3, 4]


def test_two_processes_go_on_from_the_states_of_one(found: list[Any], alone: list[dict[str, Any]]) -> None:
    torch.testing.assert_close(found[0][1], alone[1], rtol=0, atol=0)


def test_one_process_goes_on_from_the_states_of_two(found: list[Any], alone: list[dict[str, Any]]) -> None:
    torch.testing.assert_close(state_after_steps(False, start=found[0][0])[0], alone[1], rtol=0, atol=0)
