"""From `data:` to images: the manifest, the data set, a plain loader."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Subset

from reid_cckd import config as configuration
from reid_cckd.config import hint
from reid_cckd.data import (
    LAYOUTS,
    DeviceImages,
    ImageDataset,
    Manifest,
    build_augment,
    build_batched_augment,
    collate,
    limit_threads,
)
from reid_cckd.data.sources import length_of
from reid_cckd.errors import ConfigError

PROBED = 1000  # files whose length goes into a fingerprint


def read_manifest(data: configuration.Data, named: str = "data.dataset") -> Manifest:
    """The table of images of a configuration; ``named``: what the user calls the layout, for messages.

    Raises:
        ConfigError: no layout of that name. DataError: the files on disk are not what the layout expects.
    """
    if data.dataset not in LAYOUTS:
        raise ConfigError(f"{named}: no layout {data.dataset!r}.{hint(data.dataset, LAYOUTS)}")
    options = {"use_val": data.use_val} if data.dataset == "msmt17" else {}
    return LAYOUTS[data.dataset](Path(data.root), **options)


def image_dataset(
    manifest: Manifest,
    labels: NDArray[np.int64],
    data: configuration.Data,
    augment: bool = False,
    seed: int = 0,
    views: int | None = None,
    left_out: Sequence[int] | None = None,
) -> ImageDataset:
    """The images of a manifest as ``data`` asks for them, options as in `ImageDataset`; damaged ones are printed."""
    dataset = ImageDataset(
        manifest,
        labels,
        data.image_size,
        augment=build_augment(data.augment, data.image_size) if augment and data.cache != "device" else None,
        seed=seed,
        on_bad_image=data.on_bad_image,
        cache="memory" if data.cache == "device" else data.cache,
        cache_dir=Path(data.cache_dir) if data.cache_dir else None,
        views=views,
        left_out=left_out,
    )
    for bad in dataset.bad:
        skipped = left_out is None or bad.row in left_out
        what = "skipped, damaged" if skipped else "damaged, another of its class is shown"
        print(f"{what}: {manifest.path(bad.row)}: {bad.reason}")
    return dataset


def device_images(dataset: ImageDataset, data: configuration.Data, seed: int, device: torch.device) -> DeviceImages:
    """The images of a data set, decoded and moved to the device, with the augmentation of ``data``."""
    augment, pixels = build_batched_augment(data.augment, data.image_size, seed), dataset.decoded
    try:
        return DeviceImages(pixels, dataset.labels, device, augment, dataset.shown, dataset.views)
    except torch.OutOfMemoryError as error:
        need = pixels.nbytes / 1e6
        raise ConfigError(f"data.cache: {need:,.0f} MB of images do not fit on {device}; set cache: memory.") from error


def plain_loader(
    dataset: ImageDataset, batch_size: int, workers: int, start: int = 0, stop: int | None = None
) -> DataLoader[Any]:
    """Every image from number ``start`` on, up to ``stop``, once and in order."""
    rows = range(len(dataset))[start:stop]
    part: Dataset[Any] = dataset if len(rows) == len(dataset) else Subset(dataset, rows)
    return DataLoader(
        part, batch_size=batch_size, num_workers=workers, collate_fn=collate, worker_init_fn=limit_threads
    )


def fingerprint(manifest: Manifest, lengths: Sequence[int] | None = None) -> str:
    """Which images in which order, and how long some of their files are, as 64 hexadecimal digits.

    ``lengths``: of the `probed` files, if not those that they have now.
    """
    found = map(length_of, probed(manifest)) if lengths is None else lengths
    text = "\n".join([manifest.name, *manifest.paths, *map(str, found)])
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def probed(manifest: Manifest) -> list[Path]:
    """Some of a manifest's files, the same ones whenever it is asked."""
    return list(manifest.reader.files(manifest.paths[:: max(1, len(manifest) // PROBED)]))
