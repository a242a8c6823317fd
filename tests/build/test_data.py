"""What tells one set of images from another."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from reid_cckd.build import fingerprint
from reid_cckd.data import Manifest, Numbers, write_twin


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    paths = ("a/0.jpg", "a/1.jpg", "b/0.jpg")
    for number, path in enumerate(paths):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"x" * (10 + number))
    zeros = np.zeros(3, dtype=np.int64)
    return Manifest("set", tmp_path, paths, zeros, zeros, np.array(["train"] * 3))


def test_a_fingerprint_follows_the_length_of_images_and_not_their_time(manifest: Manifest) -> None:
    before = fingerprint(manifest)
    os.utime(manifest.path(1), (1, 1))
    assert fingerprint(manifest) == before
    manifest.path(1).write_bytes(b"x" * 99)
    longer = fingerprint(manifest)
    assert longer != before
    manifest.path(1).unlink()
    assert fingerprint(manifest) not in (before, longer)


def test_a_fingerprint_follows_which_images_there_are_and_their_order(manifest: Manifest) -> None:
    turned = manifest.take(np.array([2, 1, 0]))
    assert len({fingerprint(one) for one in (manifest, turned, manifest.take(np.array([0, 1])))}) == 3


def test_a_fingerprint_follows_the_file_of_a_pack(tmp_path: Path) -> None:
    packed = write_twin("recordio", tmp_path / "pack", Numbers(ids=4, images_per_id=4, size=(16, 16)))
    before = fingerprint(packed)
    with (packed.root / "train.rec").open("ab") as file:
        file.write(b"more")
    assert fingerprint(packed) != before
