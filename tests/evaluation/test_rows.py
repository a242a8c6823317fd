"""Where rows lie while they are evaluated, and how they are named by number or marked."""

import numpy as np
import pytest
import torch

from reid_cckd.evaluation import clean_probes, evaluate_identification, evaluate_pairs, rows

RNG = np.random.default_rng(0)
FACES, IDS, SAME = RNG.standard_normal((40, 8)).astype(np.float32), np.arange(40) % 8, np.arange(40) % 3 == 0
PLACES = RNG.permutation(40)

# name -> call with numbers of rows, in whatever type they come
NUMBERED = {
    "first": lambda places: evaluate_pairs(FACES, places, np.arange(40), SAME).scores,
    "second": lambda places: evaluate_pairs(FACES, np.arange(40), places, SAME).scores,
    "order": lambda places: evaluate_identification(FACES, IDS, FACES - 0.5, (40,), order=places).above[40],
}
MARKED = {
    "noisy": lambda marks: clean_probes(FACES, IDS, marks),
    "ignored": lambda marks: evaluate_identification(FACES, IDS, FACES, (40,), ignored=marks),
    "same": lambda marks: evaluate_pairs(FACES, PLACES, PLACES, marks),
}


@pytest.mark.parametrize(("count", "room"), [(250, True), (251, False)])
def test_a_gpu_holds_rows_that_take_up_to_a_quarter_of_its_free_memory(count, room, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4000, 10**9))
    values = torch.zeros(count, 1)
    assert rows._has_room(torch.device("cuda"), values) is room
    assert not rows._has_room(torch.device("cpu"), values)
    assert not rows._has_room(torch.device("cuda"), values.to("meta"))


@pytest.mark.parametrize("name", NUMBERED)
@pytest.mark.parametrize("kind", ["uint8", "int16", "uint64"])
def test_numbers_of_rows_may_be_of_any_integer_type(name, kind):
    """Of uint8 torch makes a mask, which as long as the rows are gives other rows without a word."""
    np.testing.assert_array_equal(NUMBERED[name](PLACES.astype(kind)), NUMBERED[name](PLACES))


@pytest.mark.parametrize("name", NUMBERED)
def test_numbers_that_are_no_rows_are_named(name):
    with pytest.raises(ValueError, match=f"{name} must be rows in 0 ... 39, goes from 1 to 40"):
        NUMBERED[name](PLACES + 1)
    with pytest.raises(TypeError, match=f"{name} must be whole numbers, is float64"):
        NUMBERED[name](PLACES / 1)


@pytest.mark.parametrize("name", MARKED)
def test_marks_of_zero_and_one_are_refused(name):
    with pytest.raises(TypeError, match=f"{name} must be boolean, is int64"):
        MARKED[name](np.arange(40) % 2)
