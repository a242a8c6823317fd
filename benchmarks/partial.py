"""What partial class sampling spares: memory and time of a margin softmax. `python benchmarks/partial.py --quick`."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any

import torch

from reid_cckd.losses import PartialMargin

BATCH, WIDTH = 256, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the classes")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    classes = 10_000 if arguments.quick else 100_000
    rows = []
    for share in (1.0, 0.3, 0.1):
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # its own process, whose peak is this step's
            rows.append(pool.apply(step, (classes, share)))
    print(f"{'':44}{'seconds':>10}{'peak MB':>10}")
    for row in rows:
        print(f"{row['name']:44}{row['seconds']:>10.2f}{row['peak_mb']:>10.0f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


def step(classes: int, share: float) -> dict[str, Any]:
    """Forward and backward; the peak is beyond the weights and their gradient, which every share has."""
    torch.set_num_threads(1)
    loss = PartialMargin(classes, WIDTH, share=share)
    loss.weight.grad = torch.ones_like(loss.weight)
    rows, labels = torch.randn(BATCH, WIDTH, requires_grad=True), torch.randint(0, classes, (BATCH,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    loss(rows, labels).backward()
    seconds = time.process_time() - start
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    name = f"{classes:,} classes, share {share:g}, batch {BATCH}"
    return {"name": name, "seconds": seconds, "peak_mb": peak, "floor_seconds": None, "peers": {}}


if __name__ == "__main__":
    main()
