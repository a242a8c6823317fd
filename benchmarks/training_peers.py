"""The recipe of `benchmarks/training.py` as it is usually written, in a plain loop and in RepDistiller's own."""

from __future__ import annotations

import argparse
import sys
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
from reid_cckd.config import Config
from reid_cckd.data import ImageDataset

Row = dict[str, Any]


class Clock:
    """Seconds by name; a GPU is waited for, so that its work counts where it was asked for."""

    def __init__(self, device: torch.device, workers: int) -> None:
        self.device, self.seconds = device, defaultdict(float)
        alone = device.type == "cpu" and workers == 0 and torch.get_num_threads() == 1
        self.read = time.process_time if alone else time.perf_counter

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = self.now()
        yield
        self.seconds[name] += self.now() - start

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.read()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            with self(name):
                return function(*arguments, **options)

        return timed


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
        clock = Clock(device, arguments.workers)
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
