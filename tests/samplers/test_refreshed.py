"""Superclasses that change every few epochs: which batches come when, and going on in the middle."""

from __future__ import annotations

import json

import numpy as np
import pytest

from reid_cckd.samplers import RefreshedSuperclassSampler, SuperclassUniformSampler

ASKED: list[int] = []


def find(epoch: int) -> np.ndarray:
    """60 images in 5 superclasses, others every 2 epochs; how many batches visit all of them changes as well."""
    ASKED.append(epoch)
    return np.random.default_rng(epoch // 2).permutation(60) % 5


def make() -> RefreshedSuperclassSampler:
    return RefreshedSuperclassSampler(find, 2, 3, 4, seed=1)


def epoch_of(sampler: SuperclassUniformSampler, epoch: int) -> list[list[int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def test_batches_are_those_of_the_epochs_superclasses() -> None:
    sampler = make()
    for epoch in (0, 1, 2, 5, 0):
        want = SuperclassUniformSampler(find(epoch), 3, 4, seed=1)
        assert epoch_of(sampler, epoch) == epoch_of(want, epoch)
    ASKED.clear()
    for epoch in range(6):
        sampler.set_epoch(epoch)
    assert ASKED == [2, 4]


def test_a_run_goes_on_in_an_epoch_of_later_superclasses() -> None:
    whole = epoch_of(make(), 3)
    stopped = make()
    stopped.set_epoch(3)
    state = json.loads(json.dumps(stopped.state_dict(batches=2)))
    later = make()
    later.load_state_dict(state)
    later.set_epoch(3)
    assert list(later) == whole[2:]


def test_one_set_of_superclasses_stays_and_the_length_never_changes() -> None:
    forever = RefreshedSuperclassSampler(find, None, 3, 4, seed=1)
    assert epoch_of(forever, 7) == epoch_of(SuperclassUniformSampler(find(0), 3, 4, seed=1), 7)

    def fewer(epoch: int) -> np.ndarray:
        return np.arange(60) % (20 if epoch == 0 else 3)

    sampler = RefreshedSuperclassSampler(fewer, 1, 3, 2)
    first = len(sampler)
    sampler.set_epoch(1)
    assert len(sampler) == first


def test_its_own_numbers_are_checked() -> None:
    with pytest.raises(ValueError, match="every must be a whole number >= 1; got 0"):
        RefreshedSuperclassSampler(find, 0, 3, 4)
    sampler = RefreshedSuperclassSampler(lambda epoch: np.arange(60 - epoch) % 5, 1, 3, 4)
    with pytest.raises(ValueError, match="60 entries and superclasses 59"):
        sampler.set_epoch(1)
