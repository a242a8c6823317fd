"""Two processes that share a batch get the loss and the gradients of one process that has all of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from reid_cckd.losses import LOSSES, CorrelationCongruenceLoss, PairMemory, gather_rows
from tests.two_processes import in_two_processes

SPLITS = {"equal": (4, 4), "unequal": (5, 3), "one empty": (8, 0)}
COUNT = 8


def data() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(COUNT, 6, dtype=torch.float64, generator=generator)
    teacher = torch.randn(COUNT, 3, dtype=torch.float64, generator=generator)
    return images, teacher, torch.arange(COUNT) % 3 + 2**53


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def gathered_step(part: slice) -> dict[str, Any]:
    """A step of our own helper under DistributedDataParallel."""
    images, teacher, labels = (column[part] for column in data())
    model = DistributedDataParallel(network())
    loss = CorrelationCongruenceLoss(within_weight=2.0)
    value = loss(gather_rows(model(images)), gather_rows(labels), ref_emb=gather_rows(teacher))
    value.backward()
    return {"value": value.detach(), "gradients": gradients(model)}


def wrapped_step(part: slice) -> dict[str, Any]:
    """The same through PML's wrapper, which multiplies the loss by the number of processes."""
    images, teacher, labels = (column[part] for column in data())
    model = DistributedDataParallel(network())
    value = DistributedLossWrapper(CorrelationCongruenceLoss(within_weight=2.0))(model(images), labels, ref_emb=teacher)
    value.backward()
    return {"value": value.detach() / dist.get_world_size(), "gradients": gradients(model)}


def efficient_step(part: slice) -> str:
    """PML's efficient mode puts the teacher of all processes beside the student of one."""
    images, teacher, labels = (column[part] for column in data())
    try:
        DistributedLossWrapper(CorrelationCongruenceLoss(), efficient=True)(network()(images), labels, ref_emb=teacher)
    except ValueError as error:
        return str(error)
    return "no error"


def filled_memory(part: slice) -> dict[str, Any]:
    images, teacher, labels = (column[part] for column in data())
    memory = PairMemory(6)
    memory.add(images, teacher, labels)
    (block,) = memory.blocks(images)
    return block._asdict()


def memory_of_a_loss(part: slice, wrapped: bool) -> list[Tensor]:
    """What a loss remembers that was given the rows of all processes, by us or by PML, in two steps."""
    images, teacher, labels = (column[part] for column in data())
    loss = CorrelationCongruenceLoss(memory=PairMemory(100))
    for _ in range(2):
        if wrapped:
            DistributedLossWrapper(loss)(images, labels, ref_emb=teacher)
        else:
            loss(gather_rows(images), gather_rows(labels), ref_emb=gather_rows(teacher))
    assert loss.memory is not None
    (block,) = loss.memory.blocks(images)
    return [block.student, block.teacher]


def weighted_step(part: slice) -> Tensor:
    """Each process has another loss of all rows: a row's gradient is the sum over processes."""
    images = data()[0][part].requires_grad_()
    (gather_rows(images).sum() * (dist.get_rank() + 1)).backward()
    assert images.grad is not None
    return images.grad


def work(rank: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, counts in SPLITS.items():
        part = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        found[f"gathered {name}"] = gathered_step(part)
        found[f"memory {name}"] = filled_memory(part)
        found[f"weighted {name}"] = weighted_step(part)
        found[f"remembered {name}"] = memory_of_a_loss(part, wrapped=False)
    part = slice(rank * 4, rank * 4 + 4)
    found["remembered wrapped"] = memory_of_a_loss(part, wrapped=True)
    found["wrapped"], found["efficient"] = wrapped_step(part), efficient_step(part)
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes found."""
    return in_two_processes(work, tmp_path_factory.mktemp("gloo"))


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    images, teacher, labels = data()
    model = network()
    value = CorrelationCongruenceLoss(within_weight=2.0)(model(images), labels, ref_emb=teacher)
    value.backward()
    return {"value": value.detach(), "gradients": gradients(model)}


@pytest.mark.parametrize("step", [*(f"gathered {name}" for name in SPLITS), "wrapped"])
def test_loss_and_gradients_equal_those_of_one_process(
    step: str, found: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    assert float(alone["value"]) > 1e-3
    for rank in range(2):
        torch.testing.assert_close(found[rank][step], alone, rtol=1e-10, atol=1e-14)


def test_pml_efficient_mode_is_refused(found: list[dict[str, Any]]) -> None:
    assert all("ref_emb: 8 rows for 4 embeddings" in result["efficient"] for result in found)


@pytest.mark.parametrize("split", SPLITS)
def test_memory_holds_the_rows_of_all_processes(split: str, found: list[dict[str, Any]]) -> None:
    images, teacher, labels = data()
    wanted = {"student": images[2:], "teacher": teacher[2:], "labels": labels[2:]}
    for result in found:
        torch.testing.assert_close(result[f"memory {split}"], wanted, rtol=0, atol=0)


@pytest.mark.parametrize("way", [*SPLITS, "wrapped"])
def test_rows_that_were_gathered_before_are_remembered_once(way: str, found: list[dict[str, Any]]) -> None:
    images, teacher, _ = data()
    for result in found:
        torch.testing.assert_close(result[f"remembered {way}"], [images.repeat(2, 1), teacher.repeat(2, 1)])


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_pml_wrapper_says_that_it_takes_no_other_loss(name: str) -> None:
    with pytest.raises(TypeError, match="must extend BaseMetricLossFunction"):
        DistributedLossWrapper(LOSSES[name].__new__(LOSSES[name]))


@pytest.mark.parametrize("split", SPLITS)
def test_gradients_of_all_processes_reach_a_row(split: str, found: list[dict[str, Any]]) -> None:
    for result, count in zip(found, SPLITS[split], strict=True):
        torch.testing.assert_close(result[f"weighted {split}"], torch.full((count, 6), 3.0, dtype=torch.float64))


def test_alone_it_is_the_identity() -> None:
    rows = torch.ones(2, 3)
    assert gather_rows(rows) is rows
