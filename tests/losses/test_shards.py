"""Classes shared out between two processes: value, gradients and training of one process that has them all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reid_cckd.batch import Output
from reid_cckd.losses import Objective, PartialMargin, Term
from tests.two_processes import in_two_processes

CLASSES, WIDTH, STEPS = 21, 4, 3
SPLITS = {"equal": (4, 4), "unequal": (5, 3), "one empty": (8, 0)}
KINDS: dict[str, dict[str, Any]] = {
    "arc": {"share": 1.0},
    "cos": {"share": 0.5, "kind": "cos"},
    "nothing drawn of one half": {"share": 0.1},  # as many as the batch has, which are all in the first
}


def data(kind: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 6, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 3, 3, 7, 9, 1, 0, 2]) if "half" in kind else torch.tensor([0, 20, 3, 10, 9, 11, 20, 15])
    return images, labels


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(6, WIDTH, dtype=torch.float64)


def trained(model: nn.Module, kind: str, part: slice, shard: bool) -> dict[str, Any]:
    """Values and gradients of some steps, and where they led."""
    torch.manual_seed(2)
    loss = PartialMargin(CLASSES, WIDTH, shard=shard, **KINDS[kind]).double()
    images, labels = (column[part] for column in data(kind))
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1, momentum=0.9)
    found: dict[str, Any] = {"values": [], "network": [], "weight": []}
    for _ in range(STEPS):
        optimizer.zero_grad()
        value = loss(model(images), labels)
        value.backward()
        found["values"].append(value.detach())
        found["network"].append([parameter.grad.clone() for parameter in model.parameters()])  # type: ignore[union-attr]
        found["weight"].append(loss.weight.grad.clone())  # type: ignore[union-attr]
        optimizer.step()
    return {**found, "end": loss.weight.detach(), "rows": len(loss.weight)}


def balanced(part: slice) -> list[float]:
    """What an objective that gathers says of such a term: value, and gradient on the embeddings of all."""
    torch.manual_seed(2)
    objective = Objective([Term("faces", PartialMargin(CLASSES, WIDTH, shard=True).double())], gather=True)
    images, labels = (column[part] for column in data("arc"))
    rows = network()(images)
    (share,) = objective.balance(Output(rows, rows, None), labels)
    return [share.value, share.gradient_norm]


def work(rank: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, counts in SPLITS.items():
        part = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        found[f"balance {name}"] = balanced(part)
        for kind in KINDS:
            model = DistributedDataParallel(network())
            found[f"{kind} {name}"] = trained(model, kind, part, shard=True)
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes found."""
    return in_two_processes(work, tmp_path_factory.mktemp("shards"))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_their_parts_as_one_trains_all(kind: str, split: str, found: list[dict[str, Any]]) -> None:
    alone = trained(network(), kind, slice(None), shard=False)
    first, second = (one[f"{kind} {split}"] for one in found)
    assert (first["rows"], second["rows"]) == (10, 11)
    for one in (first, second):
        torch.testing.assert_close(one["values"], alone["values"], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(one["network"], alone["network"], rtol=1e-9, atol=1e-12)
    whole = [torch.cat(parts) for parts in zip(first["weight"], second["weight"], strict=True)]
    torch.testing.assert_close(whole, alone["weight"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(torch.cat([first["end"], second["end"]]), alone["end"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("split", SPLITS)
def test_the_balance_is_that_of_one_process(split: str, found: list[dict[str, Any]]) -> None:
    for one in found:
        assert one[f"balance {split}"] == pytest.approx(balanced(slice(None)), rel=1e-9)


def test_one_process_shares_nothing_out() -> None:
    one, other = (trained(network(), "cos", slice(None), shard) for shard in (False, True))
    assert one["rows"] == other["rows"] == CLASSES
    assert torch.equal(one["end"], other["end"])
