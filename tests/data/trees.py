"""Small data sets on disk."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Lines = Mapping[str, Sequence[str]]

MSMT17: dict[str, list[str]] = {
    "train": ["0000/0000_000_01_0303morning_0008_0.jpg 0", "0001/0001_000_02_0303noon_0009_1_ex.jpg 1"],
    "val": ["0000/0000_001_03_0303morning_0010_0.jpg 0"],
    "query": ["0000/0000_000_04_0303morning_0011_0.jpg 0"],
    "gallery": ["0000/0000_001_15_0303morning_0012_0.jpg 0", "0001/0001_000_20_0303noon_0013_0.jpg 1"],
}

MARKET = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0007_c3s3_077419_03.jpg"],
    "query": ["0003_c2s1_000001_00.jpg"],
    "bounding_box_test": ["0003_c5s1_000002_00.jpg", "0000_c6s1_000003_00.jpg", "-1_c1s1_000004_00.jpg"],
}


def write_image(path: Path, value: int = 100, size: tuple[int, int] = (8, 4)) -> Path:
    """A grey image of ``size`` (H, W) with a ramp, so that no two columns are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 100, size[1]).astype(np.uint8)
    pixels = np.broadcast_to((ramp + np.uint8(value))[None, :, None], (*size, 3))
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    return path


def write_msmt17(home: Path, lists: Lines = MSMT17, folders: tuple[str, str] = ("train", "test")) -> Path:
    """MSMT17's layout with ``lists`` and every image that they name."""
    for name, lines in lists.items():
        folder = home / (folders[0] if name in ("train", "val") else folders[1])
        for line in lines:
            write_image(folder / line.rpartition(" ")[0])
        (home / f"list_{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return home


def write_folders(home: Path, folders: Lines = MARKET) -> Path:
    """Market-1501's layout: folders of images."""
    for folder, names in folders.items():
        for name in names:
            write_image(home / folder / name)
    return home


def jpeg(value: int = 100, size: tuple[int, int] = (8, 4)) -> bytes:
    """The bytes of such an image as a JPEG."""
    buffer = io.BytesIO()
    Image.new("RGB", (size[1], size[0]), (value, 60, 120)).save(buffer, "JPEG")
    return buffer.getvalue()
