"""The peers of `benchmarks/evaluation.py`, run on the same synthetic people; nothing of theirs is kept here."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

clock = time.perf_counter  # what all durations are taken by
OF_NEIGHBOURS = ("precision_at_1", "r_precision", "mean_average_precision_at_r", "mean_reciprocal_rank")  # and mAP


@dataclass(frozen=True)
class Search:
    """Queries, gallery, ids and cameras of clustered synthetic people."""

    query: np.ndarray
    gallery: np.ndarray
    query_ids: np.ndarray
    gallery_ids: np.ndarray
    query_cameras: np.ndarray
    gallery_cameras: np.ndarray

    @property
    def lists(self) -> tuple[np.ndarray, ...]:
        return self.query_ids, self.gallery_ids, self.query_cameras, self.gallery_cameras


def clustered(queries: int, items: int, people: int, width: int, noise: float) -> Search:
    """People are random centres; ``noise`` is the spread of their images in units of the centres' own spread."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((people, width), dtype=np.float32)
    ids = [random.integers(0, people, count) for count in (queries, items)]
    rows = [centres[own] + noise * random.standard_normal((len(own), width), dtype=np.float32) for own in ids]
    return Search(*rows, *ids, *(random.integers(0, 6, count) for count in (queries, items)))


def retrieval_peers(data: Search, arguments: argparse.Namespace, ours: float) -> dict[str, dict[str, float] | str]:
    """Name -> seconds and distance to our mean average precision, of each peer that ``arguments`` name."""
    peers: dict[str, Callable[[], float]] = {}
    if arguments.fastreid:
        peers["fast-reid, Cython"] = lambda: fastreid(data, arguments.fastreid)
    if arguments.torchreid:
        peers["torchreid, Cython"] = lambda: torchreid(data, arguments.torchreid, cython=True)
    if arguments.oml:
        peers["OML, full ranking"] = lambda: oml(data, arguments.oml)
    if arguments.slow_peers:
        peers["PML, no cameras, mAP alone"] = lambda: pml(data)
        peers["PML, its five scores of neighbours"] = lambda: pml(data, OF_NEIGHBOURS)
        if arguments.torchreid:
            peers["torchreid, Python"] = lambda: torchreid(data, arguments.torchreid, cython=False)
    return {name: measured(name, work, ours) for name, work in peers.items()}


def measured(name: str, work: Callable[[], float], ours: float) -> dict[str, float] | str:
    """Seconds of a peer and how far its value is from ours, or why it could not be run."""
    try:
        start = clock()
        value = work()
        return {"seconds": clock() - start, "difference": value - ours}
    except Exception as error:
        print(f"skipped {name}: {type(error).__name__}: {error}", file=sys.stderr)
        return f"skipped: {error}"


def cosine_distances(data: Search) -> np.ndarray:
    """One minus cosine similarity, by torch as the peers do."""
    rows = [torch.nn.functional.normalize(torch.from_numpy(x), dim=1) for x in (data.query, data.gallery)]
    return (1 - rows[0] @ rows[1].T).numpy()


def fastreid(data: Search, checkout: Path) -> float:
    module = from_folder(checkout / "fastreid" / "evaluation", "rank")
    assert module.IS_CYTHON_AVAI, "rank_cylib is not built"
    return float(np.mean(module.evaluate_rank(cosine_distances(data), *data.lists, max_rank=10)[1]))


def torchreid(data: Search, checkout: Path, cython: bool) -> float:
    sys.modules.setdefault("torchreid", package("torchreid", checkout / "torchreid"))
    sys.modules.setdefault("torchreid.metrics", package("torchreid.metrics", checkout / "torchreid" / "metrics"))
    module = importlib.import_module("torchreid.metrics.rank")
    assert not cython or module.IS_CYTHON_AVAI, "rank_cylib is not built"
    return float(module.evaluate_rank(cosine_distances(data), *data.lists, max_rank=10, use_cython=cython)[1])


def oml(data: Search, checkout: Path) -> float:
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    knn, metrics = (importlib.import_module(f"oml.functional.{name}") for name in ("knn", "metrics"))
    rows = [torch.nn.functional.normalize(torch.from_numpy(x), dim=1) for x in (data.query, data.gallery)]
    labels = [torch.from_numpy(x) for x in (data.query_ids, data.gallery_ids)]
    sequences = [
        torch.from_numpy(ids * 100 + cameras) for ids, cameras in zip(data.lists[:2], data.lists[2:], strict=True)
    ]
    _, ranked, truth = knn.batched_knn_qg(
        *rows, len(data.gallery), *labels, sequence_ids_query=sequences[0], sequence_ids_gallery=sequences[1]
    )
    kept = [i for i, own in enumerate(truth) if len(own)]
    found = metrics.calc_retrieval_metrics(
        [ranked[i] for i in kept],
        [truth[i] for i in kept],
        cmc_top_k=(1, 5, 10),
        precision_top_k=(),
        map_top_k=(len(data.gallery),),
        verbose=False,
    )
    return float(found["map"][len(data.gallery)])


def pml(data: Search, others: tuple[str, ...] = ()) -> float:
    """MAP without the camera rule, another number for the same amount of work, and ``others`` of PML's scores."""
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    calculator = AccuracyCalculator(include=("mean_average_precision", *others), k=len(data.gallery))
    arrays = [torch.from_numpy(x) for x in (data.query, data.query_ids, data.gallery, data.gallery_ids)]
    return float(calculator.get_accuracy(*arrays)["mean_average_precision"])


def faiss_search(probes: np.ndarray, others: np.ndarray, k: int) -> dict[str, float] | str:
    """Inner products with rows as they are: without the lengths that cosine similarity takes."""
    try:
        import faiss
    except ImportError:
        return "skipped: faiss is not installed"
    start = clock()
    index = faiss.IndexFlatIP(others.shape[1])
    index.add(others)
    index.search(probes, k)
    return {"seconds": clock() - start}


def from_folder(folder: Path, module: str) -> Any:
    """A module of a package whose own __init__ would import what is not installed."""
    name = f"_peer_{folder.name}"
    sys.modules.setdefault(name, package(name, folder))
    return importlib.import_module(f"{name}.{module}")


def package(name: str, folder: Path) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__path__ = [str(folder)]
    return module
