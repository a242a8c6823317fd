"""Two processes with a gallery each half of which only one reads get what one process gets."""

from operator import itemgetter

import numpy as np
import pytest
import torch

from reid_cckd.evaluation import (
    Reranking,
    evaluate_retrieval,
    evaluate_sharded,
    expand_queries,
    expand_sharded,
    reranking,
    search,
    sharded,
)
from tests.two_processes import in_two_processes

BLOCK, CHUNK = 64, 50
FEW = "reranked, one chunk for two processes"
ONE = "reranked, one chunk of queries for two processes"
REFINED = ("reranked", "reranked, tied", "reranked, no match", "reranked, bad row", FEW, ONE)
KINDS = (
    "random",
    "tied",
    "junk only in one half",
    "fewer blocks than processes",
    "market1501",
    "no match",
    "bad row",
    *REFINED,
)
EXPANSIONS = {"some": (5, 3.0), "all, plainly": (500, 0.0), "bad": (3, -1.0)}


def data(kind):
    rng = np.random.default_rng(3)
    items = {"fewer blocks than processes": 40, FEW: 15}.get(kind, 333)
    ids = [rng.integers(0, 12, n) for n in (30, items)]
    cameras = [rng.integers(0, 3, n) for n in (30, items)]
    rows = [rng.standard_normal((n, 8)).astype(np.float32) for n in (30, items)]
    if "tied" in kind:  # rows of one entry: similarities are exact
        rows = [np.eye(5, dtype=np.float32)[rng.integers(0, 5, n)] for n in (30, items)]
    if kind == "junk only in one half":
        cameras[1][:192] = 7
    if "no match" in kind:
        ids[0] += 100
    if "bad row" in kind:
        rows[1][300] = 0  # in the second process's part
    return *rows, *ids, *cameras


def options(kind):
    chunk = {"chunk": 100 if kind == ONE else 7}
    if kind in REFINED:
        return {"reranking": Reranking(7, 3, 0.4), **chunk}
    return {"convention": "market1501", **chunk} if kind == "market1501" else chunk


def outcome(evaluate, kind, **more):
    try:
        result = evaluate(*data(kind), (1, 5), **options(kind), **more)
    except ValueError as error:
        return str(error)
    return {**result.summary(), "ap": result.ap, "first": result.first_rank, "inp": result.inp}


def expanded(expand, kind, rows):
    """Rows of the gallery, so few of them that one process has none, or all."""
    k, alpha = EXPANSIONS[kind]
    gallery = data("random")[1]
    try:
        return expand(gallery[:rows], gallery, k=k, alpha=alpha, chunk=CHUNK)
    except ValueError as error:
        return str(error)


def small_chunks(patch):
    """Or one process would search for all neighbours, and work out all neighbourhoods."""
    for module in (search, reranking, sharded):
        patch.setattr(module, "search_chunk", lambda count: CHUNK)
    patch.setattr(reranking, "_BLOCK", BLOCK)


def process(rank):
    worked = []

    def counting(work, part):
        def counted(*arguments, **options):
            worked.append(len(part(arguments)))
            return work(*arguments, **options)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        small_chunks(patch)
        for name, place in (("search", 3), ("_encode", -1), ("_average", -1), ("product_chunks", -1)):
            patch.setattr(reranking, name, counting(getattr(reranking, name), itemgetter(place)))
        found = [outcome(evaluate_sharded, kind, block=BLOCK) for kind in KINDS]
        rows = {(kind, n): expanded(expand_sharded, kind, n) for kind in EXPANSIONS for n in (0, 10, 333)}
    return found, rows, worked


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    return in_two_processes(process, tmp_path_factory.mktemp("sharded"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_has_the_result_of_one(outcomes, kind, rank, monkeypatch):
    small_chunks(monkeypatch)
    found, expected = outcomes[rank][0][KINDS.index(kind)], outcome(evaluate_retrieval, kind)
    if isinstance(expected, str):
        assert found == expected
        assert ("share no id" in expected) if "no match" in kind else ("row 300 is a zero vector" in expected)
    else:
        assert found.keys() == expected.keys()
        for name in found:
            np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("kind", EXPANSIONS)
@pytest.mark.parametrize("count", [0, 10, 333])
def test_each_process_has_all_expanded_rows(outcomes, kind, count):
    expected = expanded(expand_queries, kind, count)
    for _, rows, _ in outcomes:
        np.testing.assert_array_equal(rows[kind, count], expected)


def only_the_second_reads_a_bad_row(rank):
    query, gallery, *rest = data("random")
    gallery[300] *= 1 - rank
    try:
        evaluate_sharded(query, gallery, *rest, reranking=Reranking(7, 3, 0.4))
    except ValueError as error:
        return str(error)


def test_all_processes_hear_of_a_row_that_one_reads_wrong(tmp_path):
    for text in in_two_processes(only_the_second_reads_a_bad_row, tmp_path):
        assert "row 300 is a zero vector" in text


def test_processes_meet_where_their_group_can(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    for backend, place in (("nccl", "cuda:3"), ("gloo", "cpu"), ("undefined", "cpu")):
        monkeypatch.setattr(sharded.dist, "get_backend", lambda backend=backend: backend)
        assert sharded._meeting_place() == torch.device(place)


def test_every_step_of_reranking_is_shared(outcomes):
    """The search for neighbours, the neighbourhoods, their means, and the queries, of each set in turn."""
    worked = [list(zip(*[iter(outcome[2])] * 4, strict=True)) for outcome in outcomes]
    assert set(worked[0]) == {(200, 192, 192, 14), (0, 0, 0, 14), (200, 192, 192, 0)}
    assert set(worked[1]) == {(163, 171, 171, 16), (45, 45, 45, 16), (163, 171, 171, 30)}
