from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchvision.datasets import CIFAR100

from reid_cckd.data.cifar import CIFAR10, Batches, Cifar, read_cifar
from reid_cckd.data.cifar import CIFAR100 as FINE
from reid_cckd.data.dataset import ImageDataset, collate
from reid_cckd.data.layouts import LAYOUTS
from reid_cckd.data.synthetic.pickles import python2_pickle, write_cifar
from reid_cckd.errors import DataError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cifar")
    write_cifar(root, CIFAR10, images_per_batch=20)
    write_cifar(root, FINE, images_per_batch=100)
    return root


@pytest.mark.parametrize("inside", [False, True])
def test_cifar10(home: Path, inside: bool) -> None:
    manifest = LAYOUTS["cifar10"](home / "cifar-10-batches-py" if inside else home)
    assert manifest.roles.tolist() == ["train"] * 100 + ["test"] * 20
    assert (manifest.paths[0], manifest.paths[119]) == ("data_batch_1:0", "test_batch:19")
    assert np.bincount(manifest.labels).tolist() == [12] * 10
    assert manifest.superclasses is None
    assert manifest.read(3).shape == (32, 32, 3)
    assert manifest.read(3, (16, 8)).shape == (16, 8, 3)


def test_cifar100_is_what_torchvision_reads(home: Path) -> None:
    manifest = LAYOUTS["cifar100"](home)
    for role in ("train", "test"):
        part = manifest.select(role)
        content = pickle.loads((home / "cifar-100-python" / role).read_bytes(), encoding="latin1")
        expected = content["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # as torchvision's __init__ does
        np.testing.assert_array_equal(np.stack([part.read(row) for row in range(len(part))]), expected)
        assert part.labels.tolist() == content["fine_labels"]
        assert part.superclasses is not None
        assert part.superclasses.tolist() == content["coarse_labels"]
    assert CIFAR100.base_folder == FINE.home


def test_classes_have_the_names_of_the_meta_file(tmp_path: Path) -> None:
    write_cifar(tmp_path, CIFAR10, images_per_batch=10)
    meta = tmp_path / "cifar-10-batches-py" / "batches.meta"
    names = b"airplane automobile bird cat deer dog frog horse ship truck".split()
    meta.write_bytes(python2_pickle({b"num_vis": 3072, b"label_names": names}))
    found = LAYOUTS["cifar10"](tmp_path).select("test").class_names
    assert (len(found), found[0], found[9]) == (10, "airplane", "truck")
    for damaged in ({b"label_names": names[:9]}, {}, names):
        meta.write_bytes(python2_pickle(damaged))
        with pytest.raises(DataError, match=r"batches\.meta: expected `label_names`, the names of 10 classes"):
            LAYOUTS["cifar10"](tmp_path)
    meta.unlink()
    assert not LAYOUTS["cifar10"](tmp_path).class_names


def test_workers_and_pickled_copies_read_the_same(home: Path) -> None:
    part = LAYOUTS["cifar10"](home).select("test")
    images = ImageDataset(part, part.labels, (32, 32))
    batch = next(iter(DataLoader(images, batch_size=20, collate_fn=collate, num_workers=1)))
    assert torch.equal(batch.images[7], torch.from_numpy(part.read(7)).permute(2, 0, 1))
    spawned = pickle.dumps(part)
    assert len(spawned) < 20_000  # a worker that is spawned reads the pixels itself
    np.testing.assert_array_equal(pickle.loads(spawned).read(7), part.read(7))


def batch(**changes: Any) -> dict[bytes, Any]:
    content = {b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 1, 2]}
    return {**content, **{key.encode(): value for key, value in changes.items()}}


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (batch(data=np.zeros((3, 3072), np.float32)), "holds no images"),
        (batch(data=np.zeros((3, 999), np.uint8)), "holds no images"),
        (batch(data=None), "holds no images"),
        ([1, 2], "holds no images"),
        (batch(labels=[0, 1]), "3 numbers from 0 to 9"),
        (batch(labels=[0, 1, 10]), "3 numbers from 0 to 9"),
        (batch(labels=[0, 1, b"cat"]), "3 numbers from 0 to 9"),
        (batch(labels=None), "3 numbers from 0 to 9"),
    ],
)
def test_a_batch_of_something_else_is_refused(tmp_path: Path, content: Any, part: str) -> None:
    write_cifar(tmp_path, CIFAR10, images_per_batch=10)
    file = tmp_path / CIFAR10.home / "data_batch_2"
    file.write_bytes(python2_pickle(content))
    with pytest.raises(DataError, match=part) as caught:
        read_cifar(tmp_path, kind=CIFAR10)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("how", ["missing", "truncated", "empty"])
def test_a_damaged_batch_is_named(tmp_path: Path, how: str) -> None:
    write_cifar(tmp_path, CIFAR10, images_per_batch=10)
    file = tmp_path / CIFAR10.home / "test_batch"
    content = file.read_bytes()
    file.unlink()
    if how != "missing":
        file.write_bytes(content[: len(content) // 2 if how == "truncated" else 0])
    with pytest.raises(DataError, match=str(file)):
        read_cifar(tmp_path, kind=CIFAR10)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No CIFAR-100 \(python version\) .* cifar-100-python/"):
        read_cifar(tmp_path, kind=FINE)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from([CIFAR10, FINE]), place=st.integers(0, 10**6), value=st.integers(0, 255))
def test_damage_ends_in_a_data_error_or_in_images(
    kind: Cifar, place: int, value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp() / "fuzzed" / kind.name
    if not root.exists():
        write_cifar(root, kind, images_per_batch=4)
    file = kind.batches["test"][0]
    path = root / kind.home / file
    whole = path.read_bytes()
    try:
        end = len(whole)
        place = place % end if place % 3 else end - 1 - place % 200  # pixels are most bytes: strike the others too
        path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
        Batches(root / kind.home, kind).batch(file)
    except DataError:
        pass
    finally:
        path.write_bytes(whole)
