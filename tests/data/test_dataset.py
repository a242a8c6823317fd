from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from reid_cckd.batch import Batch
from reid_cckd.data.augment import build_augment, limit_threads
from reid_cckd.data.dataset import ImageDataset, collate
from reid_cckd.data.images import DamagedImageError
from reid_cckd.data.manifest import Manifest
from reid_cckd.engine.feed import Share
from reid_cckd.errors import DataError, UserError
from tests.data.trees import write_image

SIZE = (16, 8)
N = 10
NOISE = [{"GaussNoise": {"p": 1.0}}, {"HorizontalFlip": {"p": 0.5}}]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    paths = tuple(f"{i}.png" for i in range(N))
    for i, path in enumerate(paths):
        write_image(tmp_path / path, value=10 * i, size=(20, 12))
    return Manifest("toy", tmp_path, paths, np.arange(N) // 2 + 7, np.arange(N) % 2, np.array(["train"] * N))


def dataset(manifest: Manifest, **options: Any) -> ImageDataset:
    return ImageDataset(manifest, manifest.contiguous_labels()[0], SIZE, **options)


def epoch(images: ImageDataset, workers: int, context: str | None = None) -> list[Batch]:
    options: dict[str, Any] = {"num_workers": workers, "multiprocessing_context": context}
    return list(DataLoader(images, batch_size=4, collate_fn=collate, worker_init_fn=limit_threads, **options))


def test_items_and_batches(manifest: Manifest) -> None:
    image, *numbers = dataset(manifest)[5]
    assert (image.shape, image.dtype, numbers) == ((3, *SIZE), torch.uint8, [2, 5, 0])
    batch = epoch(dataset(manifest), 0)[1]
    assert isinstance(batch, Batch)
    assert batch.images.shape == (4, 3, *SIZE)
    assert batch.images.is_contiguous()
    assert (batch.labels.tolist(), batch.index.tolist()) == ([2, 2, 3, 3], [4, 5, 6, 7])
    assert batch.labels.dtype == batch.index.dtype == torch.int64


def test_labels_above_float32_stay_exact(manifest: Manifest) -> None:
    labels = np.arange(N) + 2**24
    assert epoch(ImageDataset(manifest, labels, SIZE), 0)[0].labels.tolist() == labels[:4].tolist()


@pytest.mark.parametrize("augment", [None, NOISE])
def test_the_cache_changes_nothing(manifest: Manifest, augment: Any) -> None:
    options = {"augment": build_augment(augment, SIZE), "seed": 3}
    plain, cached = dataset(manifest, **options), dataset(manifest, cache="memory", **options)
    for one, other in zip(epoch(plain, 0), epoch(cached, 0), strict=True):
        assert torch.equal(one.images, other.images)


def test_the_cache_needs_no_files(manifest: Manifest) -> None:
    cached = dataset(manifest, cache="memory")
    manifest.path(3).unlink()
    assert cached[3][0].shape == (3, *SIZE)


@pytest.mark.parametrize(
    ("workers", "cache", "context"), [(1, "none", "fork"), (2, "memory", "fork"), (1, "memory", "spawn")]
)
def test_a_run_repeats_for_any_number_of_workers(
    manifest: Manifest, workers: int, cache: Literal["none", "memory"], context: str
) -> None:
    images = dataset(manifest, augment=build_augment(NOISE, SIZE), seed=1, cache=cache)
    images.set_epoch(2)
    for one, other in zip(epoch(images, 0), epoch(images, workers, context), strict=True):
        assert torch.equal(one.images, other.images)


def test_set_epoch_reaches_workers_that_already_run(manifest: Manifest) -> None:
    images = dataset(manifest, augment=build_augment(NOISE, SIZE), seed=1)
    loader = DataLoader(images, batch_size=N, collate_fn=collate, num_workers=1, persistent_workers=True)
    seen = []
    for number in (0, 1, 0):
        images.set_epoch(number)
        seen.append(next(iter(loader)).images)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_copies_in_one_batch_are_different_views(manifest: Manifest) -> None:
    images = dataset(manifest, augment=build_augment(NOISE, SIZE), seed=1)
    first, other, again = images.__getitems__([4, 5, 4])
    assert not torch.equal(first[0], again[0])
    assert torch.equal(first[0], images[4][0])
    assert torch.equal(other[0], images[5][0])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_shows_the_same_whatever_number_of_processes_shares_it(manifest: Manifest, workers: int) -> None:
    batches = [[4, 5, 4, 5, 4, 6], [7, 7, 7, 7, 7, 7]]
    images = dataset(manifest, augment=build_augment(NOISE, SIZE), seed=1)

    def shown(rank: int, world_size: int) -> list[Batch]:
        share: Any = Share(batches, rank, world_size)  # type: ignore[arg-type]
        return list(DataLoader(images, batch_sampler=share, collate_fn=collate, num_workers=workers))

    whole, *parts = shown(0, 1), shown(0, 2), shown(1, 2)
    for batch, *pieces in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([piece.images for piece in pieces]), batch.images)
        assert [repeat for piece in pieces for repeat in piece.repeat.tolist()] == batch.repeat.tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_damaged_images_are_skipped_and_listed_when_told_so(
    manifest: Manifest, cache: Literal["none", "memory"]
) -> None:
    manifest.path(3).write_bytes(manifest.path(3).read_bytes()[:60])
    manifest.path(8).write_bytes(b"")
    images = dataset(manifest, on_bad_image="skip", cache=cache)
    assert [(bad.row, bad.path) for bad in images.bad] == [(3, "3.png"), (8, "8.png")]
    assert "0 bytes" in images.bad[1].reason
    assert len(images) == len(images.manifest) == N - 2
    assert [images[i][2] for i in range(N - 2)] == list(range(N - 2))
    assert images.labels.tolist() == [0, 0, 1, 2, 2, 3, 3, 4]
    # Rows, labels and pixels still belong together.
    brightness = [int(images[i][0][0, 0, 0]) for i in range(N - 2)]
    assert [value - brightness[0] for value in brightness] == [10 * i for i in (0, 1, 2, 4, 5, 6, 7, 9)]
    assert [len(batch.index) for batch in epoch(images, 0)] == [4, 4]


@pytest.mark.parametrize("cache", ["none", "memory", "packed"])
def test_rows_stay_those_of_an_earlier_start(manifest: Manifest, cache: Literal["none", "memory", "packed"]) -> None:
    manifest.path(5).write_bytes(b"")  # 3 was left out then and is whole again
    images = dataset(manifest, on_bad_image="skip", cache=cache, left_out=[3])
    plain = dataset(manifest.take(np.arange(N) != 5))
    assert (len(images), images.shown.tolist()) == (N - 1, [0, 1, 2, 3, 3, 5, 6, 7, 8])
    for i, row in enumerate([0, 1, 2, 4, 4, 5, 6, 7, 8]):  # rows of the others
        assert images[i][1:3] == (images.labels[i], images.shown[i])
        assert torch.equal(images[i][0], plain[row][0])
    if cache != "none":
        shown = images.decoded[torch.from_numpy(images.shown)].permute(0, 3, 1, 2)
        assert torch.equal(shown, torch.stack([images[i][0] for i in range(N - 1)]))
    with pytest.raises(DamagedImageError, match=r"1 of 10 images .*5\.png"):
        dataset(manifest, cache="memory", left_out=[3])
    dataset(manifest, cache="memory", left_out=[5])
    manifest.path(4).write_bytes(b"")
    with pytest.raises(DataError, match="every other image of its class"):
        dataset(manifest, on_bad_image="skip", left_out=[3])


def test_damaged_images_raise_by_default(manifest: Manifest) -> None:
    manifest.path(3).write_bytes(b"")
    with pytest.raises(DamagedImageError, match=r"1 of 10 images .*3\.png: the file is empty .*on_bad_image: skip"):
        dataset(manifest, cache="memory")
    with pytest.raises(DamagedImageError, match=r"3\.png cannot be decoded"):
        dataset(manifest)[3]


def test_damage_after_the_check_brings_another_of_the_class_where_that_is_forgiven(
    manifest: Manifest, capfd: pytest.CaptureFixture[str]
) -> None:
    manifest = manifest.take(np.array([0, 1, 2, 3, 4, 5, 7]))  # 7 is alone in its class
    images = dataset(manifest, on_bad_image="skip", augment=build_augment(NOISE, SIZE))
    manifest.path(2).write_bytes(b"")
    with pytest.raises(DamagedImageError, match=r"2\.png"):
        images[2]
    again, first, second = images.forgiving().__getitems__([3, 2, 2])
    assert [item[1:] for item in (again, first, second)] == [(1, 3, 0), (1, 3, 1), (1, 3, 2)]
    assert not torch.equal(again[0], first[0])  # each its own view
    assert not torch.equal(first[0], second[0])
    assert capfd.readouterr().err.count("2.png") == 1
    manifest.path(6).write_bytes(b"")
    with pytest.raises(DamagedImageError, match=r"7\.png"):
        images.forgiving()[6]


def test_an_error_in_a_worker_is_still_one_paragraph(manifest: Manifest) -> None:
    manifest.path(3).write_bytes(b"")
    with pytest.raises(UserError) as caught:
        epoch(dataset(manifest), 1)
    assert str(caught.value).startswith(str(manifest.path(3)))
    assert "\n" not in str(caught.value)


def test_nothing_left_is_an_error(manifest: Manifest) -> None:
    for row in range(N):
        manifest.path(row).unlink()
    with pytest.raises(DataError, match="None of the 10 images of toy"):
        dataset(manifest, on_bad_image="skip")


@pytest.mark.parametrize("option", [{"cache": "disk"}, {"on_bad_image": "ignore"}])
def test_unknown_options_are_refused(manifest: Manifest, option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        dataset(manifest, **option)


def test_labels_of_another_length_are_refused(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="labels has 3 entries"):
        ImageDataset(manifest, np.arange(3), SIZE)
