"""The layout that the results were measured on is made from the archive that anyone can get."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from reid_cckd.data import read_msmt17

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "omniglot.py"
FOLDERS = {
    "images_background_small1": ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin"),
    "images_background_small2": ("Japanese_(katakana)", "Sanskrit", "Tagalog", "Futurama"),
}


def make(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)


def test_the_official_archive_becomes_msmt17(tmp_path: Path) -> None:
    for part, alphabets in FOLDERS.items():
        for alphabet in alphabets:
            folder = tmp_path / "archive" / part / alphabet / "character01"
            folder.mkdir(parents=True)
            for drawer in range(1, 21):
                image = Image.new("1", (105, 105), 1)
                image.paste(0, (0, 0, 105, 30))  # black above
                image.save(folder / f"0001_{drawer:02d}.png")
    made = make("msmt17", tmp_path / "archive", tmp_path / "set")
    assert made.returncode == 0, made.stderr
    manifest = read_msmt17(tmp_path / "set")
    counts = {role: len(manifest.select(role)) for role in ("train", "query", "gallery")}
    assert counts == {"train": 5 * 4 * 20, "query": 3 * 4, "gallery": 3 * 16}
    upright = Image.open(tmp_path / "set" / "MSMT17_V1" / "train" / "0000" / "0000_000_01_balinese0_0000_0.jpg")
    turned = Image.open(tmp_path / "set" / "MSMT17_V1" / "train" / "0005" / "0005_002_03_balinese90_0002_0.jpg")
    assert upright.size == turned.size == (64, 64)
    assert upright.convert("L").getpixel((32, 5)) < 50 < 200 < upright.convert("L").getpixel((5, 60))
    assert turned.convert("L").getpixel((5, 32)) < 50 < 200 < turned.convert("L").getpixel((60, 5))  # to the left


def test_a_skewed_set_keeps_the_tests_and_thins_the_characters_out(tmp_path: Path) -> None:
    home = tmp_path / "set" / "MSMT17_V1"
    for part, count in (("train", 10), ("test", 2)):
        for character in range(count):
            folder = home / part / f"{character:04d}"
            folder.mkdir(parents=True)
            for drawer in range(20):
                Image.new("L", (8, 8)).save(
                    folder / f"{character:04d}_{drawer:03d}_{drawer + 1:02d}_a_{drawer:04d}_0.jpg"
                )
    made = make("skewed", tmp_path / "set", tmp_path / "skewed")
    assert made.returncode == 0, made.stderr
    manifest = read_msmt17(tmp_path / "skewed")
    sizes = sorted(np.bincount(manifest.select("train").labels).tolist())
    assert sizes == [2, 3, 3, 4, 6, 7, 9, 12, 15, 20]
    assert {role: len(manifest.select(role)) for role in ("query", "gallery")} == {"query": 2 * 4, "gallery": 2 * 16}


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "Greek").mkdir()
    made = make("msmt17", tmp_path, tmp_path / "set")
    assert made.returncode == 1
    assert "no folder of balinese" in made.stderr
    assert "unpack both small background sets" in made.stderr
