"""Evaluation on an accelerator: the numbers of the CPU, wherever the embeddings lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributed as dist

from reid_cckd import evaluation as ev
from reid_cckd.evaluation import products, rows, sharded
from reid_cckd.samplers import ClassUniformSampler
from tests.accelerator.device import DEVICE, NAME, WAITS

RNG = np.random.default_rng(0)
PEOPLE, WIDTH = 12, 16
CENTRES = RNG.normal(size=(PEOPLE, WIDTH))


def photos(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings, who is on them, and which of three cameras took them."""
    ids = RNG.integers(0, PEOPLE, count)
    rows = (CENTRES[ids] + RNG.normal(size=(count, WIDTH)) * 1.5).astype(np.float32)
    return rows, ids, RNG.integers(0, 3, count)


(Q, QUERY_IDS, QUERY_CAMERAS), (G, GALLERY_IDS, GALLERY_CAMERAS) = photos(40), photos(300)
IDS = (QUERY_IDS, GALLERY_IDS)
TAGS = (*IDS, QUERY_CAMERAS, GALLERY_CAMERAS)
LISTS = {
    "query_ids": QUERY_IDS,
    "gallery_ids": GALLERY_IDS,
    "query_cameras": QUERY_CAMERAS,
    "gallery_cameras": GALLERY_CAMERAS,
}
SAME = GALLERY_IDS[:150] == GALLERY_IDS[150:]
FOUR_EACH = np.repeat(np.arange(10), 4)
NOISY = np.arange(300) % 7 == 0
SCORES = np.float32(np.arange(350).reshape(50, 7) % 13)
OLD = (Q * 0.9 + 0.1, G + 0.1)
Place = Callable[[np.ndarray], Tensor]
Evaluate = Callable[[Place], Any]

# Rows that `place` puts onto the device, or rows of the host and a device that computes.
ON_DEVICE: dict[str, Evaluate] = {
    "both sets": lambda place: ev.evaluate_retrieval(place(Q), place(G), *TAGS),
    "queries alone": lambda place: ev.evaluate_retrieval(place(Q), G, *TAGS),
    "half precision": lambda place: ev.evaluate_retrieval(place(Q).half(), place(G).half(), *IDS),
    "ids too": lambda place: ev.evaluate_retrieval(place(Q), place(G), place(QUERY_IDS), place(GALLERY_IDS)),
    "distractors": lambda place: ev.evaluate_identification(place(Q), FOUR_EACH, place(G), (10, 100)),
    "ignored distractors": lambda place: ev.evaluate_identification(
        place(Q), place(FOUR_EACH), place(G), (10, 100), ignored=place(NOISY), order=place(np.arange(300)[::-1].copy())
    ),
    "clean probes": lambda place: ev.clean_probes(place(G), place(GALLERY_IDS), place(NOISY)),
    "templates": lambda place: ev.pool_templates(
        place(Q), place(QUERY_IDS), place(QUERY_CAMERAS), place(np.linspace(0.5, 1, 40))
    ),
    "pairs of rows": lambda place: ev.evaluate_verification(place(G[:150]), place(G[150:]), place(SAME)),
    "pairs by row": lambda place: ev.evaluate_pairs(
        place(G), place(np.arange(150)), place(np.arange(150, 300)), place(SAME)
    ),
    "classes": lambda place: ev.evaluate_classification(place(SCORES), place(np.arange(50) % 7)),
}
BY_DEVICE: dict[str, Callable[[torch.device | None], Any]] = {
    "torchreid": lambda device: ev.evaluate_retrieval(Q, G, *TAGS, device=device, chunk=16),
    "market1501": lambda device: ev.evaluate_retrieval(Q, G, *TAGS, convention="market1501", device=device),
    "all cameras": lambda device: ev.evaluate_retrieval(Q, G, *TAGS, cameras="ignore", device=device),
    "re-ranked": lambda device: ev.evaluate_retrieval(Q, G, *TAGS, reranking=ev.Reranking(), device=device),
    "single shot": lambda device: ev.evaluate_single_shot(Q, G, *TAGS, device=device),
    "recall": lambda device: ev.evaluate_recall(G, GALLERY_IDS, device=device),
    "nearest": lambda device: ev.rank_gallery(Q, G, 7, **LISTS, device=device),
    "all in order": lambda device: ev.rank_gallery(Q, G, len(G), device=device),
    "expanded": lambda device: ev.expand_queries(Q, G, device=device),
    "distillation": lambda device: ev.evaluate_distillation(*OLD, Q, G, *TAGS, device=device),
    "open set": lambda device: ev.evaluate_open_set(Q, G[:PEOPLE], QUERY_IDS, np.arange(PEOPLE), device=device),
    "identification": lambda device: ev.evaluate_identification(Q, FOUR_EACH, G, (10, 300), device=device),
    "verification": lambda device: ev.evaluate_verification(G[:150], G[150:], SAME, device=device),
    "pairs": lambda device: ev.evaluate_pairs(G, np.arange(150), np.arange(150, 300), SAME, device=device),
}


def assert_alike(found: Any, wanted: Any) -> None:
    """Two results agree in every field, down to the queries."""
    if is_dataclass(wanted):
        for field in fields(wanted):
            assert_alike(getattr(found, field.name), getattr(wanted, field.name))
    elif isinstance(wanted, dict):
        assert_alike(list(found.items()), list(wanted.items()))
    elif isinstance(wanted, list | tuple):
        for one, two in zip(found, wanted, strict=True):
            assert_alike(one, two)
    elif isinstance(wanted, float | np.ndarray):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    else:
        assert found == wanted


@pytest.mark.parametrize("name", ON_DEVICE)
def test_embeddings_on_the_device(name: str) -> None:
    evaluate = ON_DEVICE[name]
    assert_alike(evaluate(lambda rows: torch.from_numpy(rows).to(DEVICE)), evaluate(torch.from_numpy))


@pytest.mark.parametrize("name", BY_DEVICE)
def test_products_by_the_device(name: str) -> None:
    evaluate = BY_DEVICE[name]
    WAITS.clear()
    found = evaluate(DEVICE)
    assert WAITS, "nothing came back from the device"
    assert_alike(found, evaluate(None))


@pytest.mark.parametrize("name", [name for name in BY_DEVICE if name != "identification"])
def test_rows_go_to_a_device_that_has_room_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    evaluate, raw = BY_DEVICE[name], rows.Rows.raw
    monkeypatch.setattr(rows, "_has_room", lambda device, values: device == DEVICE != values.device)

    def watched(self: rows.Rows, start: int, stop: int) -> Tensor:
        moved.append(self.device != self.values.device)
        return raw(self, start, stop)

    monkeypatch.setattr(rows.Rows, "raw", watched)
    assert_alike(evaluate(DEVICE), evaluate(None))
    assert moved
    assert not any(moved)


def test_processes_meet_on_a_device_that_theirs_must(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of NCCL alone do, of which a group of one does nothing here but look."""
    seen: list[str] = []
    monkeypatch.setattr(sharded, "_meeting_place", lambda: DEVICE)
    for name in ("all_reduce", "broadcast"):
        monkeypatch.setattr(dist, name, lambda values, name=name, **_: seen.append(f"{name} on {values.device.type}"))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        for device in (None, DEVICE):
            for reranking in (None, ev.Reranking()):
                options: dict[str, Any] = {"reranking": reranking, "device": device}
                assert_alike(ev.evaluate_sharded(Q, G, *TAGS, **options), ev.evaluate_retrieval(Q, G, *TAGS, **options))
            assert_alike(ev.expand_sharded(Q, G, device=device), ev.expand_queries(Q, G, device=device))
    finally:
        dist.destroy_process_group()
    assert set(seen) == {f"all_reduce on {NAME}", f"broadcast on {NAME}"}


def test_weights_of_classes_may_lie_there() -> None:
    weights = torch.tensor([1.0, 2.0, 1.0, 0.5])
    near, far = (
        ClassUniformSampler(np.arange(40) % 4, 2, 2, class_weights=one) for one in (weights, weights.to(DEVICE))
    )
    assert list(far) == list(near)
    assert far.state_dict() == near.state_dict()


def test_speed_can_be_asked() -> None:
    assert ev.pair_rate(8, DEVICE) > 0
    assert ev.product_rate(8, DEVICE) > 0


def test_the_device_has_begun_with_a_chunk_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it is at work while the host looks up true matches; and makes one product of rows that lie there."""
    made: list[int] = []
    monkeypatch.setattr(products, "multiply", lambda left, right, out: made.append(len(right)))
    queries, items = (rows.Rows(torch.from_numpy(values).to(DEVICE), "rows", DEVICE) for values in (Q, G))
    next(products.product_chunks(queries, items, 16))
    assert made == [len(G)]
