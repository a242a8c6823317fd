"""How fast the data room is: reading lists, decoding, augmenting, drawing. `python benchmarks/data.py --quick`."""

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

from reid_cckd.data import ImageDataset, Manifest, build_augment, collate, read_image, read_msmt17, write_pedestrians

SIZE = (128, 64)
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
        start = time.perf_counter()
        for number in range(times):
            work(number)
        rounds.append((time.perf_counter() - start) / times)
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


def print_table(rows: list[Row]) -> None:
    print(f"{'':42}{'seconds':>12}{'floor':>12}{'peak MB':>10}  peers")
    for entry in rows:
        floor = f"{entry['floor_seconds']:.2e}" if entry["floor_seconds"] else ""
        peers = ", ".join(f"{name} {seconds:.2e}" for name, seconds in entry["peers"].items())
        print(f"{entry['name']:42}{entry['seconds']:>12.2e}{floor:>12}{entry['peak_mb']:>10.0f}  {peers}")


if __name__ == "__main__":
    main()
