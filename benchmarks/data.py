"""How fast the data room is, from lists to batches. `python benchmarks/data.py --quick`.

Seconds are those of computing in this process, whatever else the machine does; the share of waiting is by the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from reid_cckd.data import (
    DeviceImages,
    ImageDataset,
    Manifest,
    Numbers,
    build_augment,
    build_batched_augment,
    collate,
    limit_threads,
    read_image,
    read_msmt17,
    write_pedestrians,
    write_twin,
)

SIZE, LARGE = (128, 64), (256, 128)
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, under a minute")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    people = 20 if arguments.quick else 200
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        manifest = write_pedestrians(Path(folder) / "set", train_ids=people, test_ids=1, images_per_id=20, size=SIZE)
        drawn = (time.perf_counter() - start) / len(manifest)
        rows = [
            row("draw and write one pedestrian", drawn),
            reading(Path(folder) / "lists", 20_000 if arguments.quick else 126_441),
            decoding(manifest),
            augmenting(manifest),
            loading(manifest),
            *reading_decoded(Path(folder)),
            on_device(Path(folder)),
            waiting(Path(folder), 3 if arguments.quick else 10),
        ]
    print_table(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


def row(name: str, seconds: float, floor: float | None = None, **peers: float) -> Row:
    """One result; ``floor``: the part that no implementation can avoid."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"name": name, "seconds": seconds, "peak_mb": peak, "floor_seconds": floor, "peers": peers}


def timed(work: Callable[[int], object], times: int) -> float:
    """Seconds for each call, the best of three rounds."""
    work(0)
    rounds = []
    for _ in range(3):
        start = time.process_time()
        for number in range(times):
            work(number)
        rounds.append((time.process_time() - start) / times)
    return min(rounds)


def reading(home: Path, images: int) -> Row:
    """A tree as large as MSMT17, of hard links to one file; the floor is reading its folders."""
    source = home / "train" / "source.jpg"
    source.parent.mkdir(parents=True)
    source.write_bytes(b"")
    (home / "test").mkdir()
    for name, share in {"train": 0.26, "val": 0.02, "query": 0.09, "gallery": 0.63}.items():
        lines = []
        for number in range(int(images * share)):
            person = f"{name[0]}{number // 30:04d}"
            path = home / ("train" if name in ("train", "val") else "test") / person / f"x_{number}_01_a.jpg"
            if number % 30 == 0:
                path.parent.mkdir()
            os.link(source, path)
            lines.append(f"{person}/{path.name} {number // 30}\n")
        (home / f"list_{name}.txt").write_text("".join(lines))
    floor = timed(lambda _: [None for _, _, files in os.walk(home) for _ in files], 1)
    return row(f"read the lists of {images:,} images", timed(lambda _: read_msmt17(home), 1), floor)


def decoding(manifest: Manifest) -> Row:
    count = min(len(manifest), 300)
    peers = {}
    try:
        import cv2

        peers["OpenCV (takes truncated files)"] = timed(lambda i: cv2.imread(str(manifest.path(i))), count)
    except ImportError:
        print("OpenCV is not installed: decoding is not compared with it")
    return row("decode one image", timed(lambda i: read_image(manifest.path(i)), count), **peers)


def augmenting(manifest: Manifest) -> Row:
    """Flip, pad and crop, erase; the floor is the same pipeline without any seeding."""
    augment = build_augment("reid", SIZE)
    assert augment is not None
    image, compose = read_image(manifest.path(0)), augment._compose
    floor = timed(lambda _: compose(image=image), 1000)

    def seeded_by_albumentations(index: int) -> None:
        compose.set_random_seed(index)
        compose(image=image)

    ours = timed(lambda index: augment(image, seed=0, epoch=0, index=index), 1000)
    return row("augment one image", ours, floor, set_random_seed=timed(seeded_by_albumentations, 1000))


def loading(manifest: Manifest) -> Row:
    """One item of an augmented batch of 64 out of the cache; the floor is copying it."""
    images = manifest.select("train")
    data = ImageDataset(images, images.labels, SIZE, build_augment("reid", SIZE), cache="memory")
    rows = np.arange(64) % len(data)
    pixels = np.zeros((64, 3, *SIZE), np.uint8)
    batch = timed(lambda _: collate(data.__getitems__(rows.tolist())), 20)
    return row("one item of a cached, augmented batch", batch / 64, timed(lambda _: pixels.copy(), 100) / 64)


def people(folder: Path) -> Manifest:
    """Pictures as large as a camera's, to be resized to what networks see."""
    return write_pedestrians(folder / "large", train_ids=4, test_ids=1, images_per_id=20, size=(320, 160))


def reading_decoded(folder: Path) -> list[Row]:
    """One image of 256 x 128: decoded and resized, or out of the packed cache; target: 5 times as fast."""
    manifest, count = people(folder), 60
    plain = ImageDataset(manifest, manifest.labels, LARGE)
    packed = ImageDataset(manifest, manifest.labels, LARGE, cache="packed", cache_dir=folder / "packed")
    decoded = timed(lambda row: plain[row % len(plain)], count)
    mapped = timed(lambda row: packed[row % len(packed)], 10 * count)
    image, views = read_image(manifest.path(0), LARGE), build_augment("reid", LARGE)
    assert views is not None
    augmented = timed(lambda index: views(image, seed=0, epoch=0, index=index), 10 * count)
    return [
        row("decode one image of 256 x 128", decoded, **decoders(manifest, count)),
        row("the same, packed", mapped, times_faster=decoded / mapped),
        row("augment it", augmented, images_per_second_packed=1 / (mapped + augmented)),
    ]


def decoders(manifest: Manifest, count: int) -> dict[str, float]:
    """What others do: decoding, resizing, flip, padding and a crop in the same process."""
    import albumentations
    import cv2
    from PIL import Image
    from torchvision import transforms

    cv2.setNumThreads(0)
    torchvision = transforms.Compose(
        [
            transforms.Resize(LARGE),
            transforms.RandomHorizontalFlip(),
            transforms.RandomCrop(LARGE, padding=10),
            transforms.PILToTensor(),
        ]
    )
    others = albumentations.Compose(
        [
            albumentations.Resize(*LARGE),
            albumentations.HorizontalFlip(p=0.5),
            albumentations.Pad(10),
            albumentations.RandomCrop(*LARGE),
        ]
    )

    def opencv(row: int) -> object:
        pixels = cv2.cvtColor(cv2.imread(str(manifest.path(row))), cv2.COLOR_BGR2RGB)
        return others(image=pixels)["image"]

    return {
        "PIL + torchvision": timed(lambda row: torchvision(Image.open(manifest.path(row)).convert("RGB")), count),
        "OpenCV + albumentations": timed(opencv, count),
    }


def on_device(folder: Path) -> Row:
    """One image of a batch of 128 of CIFAR, augmented where it trains; target: 10 times as fast as torchvision's."""
    from torchvision import transforms
    from torchvision.transforms.functional import to_pil_image

    cifar = write_twin("cifar10", folder / "cifar10", Numbers(images_per_id=80)).select("train")
    images = ImageDataset(cifar, cifar.labels, (32, 32), build_augment("cifar", (32, 32)), cache="memory")
    device = DeviceImages(
        images.decoded, images.labels, torch.device("cpu"), build_batched_augment("cifar", (32, 32), 0)
    )
    rows = [number * 7 % len(cifar) for number in range(128)]
    usual = transforms.Compose(
        [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )
    pixels = [to_pil_image(images.decoded[number].numpy()) for number in rows]
    batch = timed(lambda epoch: device.batch(rows, epoch), 20) / 128
    ours = timed(lambda _: collate(images.__getitems__(rows)), 5) / 128
    theirs = timed(lambda _: torch.stack([usual(image) for image in pixels]), 5) / 128
    peers = {"ours, image by image": ours, "PIL + torchvision": theirs, "times_faster": theirs / batch}
    return row("one image of CIFAR, on the device", batch, **peers)


def waiting(folder: Path, steps: int) -> Row:
    """A step of ResNet-18 on 32 images of 256 x 128 by two workers; target: under 5 % of it waiting."""
    import timm

    manifest = read_msmt17(folder / "large")
    data = ImageDataset(manifest, manifest.labels, LARGE, build_augment("reid", LARGE))
    rows = [[(32 * step + number) % len(data) for number in range(32)] for step in range(steps + 1)]
    loader = iter(DataLoader(data, batch_sampler=rows, collate_fn=collate, num_workers=2, worker_init_fn=limit_threads))
    network, waited, started = timm.create_model("resnet18", num_classes=4), 0.0, 0.0
    for step in range(steps + 1):
        start = time.perf_counter()
        batch = next(loader)
        if step == 0:  # until the first batch is there the workers start
            started = start = time.perf_counter()
        waited += time.perf_counter() - start
        torch.nn.functional.cross_entropy(network(batch.images / 255), batch.labels % 4).backward()
    whole = time.perf_counter() - started
    return row("a step of ResNet-18, two workers", whole / (steps + 1), waiting_percent=100 * waited / whole)


def print_table(rows: list[Row]) -> None:
    print(f"{'':42}{'seconds':>12}{'floor':>12}{'peak MB':>10}  peers")
    for entry in rows:
        floor = f"{entry['floor_seconds']:.2e}" if entry["floor_seconds"] else ""
        peers = ", ".join(f"{name} {seconds:.2e}" for name, seconds in entry["peers"].items())
        print(f"{entry['name']:42}{entry['seconds']:>12.2e}{floor:>12}{entry['peak_mb']:>10.0f}  {peers}")


if __name__ == "__main__":
    main()
