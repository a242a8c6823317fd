"""How fast the correlation loss is, forward and backward. `python benchmarks/losses.py --quick`.

The floor is the three matrix products that the formula asks for: student and teacher Gram matrix, and the gradient.
All contenders of a size take turns, and a ratio is the median over turns, so that a busy machine slows all alike.
With `--device cuda` all of them compute on the GPU, in float32 as on the CPU, and each turn waits for it.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from reid_cckd.losses import CorrelationCongruenceLoss

Row = dict[str, Any]
Contender = Callable[[], object]
GAMMA, ORDER = 0.4, 2
WHOLE_MATRICES = 4096  # contenders that hold several n x n matrices stop here


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes only, under a minute")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--n", type=int, nargs="+", default=[256, 1024, 4096, 16384], help="batch sizes")
    parser.add_argument("--d", type=int, nargs="+", default=[128, 512, 2048], help="embedding widths")
    parser.add_argument("--threads", type=int, help="threads of torch; 1 gives steadier ratios on a busy machine")
    parser.add_argument("--seconds", type=float, default=8.0, help="time for one size")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--torchdistill", type=Path, help="folder that holds the package torchdistill, a peer")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    peer = torchdistill_loss(arguments.torchdistill)
    sizes = [(n, d) for n in arguments.n for d in arguments.d]
    if arguments.quick:
        sizes, arguments.seconds = [(256, 512), (1024, 128), (1024, 512)], 3.0
    print(f"{name_of(device)}; ms, and x the floor in brackets")
    measure(400, 64, 0, device, peer)  # compiles, and gets the threads going
    rows = []
    for n, d in sizes:
        rows.append(measure(n, d, arguments.seconds, device, peer))
        print_row(rows[-1])
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


def name_of(device: torch.device) -> str:
    return f"{torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)


def measure(
    n: int, d: int, seconds: float, device: torch.device, peer: Callable[[Tensor, Tensor], Tensor] | None
) -> Row:
    """Time and peak memory of one size."""
    torch.manual_seed(0)
    student, teacher = torch.randn(n, d, device=device).requires_grad_(), torch.randn(n, d, device=device)
    eager, compiled = CorrelationCongruenceLoss(), CorrelationCongruenceLoss(compile=True)
    contenders: dict[str, Contender] = {
        "floor": products(student.detach(), teacher),
        "eager": lambda: trained(student, lambda: eager(student, ref_emb=teacher)),
        "compiled": lambda: trained(student, lambda: compiled(student, ref_emb=teacher)),
    }
    if n <= WHOLE_MATRICES:
        contenders["plain"] = lambda: trained(student, lambda: plain(student, teacher))
        if peer is not None:
            contenders["torchdistill"] = lambda: trained(student, lambda: peer(normalize(student), normalize(teacher)))
    contenders["compiled"]()  # a loss is compiled when it is first called
    times = take_turns(contenders, seconds, device)
    ratios = {
        name: statistics.median(own / floor for own, floor in zip(times[name], times["floor"], strict=False))
        for name in times
    }
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "name": f"n {n}, d {d}",
        "seconds": medians.pop("eager"),
        "peak_mb": extra_memory(n, d, device) if seconds else None,
        "floor_seconds": medians.pop("floor"),
        "peers": medians,
        "ratios": ratios,
    }


def take_turns(contenders: dict[str, Contender], seconds: float, device: torch.device) -> dict[str, list[float]]:
    """Seconds of every turn; the slow peer has one turn."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    end = time.perf_counter() + seconds
    while not times["floor"] or time.perf_counter() < end:
        for name, work in contenders.items():
            if name == "torchdistill" and times[name]:
                continue
            start = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name].append(time.perf_counter() - start)
    return times


def trained(student: Tensor, loss: Callable[[], Tensor]) -> None:
    """Forward and backward."""
    student.grad = None
    loss().backward()


def products(student: Tensor, teacher: Tensor) -> Contender:
    """Three matrix products into memory that is there already."""
    n = len(student)
    one, two, gradient = student.new_empty(n, n), student.new_empty(n, n), torch.empty_like(student)

    def work() -> None:
        torch.mm(student, student.T, out=one)
        torch.mm(teacher, teacher.T, out=two)
        torch.mm(one, student, out=gradient)

    return work


def plain(student: Tensor, teacher: Tensor) -> Tensor:
    """The formula by Horner, as one would write it."""
    rate = 2 * GAMMA
    one, two = (normalize(rows) @ normalize(rows).T for rows in (student, teacher))
    kernels = [math.exp(-rate) * (1 + dots * (rate + dots * (rate**2 / 2))) for dots in (one, two)]
    return (kernels[0] - kernels[1]).square().mean()


def torchdistill_loss(folder: Path | None) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The peer's loss, or None where it is not at hand."""
    if folder is not None:
        sys.path.insert(0, str(folder))
    try:
        from torchdistill.losses.mid_level import CCKDLoss
    except ImportError as error:
        print(f"torchdistill is left out: {error}")
        return None
    loss = CCKDLoss("rows", "rows", {"type": "gaussian", "gamma": GAMMA, "max_p": ORDER}, "batchmean")
    return lambda student, teacher: loss({"rows": {"output": student}}, {"rows": {"output": teacher}})


def extra_memory(n: int, d: int, device: torch.device) -> float | None:
    """MB beyond the inputs and the student's gradient at the peak of an eager call; None where Linux does not tell.

    On the CPU in a process of its own, which has no memory of earlier sizes at hand.
    """
    if device.type == "cuda":
        return peak_of_gpu(n, d, device)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(peak, n, d).result()


def peak_of_gpu(n: int, d: int, device: torch.device) -> float:
    """The same of what torch holds on a GPU."""
    loss, (student, teacher) = CorrelationCongruenceLoss(), (torch.randn(n, d, device=device) for _ in range(2))
    student.requires_grad_()
    trained(student, partial(loss, student, ref_emb=teacher))
    student.grad = None
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    trained(student, partial(loss, student, ref_emb=teacher))
    return (torch.cuda.max_memory_allocated(device) - before - student.nbytes) / 2**20


def peak(n: int, d: int) -> float | None:
    """What `extra_memory` says, in this process."""
    loss = CorrelationCongruenceLoss()
    for rows in (64, n):  # the first call wakes the libraries
        student, teacher = torch.randn(rows, d).requires_grad_(), torch.randn(rows, d)
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        except OSError:
            return None
        before = resident("VmRSS")
        trained(student, partial(loss, student, ref_emb=teacher))
    return (resident("VmHWM") - before) / 1024 - student.nbytes / 2**20


def resident(field: str) -> int:
    """kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def print_row(row: Row) -> None:
    seconds = {"floor": row["floor_seconds"], "eager": row["seconds"], **row["peers"]}
    parts = [f"{name} {value * 1e3:9.2f} ({row['ratios'][name]:6.2f})" for name, value in seconds.items()]
    peak = "unknown" if row["peak_mb"] is None else f"{row['peak_mb']:.0f} MB"
    print(f"{row['name']:16} {'  '.join(parts)}  extra memory {peak}", flush=True)


if __name__ == "__main__":
    main()
