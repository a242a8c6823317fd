"""Checkpoints, extraction, schedules and costs; the loop itself is tested end to end in tests/commands."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from reid_cckd.batch import Batch, Output
from reid_cckd.engine import (
    RunLog,
    count,
    create_optimizer,
    create_schedule,
    extract,
    load_checkpoint,
    moves_rows_apart,
    pick_device,
    save_checkpoint,
)
from reid_cckd.engine.device import autocast
from reid_cckd.engine.optim import take_up
from reid_cckd.engine.tracking import RunningMeans
from reid_cckd.errors import CheckpointError, ConfigError, DataError


class Sums(nn.Module):
    """An embedding that a person can compute: (sum of the left half, sum of the right half)."""

    def forward(self, images: torch.Tensor) -> Output:
        left, right = images.float().chunk(2, dim=-1)
        rows = torch.stack([left.sum(dim=(1, 2, 3)), right.sum(dim=(1, 2, 3))], dim=1)
        return Output(rows, -rows, None, images)


def batches(count: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=generator)
    rows = torch.randperm(count, generator=generator)
    return [Batch(images[part], part, part) for part in rows.split(3)]


def embed(**options: object) -> torch.Tensor:
    cpu = torch.device("cpu")
    return extract(Sums(), batches(7), 7, device=cpu, precision=lambda: autocast(cpu, "off"), **options)  # type: ignore[arg-type]


def test_checkpoint_round_trip_and_refusals(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"model": {"w": torch.arange(3.0)}, "config": {"a": [1, None, "x"]}})
    assert torch.equal(load_checkpoint(path)["model"]["w"], torch.arange(3.0))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="truncated"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"holds last\.pt"):
        load_checkpoint(tmp_path / "best.pt")
    torch.save({"state_dict": {}}, path)
    with pytest.raises(CheckpointError, match=r"model\.pretrained"):
        load_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    torch.save({"format": "reid_cckd/1", "model": Payload()}, tmp_path / "evil.pt")
    (tmp_path / "evil2.pt").write_bytes(pickle.dumps(Payload()))
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(CheckpointError):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_rows_follow_the_index_whatever_the_order() -> None:
    order = torch.cat([batch.index for batch in batches(7)])
    images = torch.cat([batch.images for batch in batches(7)])
    expected = torch.empty(7, 2)
    expected[order] = Sums()(images).neck
    assert torch.equal(embed(), expected)
    assert torch.equal(embed(on="embedding"), -expected)


def test_flip_adds_both_directions_as_they_come() -> None:
    plain = embed()
    assert torch.equal(embed(flip=True), plain + plain.flip(1))


def test_the_longer_view_of_a_flipped_image_counts_for_more() -> None:
    class Corner(nn.Module):
        def forward(self, images: torch.Tensor) -> Output:
            rows = torch.stack([images[:, 0, 0, 0].float(), torch.ones(len(images))], dim=1)
            return Output(rows, rows, None, images)

    image = torch.tensor([[[[3, 0]]]], dtype=torch.uint8)
    batch, cpu = Batch(image, torch.zeros(1, dtype=torch.int64), torch.arange(1)), torch.device("cpu")
    rows = extract(Corner(), [batch], 1, device=cpu, precision=lambda: autocast(cpu, "off"), flip=True)
    assert rows.tolist() == [[3, 2]]  # (3, 1) + (0, 1); of normalised views the direction would be that of (1, 1.39)


def test_nothing_to_extract_is_an_error() -> None:
    cpu = torch.device("cpu")
    with pytest.raises(DataError, match="empty"):
        extract(Sums(), [], 0, device=cpu, precision=lambda: autocast(cpu, "off"))


def lrs(name: str, **options: object) -> list[float]:
    optimizer = create_optimizer([nn.Linear(2, 2)], "sgd", 1.0, 0.0, {})
    settings = {"warmup_epochs": 1, "min_lr": 0.0, "milestones": (), "decay_rate": 0.1, **options}
    schedule = create_schedule(optimizer, name, epochs=5, steps_per_epoch=4, **settings)  # type: ignore[arg-type]
    values = []
    for step in range(20):
        values.append(optimizer.param_groups[0]["lr"])
        schedule.step_update(step + 1)
    return values


def test_schedules_warm_up_and_come_down() -> None:
    cosine = lrs("cosine")
    assert cosine[0] == pytest.approx(0.25)
    assert cosine[:4] == sorted(cosine[:4])
    assert cosine[4:] == sorted(cosine[4:], reverse=True)
    assert cosine[-1] < 0.05
    assert lrs("constant", warmup_epochs=0) == [1.0] * 20
    steps = lrs("multistep", milestones=(2, 3), warmup_epochs=0)
    assert (steps[5], steps[9]) == pytest.approx((1.0, 0.1))
    assert steps[12] == pytest.approx(0.01)


@pytest.mark.parametrize("name", ["cosine", "multistep", "poly", "constant"])
def test_a_training_that_ends_before_it_is_warm_takes_the_first_steps_of_a_longer_one(name: str) -> None:
    assert lrs(name, warmup_epochs=10, milestones=(2,)) == pytest.approx(
        [(1 + step * 39 / 40) / 40 for step in range(20)]
    )


@pytest.mark.parametrize(
    ("name", "options", "apart"),
    [
        ("sgd", {"momentum": 0.9}, True),
        ("adamw", {}, True),
        ("lion", {}, True),
        ("lamb", {}, False),
        ("lars", {}, False),
    ],
)
def test_optimisers_that_look_at_a_whole_weight_are_told_from_others(
    name: str, options: dict[str, float], apart: bool
) -> None:
    before = torch.get_rng_state()
    assert moves_rows_apart(name, 0.1, 0.01, options) is apart
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "fused"), [({}, True), ({"fused": False}, False), ({"foreach": False}, None), ({"foreach": True}, None)]
)
def test_on_a_gpu_an_optimiser_is_fused_unless_told_how_to_step(options: dict[str, bool], fused: bool | None) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer = nn.Linear(2, 2, device="cuda")
        assert create_optimizer([layer], "adamw", 0.1, 0.0, options).param_groups[0]["fused"] is fused
    assert create_optimizer([nn.Linear(2, 2)], "adamw", 0.1, 0.0, {}).param_groups[0]["fused"] is None


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize(("before", "after"), [(True, None), (None, True), (True, True)])
def test_an_optimiser_goes_on_fused_or_not_in_any_memory_order(
    name: str, before: bool | None, after: bool | None
) -> None:
    """As one does that trained on a GPU and is resumed on a CPU, or the other way round."""

    def made(order: torch.memory_format, fused: bool | None) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = nn.Conv2d(3, 4, 2, bias=False).to(memory_format=order)  # type: ignore[call-overload]
        return layer, create_optimizer([layer], name, 0.1, 0.0, {"fused": fused})

    def step(layer: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        gradient = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
        layer.weight.grad = torch.empty_like(layer.weight).copy_(gradient)
        optimizer.step()

    first, begun = made(torch.contiguous_format, before)
    step(first, begun, 0)
    second, resumed = made(torch.channels_last, after)
    second.load_state_dict(first.state_dict())
    take_up(resumed, copy.deepcopy(begun.state_dict()))
    assert resumed.param_groups[0]["fused"] is after
    for seed in (1, 2):
        step(first, begun, seed)
        step(second, resumed, seed)
    torch.testing.assert_close(second.weight, first.weight)


def test_unknown_optimiser_and_device_are_named() -> None:
    with pytest.raises(ConfigError, match="addam"):
        create_optimizer([nn.Linear(2, 2)], "addam", 1.0, 0.0, {})
    with pytest.raises(ConfigError, match=r"train\.device"):
        pick_device("gpu")


def test_costs_of_a_layer_a_person_can_count() -> None:
    network = nn.Sequential(_Float(), nn.Conv2d(3, 5, 3, padding=1, bias=False))
    assert count(network, (8, 4)) == (5 * 3 * 9, 5 * 3 * 9 * 8 * 4, {"1.weight"})
    assert network.training


class _Float(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float()


class _Token(nn.Module):
    """Looks at one row of its own, as CaiT does, and at no image; ``spare`` is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.layer, self.spare = nn.Parameter(torch.ones(1, 4)), nn.Linear(4, 2), nn.Linear(4, 9)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(self.token.expand(len(images), -1))


def test_parameters_that_no_image_meets_are_not_counted() -> None:
    network = _Token()
    network.layer.bias.requires_grad_(False)
    assert count(network, (2, 2)) == (4 + 4 * 2 + 2, 4 * 2, {"token", "layer.weight", "layer.bias"})
    assert [parameter.requires_grad for parameter in network.layer.parameters()] == [True, False]


def test_log_is_cut_where_a_run_resumes_and_survives_a_torn_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    assert log.rows() == []
    for step in range(1, 5):
        log.append({"step": step})
    with log.path.open("a") as file:
        file.write('{"step": 5, "lo')
    log.keep(lambda row: row["step"] <= 3)
    assert [row["step"] for row in log.rows()] == [1, 2, 3]


def test_running_means_continue_from_a_checkpoint() -> None:
    first, second = RunningMeans(), RunningMeans()
    first.add({"loss": 1.0})
    second.load_state_dict(first.state_dict())
    second.add({"loss": 4.0})
    assert second.take() == {"loss": 2.5}
    assert second.take() == {}
