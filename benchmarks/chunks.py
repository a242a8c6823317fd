"""Memory and time of a large relational batch, whole and in chunks (`train.chunk`). `python benchmarks/chunks.py`.

A CC + cross-entropy step of the network of configs/omniglot, each in a process of its own, whose peak is the step's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reid_cckd.batch import Output
from reid_cckd.engine.gradient import ALL_STAGES, Shown, backward_in_chunks
from reid_cckd.losses import CorrelationCongruenceLoss, CrossEntropy, Objective, Term
from reid_cckd.models import Embedder

SIZE, CLASSES, CHUNK = (48, 48), 964, 128
OPTIONS = {"channels": [8, 16, 32, 64], "stem_width": 8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a quarter of the batch")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--whole", action="store_true", help="the large batch in one piece too, which takes gigabytes")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    batch = arguments.batch // 4 if arguments.quick else arguments.batch
    cases = [(CHUNK, None), (batch, CHUNK)] + ([(batch, None)] if arguments.whole or arguments.quick else [])
    rows = []
    for case in cases:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(step, case))
    print(f"{'':36}{'seconds':>10}{'peak MB':>10}")
    for row in rows:
        print(f"{row['name']:36}{row['seconds']:>10.2f}{row['peak_mb']:>10.0f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


def step(batch: int, chunk: int | None) -> dict[str, Any]:
    """Forward and backward; the peak is beyond network, images and teacher's rows, and beyond a small step."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Embedder("resnet10t", image_size=SIZE, num_classes=CLASSES, options=OPTIONS, embedding=128)
    network = network.to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (batch, 3, *SIZE), dtype=torch.uint8)
    labels, teacher = torch.arange(batch) % CLASSES, torch.randn(batch, 512)
    cc = Term("cc", CorrelationCongruenceLoss(), 20.0, "neck", needs_teacher=True)
    objective = Objective([Term("ce", CrossEntropy(), 1.0, "logits"), cc])
    backward(network, objective, images[:8], labels[:8], teacher[:8], None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    backward(network, objective, images, labels, teacher, chunk)
    seconds = time.process_time() - start
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    name = f"batch {batch:,}" + (f" in chunks of {chunk}" if chunk else "")
    return {"name": name, "seconds": seconds, "peak_mb": peak, "floor_seconds": None, "peers": {}}


def backward(
    network: Embedder, objective: Objective, images: Tensor, labels: Tensor, teacher: Tensor, chunk: int | None
) -> None:
    def loss_of(student: Output) -> Tensor:
        return objective(student, labels, Output(teacher, teacher, None))["loss"]

    shown = Shown(network)
    if chunk is None:
        loss_of(shown(images, ALL_STAGES)).backward()
    else:
        backward_in_chunks(shown, images, chunk, ("neck", "logits"), loss_of, contextlib.nullcontext)


if __name__ == "__main__":
    main()
