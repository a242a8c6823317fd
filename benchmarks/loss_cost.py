"""What each loss adds to a training step, beside cross-entropy. `python benchmarks/loss_cost.py --quick`.

The step is forward and backward of the Omniglot student (configs/omniglot) with cross-entropy, on one core; what a loss
adds is its own forward and backward on the rows that it looks at, those of the teacher at hand. In seconds of the
processor, so that other work on the machine counts little; all take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reid_cckd.batch import Output
from reid_cckd.losses import LOSSES, MMD, Bilinear, CorrelationCongruenceLoss, GaussianRBF, Objective, PairMemory, Term
from reid_cckd.losses import filled as with_known
from reid_cckd.models import Embedder

BATCH, SIZE, WIDTH, CLASSES, IMAGES = 128, (48, 48), 128, 544, 10_880
CORRELATION: dict[str, Callable[[], nn.Module]] = {
    "correlation, Gaussian P 2": CorrelationCongruenceLoss,
    "correlation, Gaussian exact": lambda: CorrelationCongruenceLoss(GaussianRBF(order=None)),
    "correlation, bilinear": lambda: CorrelationCongruenceLoss(Bilinear()),
    "correlation, MMD": lambda: CorrelationCongruenceLoss(MMD()),
    "correlation, memory of 4,096": lambda: CorrelationCongruenceLoss(memory=full_memory(4096)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer turns, under a minute")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    works = all_works()
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(5 if arguments.quick else 25):
        for name, work in works.items():
            seconds = timed(work)
            if turn:  # the first brings constants
                times[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    floor = medians.pop("step")
    rows = [
        {"name": name, "seconds": seconds, "peak_mb": None, "floor_seconds": floor, "peers": {}}
        for name, seconds in medians.items()
    ]
    print(f"{'a step with cross-entropy':32}{floor * 1e3:9.2f} ms")
    for name, seconds in medians.items():
        print(f"{name:32}{seconds * 1e3:9.2f} ms{seconds / floor:9.2%}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


def all_works() -> dict[str, Callable[[], None]]:
    """The step, and the forward and backward of every loss alone."""
    options: dict[str, Any] = {"channels": [8, 16, 32, 64], "stem_width": 8}
    network = Embedder("resnet10t", image_size=SIZE, options=options, embedding=WIDTH, num_classes=CLASSES)
    images = torch.randint(0, 256, (BATCH, 3, *SIZE), dtype=torch.uint8)
    labels, index = torch.arange(BATCH) // 4, torch.randperm(IMAGES)[:BATCH]
    channels = network.map_shape[0]
    student, teacher = (made_up(network) for _ in range(2))
    step = Objective([Term("ce", LOSSES["cross_entropy"]())])
    works = {"step": lambda: step(network(images), labels)["loss"].backward()}
    known = {"num_classes": CLASSES, "num_images": IMAGES, "width": WIDTH}
    for name, make in {**LOSSES, **CORRELATION}.items():
        width = channels if getattr(make, "stage", "") == "feature_map" else WIDTH
        numbers = {**known, "student_width": width, "teacher_width": width}
        loss = make(**with_known(make, {}, numbers)) if isinstance(make, type) else make()
        objective = Objective([Term("it", loss)])
        works[name] = lambda objective=objective: objective(student, labels, teacher, index=index)["loss"].backward()
    return works


def full_memory(size: int) -> PairMemory:
    """As after some epochs."""
    memory = PairMemory(size)
    memory.add(torch.randn(size, WIDTH), torch.randn(size, WIDTH), torch.arange(size) % CLASSES)
    return memory


def made_up(network: Embedder) -> Output:
    """Rows of the shapes of the network's, which want a gradient."""
    shapes = (BATCH, WIDTH), (BATCH, WIDTH), (BATCH, CLASSES), (BATCH, network.map_shape[0], *network.map_shape[1])
    return Output(*(rows_of(shape) for shape in shapes))


def rows_of(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, requires_grad=True)


def timed(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
