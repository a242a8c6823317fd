"""How near evaluation comes to the bare matrix product, and to its peers. `python benchmarks/evaluation.py --quick`.

The floor multiplies the same float32 rows by the same routine, in chunks large enough that larger ones gain little,
and keeps nothing. Floor and ours take turns; times are medians, and ours over floor is the median of the ratios of
neighbours. Memory is what ours needs beyond its inputs, or on a GPU with them.

--cpu takes processor seconds instead of seconds: the choice for a machine that others use too, with OMP_NUM_THREADS=1
so that waiting threads do not count.

--device cuda computes on the GPU; the floor brings the rows there too.

Peers are measured where they are installed, or where their source is named: --torchreid and --fastreid are checkouts
(build rank_cylib in them first for the Cython versions), --oml one of open-metric-learning.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evaluation_peers
import numpy as np
import torch
from evaluation_peers import clustered, faiss_search, retrieval_peers

from reid_cckd.evaluation import evaluate_identification, evaluate_retrieval, rank_gallery
from reid_cckd.evaluation.products import multiply

Row = dict[str, Any]
Work = Callable[[], object]


def main() -> None:
    arguments = parse()
    if arguments.cpu:
        evaluation_peers.clock = time.process_time
    rows = []
    for name, run in benchmarks(arguments).items():
        if arguments.only in name:
            rows.append(run(name))
            print_row(rows[-1], first=len(rows) == 1)
            if arguments.json:
                arguments.json.write_text(json.dumps(rows, indent=2))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sets, fast peers, under a minute")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--only", default="", help="only rows whose name contains this")
    parser.add_argument("--rounds", type=int, default=3, help="turns of floor and ours")
    parser.add_argument("--cpu", action="store_true", help="processor seconds instead of seconds")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--slow-peers", action="store_true", help="also those that take minutes")
    for peer in ("torchreid", "fastreid", "oml"):
        parser.add_argument(f"--{peer}", type=Path, help=f"a checkout of {peer}")
    return parser.parse_args()


def benchmarks(arguments: argparse.Namespace) -> dict[str, Callable[[str], Row]]:
    """Name -> measurement. The noise gives an mAP of about 0.5, and of about 0.1 in the rows called weak."""
    small, rounds, device = 4 if arguments.quick else 1, arguments.rounds, torch.device(arguments.device)
    slow = 1 if device.type == "cpu" else rounds  # rounds of what takes minutes there
    market, msmt = (3368 // small, 15913 // small, 751 // small), (11659 // small, 82161 // small, 3060 // small)
    table: dict[str, Callable[[str], Row]] = {
        "market1501 d=512": lambda name: retrieval(name, *market, 512, 2.45, rounds, device, arguments),
        "market1501 d=512 weak": lambda name: retrieval(name, *market, 512, 3.1, rounds, device),
        "market1501 d=2048": lambda name: retrieval(name, *market, 2048, 3.8, rounds, device, arguments),
    }
    if not arguments.quick:
        table["msmt17 d=512"] = lambda name: retrieval(name, *msmt, 512, 2.3, rounds, device)
        table["msmt17 d=2048"] = lambda name: retrieval(name, *msmt, 2048, 3.5, min(rounds, slow), device)
    for size in (10_000, 20_000, 40_000, 80_000):
        table[f"gallery of {size}"] = lambda name, n=size // small: retrieval(
            name, 500, n, n // 20, 512, 2.4, rounds, device
        )
    table[f"nearest 20 of {93_820 // small}"] = lambda name: nearest(
        name, 5000 // small, 93_820 // small, rounds, device
    )
    faces = 50_000 if arguments.quick else 1_000_000
    table[f"megaface {faces}"] = lambda name: megaface(
        name, faces, min(rounds, slow if faces > 100_000 else rounds), device
    )
    return table


def retrieval(
    name: str,
    queries: int,
    items: int,
    people: int,
    width: int,
    noise: float,
    rounds: int,
    device: torch.device,
    arguments: argparse.Namespace | None = None,
) -> Row:
    """Retrieval metrics of one size, with peers where ``arguments`` name them."""
    data = clustered(queries, items, people, width, noise)
    row, found = race(
        name,
        lambda: product_floor(data.query, data.gallery, device),
        lambda: evaluate_retrieval(data.query, data.gallery, *data.lists, device=device),
        rounds,
        device,
    )
    row["mean_ap"] = found.mean_ap
    if arguments is not None:
        row["peers"] = retrieval_peers(data, arguments, found.mean_ap)
    return row


def megaface(name: str, distractors: int, rounds: int, device: torch.device) -> Row:
    """3,530 probes of 80 people against all scales up to ``distractors``, ranks 1 and 10 and three rates."""
    random = np.random.default_rng(0)
    ids = random.integers(0, 80, 3530)
    probes = random.standard_normal((80, 512), dtype=np.float32)[ids]
    probes += 1.6 * random.standard_normal(probes.shape, dtype=np.float32)
    others = random.standard_normal((distractors, 512), dtype=np.float32)
    scales = sorted({10, 100, 1_000, 10_000, min(100_000, distractors), distractors})
    row, _ = race(
        name,
        lambda: product_floor(probes, others, device),
        lambda: evaluate_identification(probes, ids, others, scales, device=device),
        rounds,
        device,
    )
    return row | {"peers": {"faiss exact top 1": faiss_search(probes, others, 1)}}


def nearest(name: str, queries: int, items: int, rounds: int, device: torch.device) -> Row:
    """The 20 nearest items of each query, with their similarities."""
    data = clustered(queries, items, items // 25, 512, 2.3)
    row, _ = race(
        name,
        lambda: product_floor(data.query, data.gallery, device),
        lambda: rank_gallery(data.query, data.gallery, 20, device=device),
        rounds,
        device,
    )
    return row | {"peers": {"faiss exact top 20": faiss_search(data.query, data.gallery, 20)}}


def product_floor(
    query: np.ndarray, gallery: np.ndarray, device: torch.device, chunk: int = 1024, block: int = 16384
) -> None:
    """The products alone, and on a GPU the way of the rows to it."""
    left, right = (torch.from_numpy(rows).to(device) for rows in (query, gallery))
    buffer = torch.empty(chunk, block, device=device)
    for b in range(0, len(right), block):
        items = right[b : b + block]
        for a in range(0, len(left), chunk):
            rows = left[a : a + chunk]
            multiply(rows, items, buffer[: len(rows), : len(items)])
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def race(name: str, floor: Work, ours: Work, rounds: int, device: torch.device) -> tuple[Row, Any]:
    """Floor and ours in turns after one untimed turn, and what ours found."""
    floor()
    memory, found = memory_beyond_inputs(ours) if device.type == "cpu" else memory_of_gpu(ours)
    times = [(seconds(floor), seconds(ours)) for _ in range(max(1, rounds))]
    row = {
        "name": name,
        "seconds": statistics.median(own for _, own in times),
        "peak_mb": memory,
        "floor_seconds": statistics.median(bare for bare, _ in times),
        "ratio": statistics.median(own / bare for bare, own in times),
        "peers": {},
    }
    return row, found


def seconds(work: Work) -> float:
    time.sleep(0.3)  # threads of what ran before, which wait for more work, go to sleep
    start = evaluation_peers.clock()
    work()
    return evaluation_peers.clock() - start


def memory_beyond_inputs(work: Work) -> tuple[float | None, Any]:
    """Peak resident memory of ``work`` over what was resident before, in MB (Linux only), and what it returned."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None, work()
    ctypes.CDLL(None).malloc_trim(0)  # what earlier work freed does not hide what this work takes
    reset.write_text("5")  # forgets the peak so far
    before = status_kb(status, "VmRSS")
    found = work()
    return (status_kb(status, "VmHWM") - before) / 1024, found


def memory_of_gpu(work: Work) -> tuple[float, Any]:
    """What torch holds on a GPU at most, the inputs too, in MB, and what ``work`` returned."""
    torch.cuda.reset_peak_memory_stats()
    found = work()
    return torch.cuda.max_memory_allocated() / 2**20, found


def status_kb(status: Path, field: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(field))


def print_row(row: Row, first: bool) -> None:
    if first:
        print(f"{'name':<24}{'ours s':>9}{'floor s':>9}{'ratio':>7}{'MB':>7}  peers (seconds, times ours)")
    peers = [
        f"{peer} {result['seconds']:.2f} ({result['seconds'] / row['seconds']:.1f}x)"
        for peer, result in row["peers"].items()
        if isinstance(result, dict)
    ]
    memory = "-" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
    times = f"{row['seconds']:>9.2f}{row['floor_seconds']:>9.2f}{row['ratio']:>7.2f}{memory:>7}"
    print(f"{row['name']:<24}{times}  {'; '.join(peers) or '-'}", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
