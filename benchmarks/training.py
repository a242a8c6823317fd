"""What a training step costs and who takes the time. `python benchmarks/training.py --quick`.

The same student, teacher, images, batch size and losses (cross-entropy + KD) in every row: the student alone, the
teacher asked at every step, its answers kept of the clean images and of two views, and, as a measure, the recipe in the
way it is usually written (PIL transforms, item() of every loss, accuracy of every batch). With `--repdistiller
CHECKOUT` that recipe runs in RepDistiller's own loop. Rows say how much of a step is teacher, student, loss and data.
They take turns, and the median of the turns counts. On a CPU without workers seconds are processor time, so that what
else runs on the machine counts for little. On a GPU the images lie there, and the rows called recorded replay a CUDA
graph (train.cuda_graph), of which no part can be timed by itself.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn
from training_peers import Clock, Row, repdistiller_epoch, usual_epoch, usual_row

from reid_cckd import build
from reid_cckd.batch import Batch
from reid_cckd.config import Config, config_from_dict, to_dict
from reid_cckd.data import ensure_pedestrians
from reid_cckd.engine import Trainer, pick_device, save_checkpoint
from reid_cckd.engine.tracking import Progress
from reid_cckd.report import format_table

AUGMENT = [{"HorizontalFlip": {"p": 0.5}}, {"Pad": {"padding": 4}}, {"RandomCrop": {"height": 32, "width": 32}}]
PAIRS = {  # student and teacher of the recipe
    "small": (
        "resnet10t",
        {"channels": [8, 16, 32, 64], "stem_width": 8},
        "resnet18",
        {"channels": [32, 64, 128, 256]},
    ),
    "cifar": ("cifar_resnet20", {}, "cifar_resnet56", {}),
    "table1": ("cifar_resnet20", {}, "cifar_resnet110", {}),
    "quick": ("resnet10t", {"channels": [8, 8, 16, 16], "stem_width": 8}, "resnet10t", {"channels": [32, 32, 64, 64]}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller networks and fewer steps, under a minute")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--steps", type=int, default=60, help="measured steps of each row, after 5 to warm up")
    parser.add_argument("--turns", type=int, default=3, help="of every row")
    parser.add_argument("--pair", choices=sorted(PAIRS), default="small", help="student and teacher")
    parser.add_argument("--amp", choices=["off", "teacher", "both"], default="off", help="who computes in bfloat16")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", default="", help="only rows whose name contains this, and the last")
    parser.add_argument("--compile", choices=["off", "teacher", "both"], default="off", help="who is compiled")
    parser.add_argument("--repdistiller", type=Path, help="a checkout of RepDistiller")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps, arguments.turns, arguments.pair = 15, 1, "quick"
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments, Path(folder))
    base = rows[-1]["images_per_s"]
    for row in rows:
        row["ratio"] = row["images_per_s"] / base
        row["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    shown = [{key: f"{value:.2f}" if isinstance(value, float) else value for key, value in row.items()} for row in rows]
    print(format_table(shown))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


def measure(arguments: argparse.Namespace, folder: Path) -> list[Row]:
    """Rows of this toolkit, and of the usual loop last."""
    device = pick_device(arguments.device)
    ensure_pedestrians(folder / "data", train_ids=40, test_ids=2, images_per_id=10, cameras=2, size=(32, 32), seed=0)
    config = recipe(arguments, folder, "memory" if device.type == "cpu" else "device")
    checkpoint = untrained_teacher(config, folder, arguments.pair)
    turns: list[Callable[[], Row]] = []
    for recorded in (False, True) if device.type == "cuda" else (False,):
        for name, mode in {"student alone": None, "online": "online", "clean": "clean", "views": "views"}.items():
            name += ", recorded" * recorded
            if arguments.only in name:
                trainer = make_trainer(config, mode, checkpoint, device, arguments, recorded)
                turns.append(partial(timed_trainer, name, trainer, arguments))
    usual = partial(usual_row, config=config, checkpoint=checkpoint, arguments=arguments, device=device)
    if arguments.repdistiller:
        turns.append(partial(usual, "RepDistiller's loop", epoch=repdistiller_epoch))
    turns.append(partial(usual, "the usual loop", epoch=usual_epoch))
    rounds = [[turn() for turn in turns] for _ in range(arguments.turns)]
    return [median_turn(rows) for rows in zip(*rounds, strict=True)]


def median_turn(rows: Sequence[Row]) -> Row:
    return sorted(rows, key=lambda row: row["images_per_s"])[len(rows) // 2]


def recipe(arguments: argparse.Namespace, folder: Path, cache: str) -> Config:
    student, options, _, _ = PAIRS[arguments.pair]
    values = {
        "output": str(folder / "run"),
        "data": {
            "root": str(folder / "data"), "image_size": [32, 32], "augment": AUGMENT, "cache": cache,
            "workers": arguments.workers,
        },
        "model": {"backbone": student, "options": options, "embedding": 64},
        "sampler": {"kind": "uniform", "batch_size": arguments.batch, "batches_per_epoch": arguments.steps + 5},
        "optim": {"name": "sgd", "lr": 0.05, "warmup_epochs": 0, "options": {"momentum": 0.9}},
        "train": {"epochs": 1, "device": arguments.device},
    }  # fmt: skip
    return config_from_dict(values, "the benchmark")


def untrained_teacher(config: Config, folder: Path, pair: str) -> Path:
    """A checkpoint: what a teacher knows costs nothing."""
    _, _, backbone, options = PAIRS[pair]
    values = to_dict(config)
    values["model"] = {"backbone": backbone, "options": options, "embedding": 128}
    classes = build.read_manifest(config.data).select("train").contiguous_labels()[1].tolist()
    network = build.build_network(config_from_dict(values, "the teacher"), len(classes))
    path = folder / "teacher.pt"
    save_checkpoint(path, {"config": values, "classes": classes, "model": network.state_dict(), "average": None})
    return path


def make_trainer(
    config: Config,
    mode: str | None,
    checkpoint: Path,
    device: torch.device,
    arguments: argparse.Namespace,
    recorded: bool,
) -> Trainer:
    values, amp = to_dict(config), arguments.amp
    loaded = None
    if mode is not None:
        values["teacher"] = {
            "checkpoint": str(checkpoint),
            "mode": mode,
            "views": 2,
            "amp": "off" if amp == "off" else "bfloat16",
            "compile": arguments.compile != "off",
            "cache_dtype": "float32",  # an untrained network may give any number
        }
        values["objective"] = {"alpha": 0.5}
        loaded = build.load_network(checkpoint)
    values["train"] |= {
        "amp": "bfloat16" if amp == "both" else "off",
        "compile": arguments.compile == "both",
        "cuda_graph": recorded,
    }
    chosen = config_from_dict(values, "the benchmark")
    torch.manual_seed(0)
    manifest = build.read_manifest(chosen.data).select("train")
    return build.build_trainer(chosen, manifest, loaded, device, Unjudged())


class Unjudged:
    """Scores nothing: training alone is measured."""

    main = "mean_ap"

    def __call__(self, network: nn.Module) -> dict[str, float]:
        return {self.main: 0.0}


def timed_trainer(name: str, trainer: Trainer, arguments: argparse.Namespace) -> Row:
    """Images per second of whole steps, then the shares in a second pass with clocks in between."""
    trainer.folder.mkdir(parents=True, exist_ok=True)
    trainer.progress = Progress(arguments.steps, 0, 1, silent=True)
    trainer.position.batch = 1  # the balance of the first batch is not what is measured
    seconds, images = timed_steps(trainer, Clock(trainer.device, arguments.workers))
    row = {"name": name, "seconds": seconds, "images_per_s": images / seconds}
    return row | ({} if trainer.recorded else shares(trainer, arguments))


def shares(trainer: Trainer, arguments: argparse.Namespace) -> Row:
    """Who takes which part of a step."""
    clock, teacher, objective = Clock(trainer.device, arguments.workers), trainer.teacher, trainer.objective
    if teacher is not None:
        trainer.teacher = clock.around("teacher", teacher)
    objective.forward = clock.around("loss", type(objective).forward.__get__(objective))
    batches = warmed_up(trainer)
    clock.seconds.clear()
    while True:
        with clock("data"):
            batch = next(batches, None)
        if batch is None:
            break
        with clock("step"):
            trainer._step(batch)
    trainer.teacher = teacher
    del objective.forward
    whole = clock.seconds["step"] + clock.seconds["data"]
    parts = {part: clock.seconds[part] / whole for part in ("teacher", "loss", "data")}
    parts["student"] = 1 - sum(parts.values())
    return parts


def timed_steps(trainer: Trainer, clock: Clock) -> tuple[float, int]:
    """Seconds and images of steps between which nobody looks at a clock."""
    batches = warmed_up(trainer)
    start = clock.now()
    images = 0
    for batch in batches:
        trainer._step(batch)
        images += len(batch.index)
    return clock.now() - start, images


def warmed_up(trainer: Trainer) -> Iterator[Batch]:
    """The batches that are left after the first few."""
    batches = trainer.data.batches(0, 0)
    for _ in range(5):
        trainer._step(next(batches))
    return batches


if __name__ == "__main__":
    main()
