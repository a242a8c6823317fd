"""What a training step costs and who takes the time. `python benchmarks/training.py --quick`.

The same student, teacher, images, batch size and losses (cross-entropy + KD) in every row: the student alone, the
teacher asked at every step, its answers kept of the clean images and of two views, and, as a measure, the recipe in the
way it is usually written (PIL transforms, item() of every loss, accuracy of every batch). With `--repdistiller
CHECKOUT` that recipe runs in RepDistiller's own loop. Rows say how much of a step is teacher, student, loss and data.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from reid_cckd import build
from reid_cckd.config import Config, config_from_dict, to_dict
from reid_cckd.data import ImageDataset, ensure_pedestrians
from reid_cckd.engine import Trainer, pick_device, save_checkpoint
from reid_cckd.engine.tracking import Progress
from reid_cckd.report import format_table

Row = dict[str, Any]
AUGMENT = [{"HorizontalFlip": {"p": 0.5}}, {"Pad": {"padding": 4}}, {"RandomCrop": {"height": 32, "width": 32}}]
PAIRS = {  # student and teacher of the recipe
    "small": (
        "resnet10t",
        {"channels": [8, 16, 32, 64], "stem_width": 8},
        "resnet18",
        {"channels": [32, 64, 128, 256]},
    ),
    "quick": ("resnet10t", {"channels": [8, 8, 16, 16], "stem_width": 8}, "resnet10t", {"channels": [32, 32, 64, 64]}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller networks and fewer steps, under a minute")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--steps", type=int, default=60, help="measured steps of each row, after 5 to warm up")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repdistiller", type=Path, help="a checkout of RepDistiller")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps = 15
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
    config = recipe(arguments, folder)
    checkpoint = untrained_teacher(config, folder)
    rows = []
    for name, teacher in {"student alone": None, "online": "online", "clean": "clean", "views": "views"}.items():
        trainer = make_trainer(config, teacher, checkpoint, device)
        rows.append(timed_trainer(name, trainer, arguments.steps))
    if arguments.repdistiller:
        rows.append(usual_row("RepDistiller's loop", config, checkpoint, arguments, device, repdistiller_epoch))
    rows.append(usual_row("the usual loop", config, checkpoint, arguments, device, usual_epoch))
    return rows


def recipe(arguments: argparse.Namespace, folder: Path) -> Config:
    student, options, _, _ = PAIRS["quick" if arguments.quick else "small"]
    values = {
        "output": str(folder / "run"),
        "data": {
            "root": str(folder / "data"), "image_size": [32, 32], "augment": AUGMENT, "cache": "memory",
            "workers": arguments.workers,
        },
        "model": {"backbone": student, "options": options, "embedding": 64},
        "sampler": {"kind": "uniform", "batch_size": arguments.batch, "batches_per_epoch": arguments.steps + 5},
        "optim": {"name": "sgd", "lr": 0.05, "warmup_epochs": 0, "options": {"momentum": 0.9}},
        "train": {"epochs": 1, "device": arguments.device},
    }  # fmt: skip
    return config_from_dict(values, "the benchmark")


def untrained_teacher(config: Config, folder: Path) -> Path:
    """A checkpoint: what a teacher knows costs nothing."""
    backbone, options = next(pair[2:] for pair in PAIRS.values() if pair[0:2] == student_of(config))
    values = to_dict(config)
    values["model"] = {"backbone": backbone, "options": options, "embedding": 128}
    classes = build.read_manifest(config.data).select("train").contiguous_labels()[1].tolist()
    network = build.build_network(config_from_dict(values, "the teacher"), len(classes))
    path = folder / "teacher.pt"
    save_checkpoint(path, {"config": values, "classes": classes, "model": network.state_dict(), "average": None})
    return path


def student_of(config: Config) -> tuple[str, dict[str, Any]]:
    return config.model.backbone, config.model.options


def make_trainer(config: Config, mode: str | None, checkpoint: Path, device: torch.device) -> Trainer:
    values = to_dict(config)
    loaded = None
    if mode is not None:
        values["teacher"] = {"checkpoint": str(checkpoint), "mode": mode, "views": 2}
        values["objective"] = {"alpha": 0.5}
        loaded = build.load_network(checkpoint)
    chosen = config_from_dict(values, "the benchmark")
    torch.manual_seed(0)
    manifest = build.read_manifest(chosen.data).select("train")
    return build.build_trainer(chosen, manifest, loaded, device, Unjudged())


class Unjudged:
    """Scores nothing: training alone is measured."""

    main = "mean_ap"

    def __call__(self, network: nn.Module) -> dict[str, float]:
        return {self.main: 0.0}


class Clock:
    """Seconds by name; a GPU is waited for, so that its work counts where it was asked for."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = self.now()
        yield
        self.seconds[name] += self.now() - start

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            with self(name):
                return function(*arguments, **options)

        return timed


def timed_trainer(name: str, trainer: Trainer, steps: int) -> Row:
    """Images per second of whole steps, then the shares in a second pass with clocks in between."""
    trainer.folder.mkdir(parents=True, exist_ok=True)
    trainer.progress = Progress(steps, 0, 1, silent=True)
    trainer.position.batch = 1  # the balance of the first batch is not what is measured
    seconds, images = timed_steps(trainer, Clock(trainer.device))
    clock = Clock(trainer.device)
    if trainer.teacher is not None:
        trainer.teacher = clock.around("teacher", trainer.teacher)
    objective = trainer.objective
    objective.forward = clock.around("loss", objective.forward)
    timed_steps(trainer, clock)
    whole = clock.seconds["step"] + clock.seconds["data"]
    parts = {part: clock.seconds[part] / whole for part in ("teacher", "loss", "data")}
    parts["student"] = 1 - sum(parts.values())
    return {"name": name, "seconds": seconds, "images_per_s": images / seconds, **parts}


def timed_steps(trainer: Trainer, clock: Clock) -> tuple[float, int]:
    batches = trainer.data.batches(0, 0)
    for _ in range(5):
        trainer._step(next(batches))
    clock.seconds.clear()
    start, images = clock.now(), 0
    while True:
        with clock("data"):
            batch = next(batches, None)
        if batch is None:
            return clock.now() - start, images
        with clock("step"):
            trainer._step(batch)
        images += len(batch.index)


class UsualImages(Dataset[tuple[Tensor, int, int]]):
    """Pixels in memory, PIL images and torchvision's transforms, as torchvision's CIFAR does."""

    def __init__(self, dataset: ImageDataset, mean: Tensor, std: Tensor, count: int) -> None:
        assert dataset._pixels is not None
        self.pixels, self.labels, self.count = dataset._pixels.numpy(), dataset.labels, count
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((mean / 255).flatten().tolist(), (std / 255).flatten().tolist()),
            ]
        )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        row = index % len(self.pixels)
        return self.transform(Image.fromarray(self.pixels[row])), int(self.labels[row]), row


class Usual(nn.Module):
    """A network that takes normalised images and gives features and logits, as RepDistiller's models do."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        network.normalise = lambda images: images  # type: ignore[assignment]

    def forward(self, images: Tensor, is_feat: bool = False, preact: bool = False) -> tuple[list[Tensor], Tensor]:
        output = self.network(images)
        return [output.feature_map, output.embedding], output.logits


class KL(nn.Module):
    """KD at temperature 4."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (
            functional.kl_div(
                functional.log_softmax(student / 4, 1), functional.softmax(teacher / 4, 1), reduction="batchmean"
            )
            * 16
        )


Epoch = Callable[[DataLoader[Any], nn.Module, nn.Module, torch.optim.Optimizer, argparse.Namespace], None]


def usual_row(
    name: str, config: Config, checkpoint: Path, arguments: argparse.Namespace, device: torch.device, epoch: Epoch
) -> Row:
    """Images per second of an epoch of the usual kind."""
    manifest = build.read_manifest(config.data).select("train")
    labels, classes = manifest.contiguous_labels()
    dataset = build.image_dataset(manifest, labels, config.data)
    network, teacher = build.build_network(config, len(classes)), build.load_network(checkpoint).network
    mean, std = network.mean.clone(), network.std.clone()
    student, frozen = Usual(network).to(device), Usual(teacher).to(device)
    optimizer = torch.optim.SGD(student.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    seconds = 0.0
    for steps in (5, arguments.steps):
        images = UsualImages(dataset, mean, std, steps * arguments.batch)
        loader = DataLoader(images, arguments.batch, shuffle=True, num_workers=arguments.workers)
        clock = Clock(device)
        start = clock.now()
        epoch(loader, student, frozen, optimizer, arguments)
        seconds = clock.now() - start
    return {"name": name, "seconds": seconds, "images_per_s": arguments.steps * arguments.batch / seconds}


def usual_epoch(
    loader: DataLoader[Any], student: nn.Module, teacher: nn.Module, optimizer: torch.optim.Optimizer, _: object
) -> None:
    """The loop of most repositories."""
    device = next(student.parameters()).device
    cross_entropy, kd, losses, right = nn.CrossEntropyLoss(), KL(), 0.0, 0.0
    student.train()
    teacher.eval()
    for images, labels, _ in loader:
        images, labels = images.to(device), labels.to(device)
        _, logits = student(images, is_feat=True)
        with torch.no_grad():
            _, answers = teacher(images, is_feat=True)
        loss = 0.5 * cross_entropy(logits, labels) + 0.5 * kd(logits, answers)
        losses += loss.item()
        right += (logits.topk(5, 1).indices == labels[:, None]).float().sum().item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def repdistiller_epoch(
    loader: DataLoader[Any],
    student: nn.Module,
    teacher: nn.Module,
    optimizer: torch.optim.Optimizer,
    arguments: argparse.Namespace,
) -> None:
    """RepDistiller's own ``train_distill`` with its recipe for KD."""
    if str(arguments.repdistiller) not in sys.path:
        sys.path.insert(0, str(arguments.repdistiller))
    from helper.loops import train_distill

    options = SimpleNamespace(distill="kd", gamma=0.5, alpha=0.5, beta=0, print_freq=10**9)
    modules, criteria = nn.ModuleList([student, teacher]), nn.ModuleList([nn.CrossEntropyLoss(), KL(), nn.Identity()])
    train_distill(1, loader, modules, criteria, optimizer, options)


if __name__ == "__main__":
    main()
