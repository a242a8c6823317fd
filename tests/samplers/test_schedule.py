"""Passes: which classes meet, how often, and how often before."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_cckd.samplers.schedule import Schedule, make_schedule, plan_pass, visits_before
from tests.reference import samplers as reference


def schedule_of(weights: list[int], per_batch: int) -> Schedule:
    return make_schedule(np.array(weights, float), per_batch, -(-len(weights) // per_batch), seed=3)


@st.composite
def weighted_classes(draw: st.DrawFn) -> tuple[list[int], int]:
    weights = draw(st.lists(st.integers(1, 4), min_size=4, max_size=20))
    return weights, draw(st.integers(1, max(1, sum(weights) // max(weights))))


@settings(max_examples=30, deadline=None)
@given(weighted_classes(), st.integers(0, 19))
def test_a_pass_is_the_slow_one(classes: tuple[list[int], int], number: int) -> None:
    weights, per_batch = classes
    schedule = schedule_of(weights, per_batch)
    plan = plan_pass(schedule, number)
    want = reference.pass_plan([Fraction(w) for w in weights], per_batch, schedule.batches, 3, number)
    assert [
        list(zip(c, v, strict=True)) for c, v in zip(plan.classes.tolist(), plan.visits.tolist(), strict=True)
    ] == want


@pytest.mark.parametrize("number", [0, 7, 8, 1000])
@pytest.mark.parametrize(("weights", "per_batch"), [([1] * 10, 10), ([1] * 12, 4), ([1, 3, 2, 2], 2), ([2, 1, 1], 2)])
def test_a_pass_without_rounding_is_the_slow_one_too(weights: list[int], per_batch: int, number: int) -> None:
    schedule = schedule_of(weights, per_batch)
    plan = plan_pass(schedule, number)
    want = reference.pass_plan([Fraction(w) for w in weights], per_batch, schedule.batches, 3, number)
    assert np.stack([plan.classes, plan.visits], axis=-1).tolist() == [[list(place) for place in row] for row in want]


@settings(max_examples=30, deadline=None)
@given(weighted_classes())
def test_batches_have_different_classes_and_visits_are_numbered_without_a_gap(classes: tuple[list[int], int]) -> None:
    weights, per_batch = classes
    schedule = schedule_of(weights, per_batch)
    seen: dict[int, list[int]] = {c: [] for c in range(len(weights))}
    for number in range(10):
        plan = plan_pass(schedule, number)
        for row, visits in zip(plan.classes.tolist(), plan.visits.tolist(), strict=True):
            assert len(set(row)) == per_batch
            for c, visit in zip(row, visits, strict=True):
                seen[c].append(visit)
    assert all(visits == list(range(len(visits))) for visits in seen.values())


@pytest.mark.parametrize(("count", "per_batch"), [(7, 7), (7, 3), (20, 8), (101, 16), (2, 1)])
def test_a_pass_visits_every_class_and_extra_places_go_round(count: int, per_batch: int) -> None:
    schedule = schedule_of([1] * count, per_batch)
    passes = 4 * count
    totals = np.zeros(count, int)
    for number in range(passes):
        visits = np.bincount(plan_pass(schedule, number).classes.ravel(), minlength=count)
        assert visits.min() >= 1
        assert visits.max() <= 2
        totals += visits
    assert totals.max() - totals.min() <= 3 + np.log2(passes)  # discrepancy of the van der Corput sequence


def test_a_pass_visits_every_one_of_ten_million_classes() -> None:
    """Float64 has too few digits for the place of each in fixed point."""
    schedule = make_schedule(np.ones(10_000_000), 16, 625_000, seed=0)
    assert (np.diff(schedule.edges) == 2**30).all()  # one visit of each, no more and no less


def test_visits_follow_the_weights_over_many_passes() -> None:
    weights = np.array([1.0, 2.0, 3.0, 0.25, 0.75, 5.0])
    schedule = make_schedule(weights, 2, 3, seed=0)
    visits = visits_before(schedule.edges, 4096)
    np.testing.assert_allclose(visits / visits.sum(), weights / weights.sum(), rtol=2e-3)


def test_counting_visits_is_adding_up_the_passes() -> None:
    schedule = make_schedule(np.array([1.0, 0.3, 2.2, 0.9, 1.6]), 2, 3, seed=0)
    one_by_one = [visits_before(schedule.edges, p + 1) - visits_before(schedule.edges, p) for p in range(200)]
    assert (np.array(one_by_one) >= 0).all()
    assert all(step.sum() == 6 for step in one_by_one)
    assert (visits_before(schedule.edges, 200) == np.sum(one_by_one, axis=0)).all()
    assert visits_before(schedule.edges, 2**29).sum() == 6 * 2**29


def test_every_pair_of_classes_meets_about_equally_often() -> None:
    schedule = schedule_of([1] * 12, 5)
    meetings = np.zeros((12, 12), int)
    for number in range(600):
        for row in plan_pass(schedule, number).classes:
            meetings[np.ix_(row, row)] += 1
    pairs = meetings[np.triu_indices(12, 1)]
    assert pairs.std() / pairs.mean() < 0.08
