"""How fast samplers start and run, and what superclasses cost. `python benchmarks/samplers.py --quick`.

Peers are measured when they are at hand: pytorch-metric-learning when it is installed, torchreid and fast-reid from
checkouts named on the command line. All draw 16 classes x 4 images from the same skewed labels; a peer that works
from batch to batch is stopped after some seconds, and its epoch is extrapolated.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from reid_cckd.samplers import ClassUniformSampler, SuperclassUniformSampler, UniformSampler, build_superclasses

P, K = 16, 4
Row = dict[str, Any]
Make = Callable[[], Iterable[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200,000 images, under a minute")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--images", type=int, default=5_800_000)
    parser.add_argument("--ids", type=int, default=85_742)
    parser.add_argument("--patience", type=float, default=10.0, help="seconds for a peer that works batch by batch")
    parser.add_argument("--torchreid", type=Path, help="a checkout of deep-person-reid")
    parser.add_argument("--fastreid", type=Path, help="a checkout of fast-reid")
    parser.add_argument(
        "--kmeans", type=int, nargs=3, metavar=("ROWS", "WIDTH", "CLUSTERS"), default=[100_000, 256, 500]
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.images, arguments.ids, arguments.patience = 200_000, 3_000, 3.0
        arguments.kmeans = [20_000, 64, 100]
    labels = skewed_labels(arguments.images, arguments.ids)
    peers = {name: measure(name, make, labels, arguments.patience) for name, make in peers_for(arguments, labels)}
    rows = [*sampler_rows(labels, peers), *kmeans_rows(*arguments.kmeans)]
    rows.append(step_row(rows, len(labels)))
    print_table(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


def skewed_labels(images: int, ids: int) -> np.ndarray:
    """Class sizes as in face data: log-normal, at least one image, in random order."""
    rng = np.random.default_rng(0)
    shares = rng.lognormal(0.0, 0.7, ids)
    extra = rng.choice(ids, images - ids, p=shares / shares.sum())
    return rng.permutation(np.concatenate([np.arange(ids), extra]))


def sampler_rows(labels: np.ndarray, peers: dict[str, dict[str, float]]) -> list[Row]:
    """Construction, first batch and epoch of our samplers; peers beside the class-uniform one."""
    superclasses = labels % 1000
    makers: dict[str, Make] = {
        "CUR": lambda: ClassUniformSampler(labels, P, K),
        "SUR": lambda: SuperclassUniformSampler(superclasses, 8, 8),
        "SUR, 2 per class": lambda: SuperclassUniformSampler(superclasses, 8, 8, labels=labels, samples_per_class=2),
        "uniform": lambda: UniformSampler(labels, P * K),
    }
    rows = []
    for name, make in makers.items():
        result = measure(name, make, labels, patience=1e9)
        beside = peers if name == "CUR" else {}
        for part in ("construct", "first batch", "epoch"):
            others = {peer: values[part] for peer, values in beside.items()}
            rows.append(row(f"{name}: {part}", result[part], peak_mb=memory_of(make), **others))
    return rows


def measure(name: str, make: Make, labels: np.ndarray, patience: float) -> dict[str, float]:
    """Seconds to construct, from then to the first batch, and for as many images as there are."""
    print(f"... {name}", flush=True)
    start = time.perf_counter()
    sampler = make()
    constructed = time.perf_counter()
    source = iter(sampler)
    first = next(source)
    begun = time.perf_counter()
    size = len(first) if isinstance(first, list) else 1
    images = size * (1 + count_until(source, begun + patience))
    seconds = time.perf_counter() - constructed
    return {
        "construct": constructed - start,
        "first batch": begun - constructed,
        "epoch": seconds * len(labels) / images,
    }


def count_until(source: Iterator[Any], deadline: float) -> int:
    """How many items come before the deadline; the clock is read once in a thousand."""
    count = 0
    for _ in source:
        count += 1
        if count % 1000 == 0 and time.perf_counter() > deadline:
            break
    return count


def memory_of(make: Make) -> float:
    """Peak megabytes that numpy and Python allocate to construct a sampler and to draw its first 300 batches."""
    tracemalloc.start()
    source = iter(make())
    for _ in range(300):
        next(source)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return peak


def peers_for(arguments: argparse.Namespace, labels: np.ndarray) -> Iterator[tuple[str, Make]]:
    """The peers at hand; their lists of tuples are made outside of what is timed."""
    try:
        from pytorch_metric_learning.samplers import MPerClassSampler

        some = min(len(labels), 10_000 * P * K)
        yield "PML, whole passes", lambda: MPerClassSampler(labels, K, length_before_new_iter=some)
        few = min(len(labels), 300 * P * K)
        yield "PML, batches", lambda: MPerClassSampler(labels, K, batch_size=P * K, length_before_new_iter=few)
    except ImportError:
        print("pytorch-metric-learning is not installed: not compared")
    if not (arguments.torchreid or arguments.fastreid):
        print("torchreid and fast-reid are compared when --torchreid and --fastreid name their checkouts")
        return
    table = [("", label, camera, 0) for label, camera in zip(labels.tolist(), (labels % 7).tolist(), strict=True)]
    if arguments.torchreid:
        torchreid = load_file(arguments.torchreid / "torchreid/data/sampler.py")
        yield "torchreid", lambda: torchreid.RandomIdentitySampler(table, P * K, K)
    if arguments.fastreid:
        sys.path.insert(0, str(arguments.fastreid))
        fastreid = load_file(arguments.fastreid / "fastreid/data/samplers/triplet_sampler.py")
        rows = [entry[:3] for entry in table]
        yield "fast-reid, naive", lambda: fastreid.NaiveIdentitySampler(rows, P * K, K, seed=0)
        yield "fast-reid, balanced", lambda: fastreid.BalancedIdentitySampler(rows, P * K, K, seed=0)


def load_file(path: Path) -> Any:
    """A module from a file, without the package around it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kmeans_rows(rows: int, width: int, clusters: int) -> list[Row]:
    """Superclasses found beside faiss alone: the same training rows, iterations and assignment, both warmed up."""
    print("... K-means", flush=True)
    points = np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)
    labels = np.arange(rows) // 50
    seconds: dict[str, list[float]] = {"faiss": [], "ours": []}
    few = points[: 4 * clusters]
    faiss_alone(few, clusters)
    build_superclasses(few, labels[: len(few)], clusters, attempts=1)
    for _ in range(2 if rows < 50_000 else 1):
        seconds["faiss"].append(timed(lambda: faiss_alone(points, clusters)))
        seconds["ours"].append(timed(lambda: build_superclasses(points, labels, clusters, attempts=1)))
    floor = min(seconds["faiss"])
    return [row(f"K-means {rows:,} x {width} into {clusters:,}", min(seconds["ours"]), floor=floor, faiss=floor)]


def faiss_alone(points: np.ndarray, clusters: int) -> None:
    """What faiss needs for the same centroids and the nearest one of every row."""
    import faiss

    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    quiet = {"min_points_per_centroid": 1, "max_points_per_centroid": 256}
    kmeans = faiss.Kmeans(points.shape[1], clusters, niter=20, spherical=True, seed=1, **quiet)
    kmeans.train(unit)
    kmeans.index.search(unit, 1)


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def step_row(rows: list[Row], images: int) -> Row:
    """One class-uniform batch beside the training step that it feeds, of a small network on the CPU."""
    import timm
    import torch

    epoch = next(entry["seconds"] for entry in rows if entry["name"] == "CUR: epoch")
    network, batch = timm.create_model("resnet18", num_classes=10), torch.randn(P * K, 3, 128, 64)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        network(batch).sum().backward()
        seconds.append(time.perf_counter() - start)
    step = {"training step of ResNet-18 at 128 x 64": min(seconds)}
    return row("CUR: one batch", epoch * P * K / images, **step)


def row(name: str, seconds: float, floor: float | None = None, peak_mb: float | None = None, **peers: float) -> Row:
    if peak_mb is None:
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"name": name, "seconds": seconds, "peak_mb": peak_mb, "floor_seconds": floor, "peers": peers}


def print_table(rows: list[Row]) -> None:
    print(f"\n{'':42}{'seconds':>10}{'peak MB':>10}  peers (seconds, times ours)")
    for entry in rows:
        seconds = entry["seconds"]
        beside = [f"{name} {value:.3g} ({value / seconds:.3g}x)" for name, value in entry["peers"].items()]
        print(f"{entry['name']:42}{seconds:>10.3g}{entry['peak_mb']:>10.0f}  {', '.join(beside)}")


if __name__ == "__main__":
    main()
