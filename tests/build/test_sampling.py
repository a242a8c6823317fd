"""From the keys of `sampler:` to batches."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reid_cckd import build
from reid_cckd.config import config_from_dict
from reid_cckd.data import ImageDataset, Manifest
from reid_cckd.errors import ConfigError, DataError
from reid_cckd.models import Teacher
from reid_cckd.samplers import Superclasses, build_superclasses
from tests.two_processes import in_two_processes

CPU = torch.device("cpu")
LABELS = np.repeat(np.arange(8), [4, 4, 4, 4, 4, 4, 8, 16])


@pytest.fixture
def dataset(tmp_path: Path) -> ImageDataset:
    from PIL import Image

    random = np.random.default_rng(0)
    for number, label in enumerate(LABELS.tolist()):
        pixels = np.full((16, 16, 3), 28 * label, np.uint8) + random.integers(0, 20, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    paths = tuple(f"{number}.png" for number in range(len(LABELS)))
    zeros = np.zeros(len(LABELS), np.int64)
    manifest = Manifest("toy", tmp_path, paths, LABELS, zeros, np.array(["train"] * len(LABELS)), LABELS // 2)
    return ImageDataset(manifest, LABELS, (16, 16))


def config(folder: Path, **sampler: Any) -> Any:
    small = {"channels": [8, 8, 8, 8], "stem_width": 8}
    return config_from_dict(
        {
            "output": str(folder / "run"),
            "data": {"root": str(folder), "image_size": [16, 16], "workers": 0},
            "model": {"backbone": "resnet10t", "options": small},
            "teacher": {"checkpoint": "unused"},
            "objective": {"beta": 1.0},
            "sampler": {"superclasses_per_batch": 2, "samples_per_superclass": 4, "num_superclasses": 4, **sampler},
        },
        "test",
    )


def batches_of(settings: Any, dataset: ImageDataset, epoch: int = 0) -> list[list[int]]:
    torch.manual_seed(0)
    teacher = Teacher(build.build_network(settings, num_classes=8))
    sampler = build.build_sampler(settings, dataset, teacher, CPU)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_the_sets_own_superclasses_with_groups_of_a_class(dataset: ImageDataset, tmp_path: Path) -> None:
    settings = config(tmp_path, kind="sur", superclasses="data", inner_samples_per_class=2)
    for batch in batches_of(replace(settings, teacher=None), dataset):
        assert sorted(Counter((LABELS[batch] // 2).tolist()).values()) == [4, 4]
        assert set(Counter(LABELS[batch].tolist()).values()) <= {2, 4}


@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_superclasses_of_a_file(dataset: ImageDataset, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"given.{kind}"
    if kind == "csv":
        path.write_text("label,superclass\n" + "".join(f"{label},{label % 3}\n" for label in range(8)))
        groups = LABELS % 3
    else:
        found = build_superclasses(np.random.default_rng(0).normal(size=(len(LABELS), 4)), LABELS, 4)
        found.save(path)
        groups = found.assignments
    for batch in batches_of(config(tmp_path, kind="sur", superclasses=str(path)), dataset):
        assert sorted(Counter(groups[batch].tolist()).values()) == [4, 4]


def test_superclasses_are_found_anew_and_read_again(
    dataset: ImageDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(tmp_path, kind="sur", refresh_every=2)
    epochs = [batches_of(settings, dataset, epoch) for epoch in range(4)]
    assert "4 superclasses of" in capsys.readouterr().out
    files = sorted((tmp_path / "run").glob("superclasses_*.npz"))
    assert [file.name for file in files] == ["superclasses_0000.npz", "superclasses_0001.npz"]
    before = [file.stat().st_mtime_ns for file in files]
    assert [batches_of(settings, dataset, epoch) for epoch in range(4)] == epochs
    assert [file.stat().st_mtime_ns for file in files] == before
    groups = Superclasses.load(files[1]).assignments
    assert all(sorted(Counter(groups[batch].tolist()).values()) == [4, 4] for batch in epochs[3])


def in_each_process(rank: int, settings: Any, dataset: ImageDataset) -> tuple[list[list[int]], int]:
    """The batches of a refreshed epoch, and how often this process's teacher answered, which is of its own."""
    torch.manual_seed(rank)
    teacher, asked = Teacher(build.build_network(settings, num_classes=8)), []
    teacher.register_forward_hook(lambda *_: asked.append(1))
    sampler = build.build_sampler(settings, dataset, teacher, CPU)
    sampler.set_epoch(2)
    return list(sampler), len(asked)


def test_two_processes_have_the_superclasses_of_the_first(dataset: ImageDataset, tmp_path: Path) -> None:
    settings = config(tmp_path, kind="sur", refresh_every=2)
    (first, asked), (second, never) = in_two_processes(in_each_process, tmp_path, settings, dataset)
    assert first == second
    assert (asked, never) == (1, 0)


def test_a_class_comes_by_the_power_of_its_size(dataset: ImageDataset, tmp_path: Path) -> None:
    options = {"kind": "cur", "classes_per_batch": 3, "samples_per_class": 4, "batches_per_epoch": 96}
    for power, share in [(0.0, 1 / 8), (0.5, 4 / (12 + 8**0.5 + 4)), (1.0, 1 / 3)]:
        batches = batches_of(config(tmp_path, **options, size_power=power), dataset)
        largest = np.mean([(LABELS[batch] == 7).mean() for batch in batches])
        assert largest == pytest.approx(share, abs=0.01)


def test_short_classes_can_be_left_out(dataset: ImageDataset, tmp_path: Path) -> None:
    options = {"kind": "cur", "classes_per_batch": 2, "samples_per_class": 8, "short": "skip"}
    assert {int(label) for batch in batches_of(config(tmp_path, **options), dataset) for label in LABELS[batch]} == {
        6,
        7,
    }


def test_what_does_not_fit_is_named(dataset: ImageDataset, tmp_path: Path) -> None:
    bare = ImageDataset(replace(dataset.manifest, superclasses=None), LABELS, (16, 16))
    with pytest.raises(ConfigError, match="toy has no superclasses of its own"):
        batches_of(config(tmp_path, kind="sur", superclasses="data"), bare)
    with pytest.raises(ConfigError, match=r"no file gone\.npz"):
        batches_of(config(tmp_path, kind="sur", superclasses="gone.npz"), dataset)
    with pytest.raises(DataError, match=r"gone\.csv"):
        batches_of(config(tmp_path, kind="sur", superclasses="gone.csv"), dataset)
    build_superclasses(np.eye(5, dtype=np.float32), np.arange(5), 2).save(tmp_path / "other.npz")
    with pytest.raises(ConfigError, match="is of 5 images, the data set has 48"):
        batches_of(config(tmp_path, kind="sur", superclasses=str(tmp_path / "other.npz")), dataset)
    (tmp_path / "run").mkdir()
    (tmp_path / "other.npz").rename(tmp_path / "run" / "superclasses_0000.npz")
    with pytest.raises(ConfigError, match="superclasses of 5 images, the data set has 48"):
        batches_of(config(tmp_path, kind="sur"), dataset)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"kind": "sur", "inner_samples_per_class": 3}, "samples_per_superclass 4 is no multiple of 3"),
        ({"kind": "sur", "inner_samples_per_class": 0}, "must be at least 1, is 0"),
        ({"kind": "sur", "refresh_every": 0}, "must be at least 1, is 0"),
        ({"kind": "sur", "superclasses": "coarse"}, "found 'coarse'"),
        ({"kind": "sur", "superclasses": "data", "refresh_every": 2}, "given superclasses do not change"),
        ({"kind": "sur", "size_power": 0.5, "refresh_every": 2}, "keep one of the two"),
        ({"kind": "cur", "superclasses": "data"}, r"sampler.superclasses: is of the sur sampler"),
        ({"kind": "cur", "refresh_every": 2}, r"sampler.refresh_every: is of the sur sampler"),
        ({"kind": "uniform", "short": "skip"}, "uniform knows no classes"),
    ],
)
def test_contradictions_of_the_keys(tmp_path: Path, sampler: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, **sampler)
