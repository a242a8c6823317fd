"""What is recorded of a step and what is not; the recording itself is stood in for where there is no GPU."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from reid_cckd.batch import Batch
from reid_cckd.build import trainer as building
from reid_cckd.commands.train import main as train
from reid_cckd.engine import load_checkpoint, recording
from reid_cckd.errors import UserError
from tests.commands.conftest import TINY, pedestrians, recipe, teacher, write_config  # noqa: F401

CCKD = {"alpha": 0.5, "beta": 100.0, "correlate": "neck"}
REMEMBERING = [  # losses that keep something from step to step, on the device
    {"name": "crd", "loss": "crd", "options": {"negatives": 8}},
    {"name": "partial", "loss": "partial_margin", "options": {"share": 0.5}},
    {"name": "adadistill", "loss": "adadistill"},
    {"name": "adaface", "loss": "adaface"},
]


def batch_of(images: Tensor) -> Batch:
    rows = torch.arange(len(images))
    return Batch(images, rows, rows)


def stand_in(step: Callable[[], Any], device: torch.device) -> tuple[Any, Callable[[], None]]:
    """`recording.record` without a GPU: a replay runs the step again and writes into the tensors of the first."""
    for _ in range(recording.WARM_UP):
        step()
    result = step()

    def replay() -> None:
        for old, new in zip(pytree.tree_leaves(result), pytree.tree_leaves(step()), strict=True):
            if isinstance(old, Tensor) and old is not new:
                old.data.copy_(new.data)

    return result, replay


def recorded_sum(network: torch.nn.Module) -> recording.RecordedStep:
    """A step whose loss is the sum of what the network makes of a batch."""
    return recording.RecordedStep(lambda batch, _: {"loss": network(batch.images).sum()}, network, torch.device("cpu"))


@pytest.mark.parametrize("mode", ["online", "clean"])
def test_a_recorded_run_is_the_same_run(
    mode: str,
    pedestrians: Path,  # noqa: F811
    teacher: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replayed: list[int] = []
    plain = recording.RecordedStep.__call__

    def counted(self: recording.RecordedStep, *arguments: Any) -> dict[str, Tensor]:
        replayed.append(len(arguments[0].labels))
        return plain(self, *arguments)

    monkeypatch.setattr(recording.RecordedStep, "__call__", counted)
    monkeypatch.setattr(recording, "record", stand_in)
    settings = {"checkpoint": str(teacher), "mode": mode, "allow_weak": True, "cache": str(tmp_path / "answers")}
    runs = []
    for name, recorded in (("plain", False), ("recorded", True)):
        monkeypatch.setattr(building, "_recorded", lambda *_, recorded=recorded: recorded)
        sections: dict[str, Any] = {
            "teacher": settings,
            "objective": {**CCKD, "terms": REMEMBERING},
            "train": {"ema": 0.9, "clip_norm": 1.0},
            "model": {"options": {**TINY, "drop_path_rate": 0.2}},
        }
        config = write_config(tmp_path / f"{name}.yaml", recipe(pedestrians, tmp_path / name, **sections))
        assert train([str(config)]) == 0
        runs.append(load_checkpoint(tmp_path / name / "last.pt"))
    assert len(replayed) == runs[0]["position"]["step"] - 2, "all steps but the first of each epoch are replays"
    for part in ("model", "average", "objective"):
        for name, value in runs[0][part].items():
            torch.testing.assert_close(runs[1][part][name], value)


def test_a_batch_of_another_shape_is_not_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "record", stand_in)
    layer = torch.nn.Linear(3, 2)
    step = recorded_sum(layer)
    batch = batch_of(torch.randn(4, 3))
    assert step.fits(batch)
    step(batch, None)
    assert step.fits(batch)
    assert not step.fits(batch_of(batch.images[:2]))
    other = batch_of(torch.randn(4, 3))
    torch.testing.assert_close(step(other, None)["loss"], layer(other.images).sum())
    torch.testing.assert_close(layer.weight.grad, other.images.sum(dim=0).expand(2, 3))


def test_recording_leaves_no_trace_in_statistics_and_generators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "record", stand_in)
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5))
    twin = copy.deepcopy(network)
    step = recorded_sum(network)
    state, found = torch.get_rng_state(), []
    for call in (lambda batch: step(batch, None)["loss"].clone(), lambda batch: twin(batch.images).sum()):
        torch.set_rng_state(state)
        found.append([call(batch_of(shift + torch.randn(4, 3))) for shift in (0.0, 5.0)])
    assert found[0] == found[1]
    for ours, theirs in zip(network.buffers(), twin.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_step_is_recorded_on_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another one is told while the current one is recorded is done, and not recorded."""
    current, seen = [torch.device("cuda", 0)], []

    @contextmanager
    def using(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", using)
    for name in ("Stream", "CUDAGraph", "current_stream", "stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    recording.record(lambda: seen.append(current[-1]), torch.device("cuda", 1))
    assert seen == [torch.device("cuda", 1)] * (recording.WARM_UP + 1)


def test_a_step_that_cannot_be_recorded_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(step: Callable[[], Any], device: torch.device) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(recording, "record", fails)
    with pytest.raises(UserError, match=r"train\.cuda_graph.*not permitted"):
        recorded_sum(torch.nn.Linear(3, 2))(batch_of(torch.randn(4, 3)), None)


class Restless(torch.nn.Module):
    """A loss that keeps something between steps."""

    def __init__(self, change: str) -> None:
        super().__init__()
        self.weight, self.change, self.count = torch.nn.Parameter(torch.ones(3)), change, 0
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, batch: Batch, answers: Any) -> dict[str, Tensor]:
        if self.change == "count":
            self.count += 1
        elif self.change == "mean":
            self.mean = 0.9 * self.mean + 0.1 * batch.images.mean(dim=0)
        elif self.change == "mean, in place":
            self.mean.lerp_(batch.images.mean(dim=0), 0.1)
        factor = {"Python's random numbers": random.random, "torch's random numbers": lambda: float(torch.rand(()))}
        return {"loss": (batch.images * self.weight).sum() * factor.get(self.change, float)()}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("nothing", None),
        ("mean, in place", None),
        ("mean", ".mean"),
        ("count", ".count"),
        ("Python's random numbers", "Python's random numbers"),
        ("torch's random numbers", "torch's random numbers"),
    ],
)
def test_what_the_host_changes_in_every_step_is_named(
    change: str, named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "record", stand_in)
    loss = Restless(change)
    step = recording.RecordedStep(loss, loss, torch.device("meta"))  # one that is not the host
    with pytest.raises(UserError, match=f"every step changes {named} on the host") if named else nullcontext():
        step(batch_of(torch.randn(4, 3)), None)


def test_a_replay_leaves_no_gradient_of_a_step_that_was_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the first of an epoch, in which a term may have reached further."""
    monkeypatch.setattr(recording, "record", lambda step, device: (step(), lambda: None))  # no step runs in a replay
    layers = torch.nn.ModuleList([torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)])
    step = recording.RecordedStep(lambda batch, _: {"loss": layers[0](batch.images).sum()}, layers, torch.device("cpu"))
    batch = batch_of(torch.randn(4, 3))
    step(batch, None)
    layers.zero_grad(set_to_none=True)
    layers[1](batch.images).sum().backward()
    step(batch, None)
    assert layers[0].weight.grad is not None
    assert layers[1].weight.grad is None


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"objective": {"beta": {"start": 0.0, "stop": 9.0}}}, "cc"),
        ({"objective": {"beta": 9.0, "correlation": {"memory": 40}}}, "cc"),
    ],
)
def test_a_term_that_changes_with_the_step_is_named(
    sections: dict[str, Any],
    named: str,
    pedestrians: Path,  # noqa: F811
    teacher: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = building._recorded
    monkeypatch.setattr(
        building, "_recorded", lambda config, objective, _: plain(config, objective, torch.device("cuda"))
    )
    settings = {"checkpoint": str(teacher), "allow_weak": True}
    values = recipe(pedestrians, tmp_path / "run", teacher=settings, train={"cuda_graph": True}, **sections)
    assert train([str(write_config(tmp_path / "run.yaml", values))]) != 0
    assert f"train.cuda_graph: {named} computes something else in every step" in capsys.readouterr().err
