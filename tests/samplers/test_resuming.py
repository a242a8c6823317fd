"""Epochs, ranks and states: the stream of batches is one, whoever reads it and however often it is interrupted."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from reid_cckd.samplers import ClassUniformSampler, SuperclassUniformSampler, UniformSampler

LABELS = np.random.default_rng(0).integers(0, 13, 200)
GROUPS = LABELS % 5

MAKERS: dict[str, Callable[..., Any]] = {
    "cur": lambda **more: ClassUniformSampler(LABELS, 5, 3, **more),
    "cur by camera": lambda **more: ClassUniformSampler(LABELS, 5, 3, cameras=np.arange(200) % 4, **more),
    "cur weighted": lambda **more: ClassUniformSampler(LABELS, 5, 3, class_weights=np.arange(1, 14), **more),
    "sur": lambda **more: SuperclassUniformSampler(GROUPS, 3, 4, **more),
    "sur by class": lambda **more: SuperclassUniformSampler(GROUPS, 3, 4, labels=LABELS, samples_per_class=2, **more),
    "uniform": lambda **more: UniformSampler(200, 16, **more),
}
every_sampler = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def epoch_of(sampler: Any, epoch: int) -> list[list[int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


@every_sampler
def test_epochs_differ_and_any_of_them_can_be_had_first(make: Callable[..., Any]) -> None:
    in_order = make()
    epochs = [epoch_of(in_order, epoch) for epoch in range(6)]
    assert all(len(batches) == len(in_order) for batches in epochs)
    assert len({str(batches) for batches in epochs}) == 6
    for epoch in (5, 0, 3, 3):
        assert epoch_of(make(), epoch) == epochs[epoch]
        assert epoch_of(in_order, epoch) == epochs[epoch]


@every_sampler
def test_two_readers_of_one_sampler_do_not_disturb_each_other(make: Callable[..., Any]) -> None:
    sampler, want = make(), list(make())
    first, second = iter(sampler), iter(sampler)
    got: tuple[list[Any], list[Any]] = ([], [])
    for step in range(len(want) + 3):
        got[0].extend([next(first)] if step < len(want) else [])
        got[1].extend([next(second)] if step >= 3 else [])
    assert got == (want, want)


@every_sampler
@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_ranks_share_out_the_same_batches(make: Callable[..., Any], world_size: int) -> None:
    alone = make(batches_per_epoch=12)
    ranks = [make(batches_per_epoch=12, rank=rank, world_size=world_size) for rank in range(world_size)]
    for epoch in range(4):
        parts = [epoch_of(sampler, epoch) for sampler in ranks]
        assert {len(part) for part in parts} == {12 // world_size} == {len(sampler) for sampler in ranks}
        woven = [batch for step in zip(*parts, strict=True) for batch in step]
        assert woven == epoch_of(alone, epoch)


def test_batches_that_do_not_divide_come_in_the_next_epoch() -> None:
    """7 batches on 2 ranks: 3 steps, and no batch of the stream is ever left out."""
    alone = MAKERS["cur"](batches_per_epoch=30)
    ranks = [MAKERS["cur"](batches_per_epoch=7, rank=rank, world_size=2) for rank in range(2)]
    woven = []
    for epoch in range(5):
        parts = [epoch_of(sampler, epoch) for sampler in ranks]
        woven += [batch for step in zip(*parts, strict=True) for batch in step]
    assert woven == epoch_of(alone, 0)


@every_sampler
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 4), st.data())
def test_resuming_yields_the_rest(make: Callable[..., Any], epoch: int, data: st.DataObject) -> None:
    whole = epoch_of(make(), epoch)
    done = data.draw(st.integers(0, len(whole)))
    sampler = make()
    sampler.set_epoch(epoch)
    stopped = iter(sampler)
    for _ in range(done):
        next(stopped)
    state = json.loads(json.dumps(sampler.state_dict()))
    later = make()
    later.load_state_dict(state)
    later.set_epoch(later.epoch)  # the loop of a run that goes on names the epoch again
    assert later.state_dict() == state == sampler.state_dict(batches=done)
    assert list(later) == whole[done:]
    assert len(later) == len(whole)
    assert list(later) == whole
    assert epoch_of(later, epoch + 1) == epoch_of(make(), epoch + 1)


def test_a_loader_that_asks_ahead_resumes_at_what_was_used() -> None:
    sampler = MAKERS["cur"]()
    want = list(sampler)
    loader = DataLoader(range(200), batch_sampler=sampler, num_workers=2, prefetch_factor=3)
    batches = iter(loader)
    used = [next(batches).tolist() for _ in range(2)]
    assert sampler.state_dict()["batches"] > 2  # the loader has asked for more than was used
    state = sampler.state_dict(batches=2)
    del batches
    later = MAKERS["cur"]()
    later.load_state_dict(state)
    rest = [batch.tolist() for batch in DataLoader(range(200), batch_sampler=later, num_workers=2)]
    assert used + rest == want


def test_a_new_number_of_ranks_takes_over_at_a_common_step() -> None:
    whole = epoch_of(MAKERS["cur"](batches_per_epoch=12), 1)
    two = MAKERS["cur"](batches_per_epoch=12, world_size=2)
    two.set_epoch(1)
    parts = []
    for rank in range(3):
        one_of_three = MAKERS["cur"](batches_per_epoch=12, rank=rank, world_size=3)
        one_of_three.load_state_dict(two.state_dict(batches=3))
        parts.append(list(one_of_three))
    assert [batch for step in zip(*parts, strict=True) for batch in step] == whole[6:]
    with pytest.raises(ValueError, match=r"2 batches on each of 2 ranks .* 3 ranks"):
        one_of_three.load_state_dict(two.state_dict(batches=2))


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda: ClassUniformSampler(np.roll(LABELS, 1), 5, 3), "data"),
        (lambda: ClassUniformSampler(LABELS[:-1], 5, 3), "images is 199"),
        (lambda: ClassUniformSampler(LABELS, 5, 3, seed=1), "seed is 1"),
        (lambda: ClassUniformSampler(LABELS, 4, 3), "classes_per_batch is 4"),
        (lambda: ClassUniformSampler(LABELS, 5, 4), "samples"),
        (lambda: ClassUniformSampler(LABELS, 5, 3, cameras=LABELS), "data"),
        (lambda: ClassUniformSampler(LABELS, 5, 3, class_weights=np.arange(1, 14)), "data"),
        (lambda: ClassUniformSampler(LABELS, 5, 3, short="cycle"), "short"),
        (lambda: ClassUniformSampler(LABELS, 5, 3, batches_per_epoch=99), "batches_per_epoch is 99"),
        (lambda: SuperclassUniformSampler(LABELS, 5, 3), "sampler is 'SuperclassUniformSampler'"),
    ],
)
def test_a_state_of_another_run_is_refused(other: Callable[[], Any], named: str) -> None:
    state = other().state_dict()
    with pytest.raises(ValueError, match=named):
        ClassUniformSampler(LABELS, 5, 3).load_state_dict(state)


def test_a_state_is_checked() -> None:
    sampler = MAKERS["cur"]()
    with pytest.raises(ValueError, match=r"15 batches .* 14"):
        sampler.state_dict(batches=15)
    with pytest.raises(ValueError, match="not a state of ClassUniformSampler"):
        sampler.load_state_dict({"epoch": 0})
    with pytest.raises(ValueError, match="epoch must be a whole number >= 0; got -1"):
        sampler.set_epoch(-1)


def test_choosing_another_epoch_forgets_the_place() -> None:
    sampler = MAKERS["cur"]()
    sampler.load_state_dict(sampler.state_dict(batches=4))
    assert len(epoch_of(sampler, 1)) == len(sampler)


def test_numbers_of_numpy_are_numbers() -> None:
    """Sizes that come out of arrays; the state is to be written as JSON, and read by torch with weights alone."""
    n = np.int64
    shares = {"seed": n(1), "batches_per_epoch": n(9), "rank": n(0), "world_size": n(2)}
    plain: dict[str, Any] = {name: int(value) for name, value in shares.items()}
    pairs: list[tuple[Any, Any]] = [
        (ClassUniformSampler(LABELS, n(5), n(3), **shares), ClassUniformSampler(LABELS, 5, 3, **plain)),
        (SuperclassUniformSampler(GROUPS, n(3), n(4), **shares), SuperclassUniformSampler(GROUPS, 3, 4, **plain)),
        (UniformSampler(n(200), n(16), **shares), UniformSampler(200, 16, **plain)),
    ]
    for theirs, ours in pairs:
        theirs.set_epoch(n(2))
        assert epoch_of(ours, 2) == list(theirs)
        assert json.dumps(theirs.state_dict()) == json.dumps(ours.state_dict())


@every_sampler
def test_samplers_can_be_pickled(make: Callable[..., Any]) -> None:
    sampler = make()
    next(iter(sampler))
    assert list(pickle.loads(pickle.dumps(sampler))) == list(make())
