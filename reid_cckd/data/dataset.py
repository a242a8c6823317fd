"""Images for a DataLoader: decoded, cached and augmented, the same for any number of workers."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from reid_cckd.batch import Batch, rows_before
from reid_cckd.data.augment import Augment
from reid_cckd.data.folders import SHOWN
from reid_cckd.data.images import BadImage, DamagedImageError, Pixels, in_threads
from reid_cckd.data.manifest import Manifest, as_column
from reid_cckd.data.packed import Packed
from reid_cckd.data.packing import cached
from reid_cckd.errors import DataError

Item = tuple[Tensor, int, int, int]


class ImageDataset(Dataset[Item]):
    """Map-style images of a manifest.

    Item ``i`` is ((3, H, W) uint8 RGB, class label, i, how often i came before in the batch). With an ``augment`` it
    depends on (seed, epoch, i) alone, and on that number: a sampler that repeats an image gets different views of it. A
    `Part` of a batch counts the rows in front of it too. ``views=M``
    leaves M augmentations of each image: epoch e shows view e mod M of it, and a repeated image the next one.

    ``labels``: (N,) int64 class of each row. ``image_size``: (H, W). ``cache="memory"`` decodes everything once into
    one (N, H, W, 3) tensor that workers share; ``cache="packed"`` decodes everything once for this and later runs into
    a file below ``cache_dir`` (``.packed`` beside the data unless told) that workers map. ``on_bad_image="skip"``
    decodes every image once before training and leaves the damaged ones out of ``manifest`` and ``labels``; they are
    listed in ``bad``. With "error" the first damaged image met raises. ``left_out``: the rows that an earlier start
    left out; now it is these, whatever they are by now, so that item i is the image that it was then. Others that are
    damaged keep their rows: with "skip", item i is then item ``shown[i]``, the next of its class.

    Raises:
        DataError: a damaged image (DamagedImageError), none left, or with ``left_out`` none of a class.
        ValueError: labels of another length, or an option that does not exist.
    """

    def __init__(
        self,
        manifest: Manifest,
        labels: NDArray[np.int64],
        image_size: tuple[int, int],
        augment: Augment | None = None,
        seed: int = 0,
        on_bad_image: Literal["error", "skip"] = "error",
        cache: Literal["none", "memory", "packed"] = "none",
        views: int | None = None,
        cache_dir: Path | None = None,
        left_out: Sequence[int] | None = None,
    ) -> None:
        _check_arguments(manifest, labels, on_bad_image, cache)
        self.image_size, self.augment, self.seed, self.views = image_size, augment, seed, views
        self.bad: list[BadImage] = []
        self._pixels: Tensor | None = None
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # seen by workers that already run
        self._packed: Packed | None = None
        self._forgives = False
        self._missed: set[int] = set()
        if cache == "packed":
            self._packed = cached(manifest, image_size, cache_dir)
            self.bad = self._packed.bad
        elif cache == "memory" or on_bad_image == "skip":
            self.bad = self._decode_all(manifest, keep=cache == "memory")
        expected = set(left_out or ())
        if on_bad_image == "error" and (wrong := [image for image in self.bad if image.row not in expected]):
            raise DamagedImageError(_damaged_message(manifest, wrong))
        good = ~np.isin(np.arange(len(manifest)), [image.row for image in self.bad])
        if not good.any():
            raise DataError(f"None of the {len(manifest):,} images of {manifest.name} at {manifest.root} can be used.")
        kept = good if left_out is None else ~np.isin(np.arange(len(manifest)), left_out)
        self.manifest = manifest if kept.all() else manifest.take(kept)
        self._rows = np.flatnonzero(kept)  # of the manifest that was decoded
        self.labels = as_column("labels", labels, np.int64)[kept]
        self.shown = _stand_ins(self.manifest, self.labels, good[kept])

    def __len__(self) -> int:
        return len(self.labels)

    def set_epoch(self, epoch: int) -> None:
        """Draw other augmentations; reaches workers that already run."""
        self._epoch.fill_(epoch)

    @property
    def decoded(self) -> Tensor:
        """(N, H, W, 3) uint8: all images, which ``cache="memory"`` or "packed" keeps; row i is to be seen if shown."""
        if self._packed is not None:
            return torch.from_numpy(np.array(self._packed.pixels[self._rows]))
        if self._pixels is None:
            raise ValueError("no decoded images are kept: cache is 'none'")
        return self._pixels if len(self) == len(self._pixels) else self._pixels[self._rows]

    def without_augment(self) -> ImageDataset:
        """The same images as they are; what is decoded in memory is shared."""
        plain = copy.copy(self)
        plain.augment = None
        return plain

    def forgiving(self) -> ImageDataset:
        """The same images to train on: in place of one that is damaged by now comes the next readable of its class.

        Nothing that needs every row once, as evaluation does, should look at it.
        """
        other = copy.copy(self)
        other._forgives = True
        return other

    def __getitem__(self, index: int) -> Item:
        return self._item(int(index), Counter())

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """The items of one batch (a DataLoader's fetcher calls this instead of ``__getitem__``)."""
        seen = Counter(self.shown[rows_before(indices)].tolist())
        return [self._item(int(index), seen) for index in indices]

    def _item(self, index: int, seen: Counter[int]) -> Item:
        index, image = self._readable(int(self.shown[index]))
        repeat, seen[index] = seen[index], seen[index] + 1
        if self.augment is not None:
            epoch, other = int(self._epoch), repeat
            if self.views is not None:
                epoch, other = (epoch + repeat) % self.views, 0
            image = self.augment(image, seed=self.seed, epoch=epoch, index=index, repeat=other)
        return torch.from_numpy(image.transpose(2, 0, 1)), int(self.labels[index]), index, repeat

    def _readable(self, index: int) -> tuple[int, Pixels]:
        """An image, or the one that stands in for it, and its number."""
        try:
            return index, self._image(index)
        except DamagedImageError:
            if not self._forgives:
                raise
            for other in _kin(self.labels, index):
                with contextlib.suppress(DamagedImageError):
                    image = self._image(other)
                    self._tell(index)
                    return other, image
            raise

    def _tell(self, index: int) -> None:
        """Name a damaged image, once in a process."""
        if index not in self._missed:
            self._missed.add(index)
            print(f"damaged, another of its class is shown: {self.manifest.path(index)}", file=sys.stderr, flush=True)

    def _image(self, index: int) -> Pixels:
        if self._pixels is not None:
            return np.asarray(self._pixels[self._rows[index]].numpy())
        if self._packed is not None:
            return np.array(self._packed.pixels[self._rows[index]])
        return self.manifest.read(index, self.image_size)

    def _decode_all(self, manifest: Manifest, keep: bool) -> list[BadImage]:
        """Decode every image, into the cache if ``keep``, and return the damaged ones."""
        total, bad = len(manifest), list[BadImage]()
        pixels = torch.zeros((total if keep else 1, *self.image_size, 3), dtype=torch.uint8)  # damaged ones are black
        size = f"{pixels.nbytes / 1e6:,.0f} MB" if keep else "check"
        decoded = in_threads(lambda row: manifest.image_or_reason(row, self.image_size), range(total))
        for row, image in enumerate(tqdm(decoded, f"decode ({size})", total, delay=1, leave=False, disable=None)):
            if isinstance(image, str):
                bad.append(BadImage(row, manifest.paths[row], image))
            elif keep:
                pixels[row] = torch.from_numpy(image)
        # Forked workers share these pages, spawned ones get them through shared memory: nobody writes to them again.
        self._pixels = pixels if keep else None
        return bad


def collate(items: Sequence[Item]) -> Batch:
    """One batch of items: images (N, 3, H, W) uint8, labels, indices and repeats (N,) int64."""
    images, *numbers = zip(*items, strict=True)
    return Batch(torch.stack(images), *map(torch.tensor, numbers))


def _kin(labels: NDArray[np.int64], row: int) -> list[int]:
    """The other rows of a row's class, those behind it first."""
    kin = np.flatnonzero(labels == labels[row])
    others: list[int] = np.roll(kin, -int(np.searchsorted(kin, row)))[1:].tolist()
    return others


def _stand_ins(manifest: Manifest, labels: NDArray[np.int64], good: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N,) the row to show for each: itself, or in place of one that is not good the next good one of its class."""
    shown = np.arange(len(labels))
    for row in np.flatnonzero(~good).tolist():
        stand_in = next((other for other in _kin(labels, row) if good[other]), None)
        if stand_in is None:
            raise DataError(
                f"{manifest.path(row)} is damaged, and so is every other image of its class: nothing is left to show "
                "for it. Restore one of them."
            )
        shown[row] = stand_in
    return shown


def _check_arguments(manifest: Manifest, labels: NDArray[np.int64], on_bad_image: str, cache: str) -> None:
    if len(labels) != len(manifest):
        raise ValueError(f"labels has {len(labels)} entries, expected one for each of {len(manifest)} images")
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"on_bad_image is {on_bad_image!r}, expected 'error' or 'skip'")
    if cache not in ("none", "memory", "packed"):
        raise ValueError(f"cache is {cache!r}, expected 'none', 'memory' or 'packed'")


def _damaged_message(manifest: Manifest, bad: Sequence[BadImage]) -> str:
    shown = "; ".join(f"{image.path}: {image.reason}" for image in bad[:SHOWN])
    more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    return (
        f"{len(bad):,} of {len(manifest):,} images below {manifest.root} cannot be decoded ({shown}{more}). Restore "
        "the files, or let the run skip damaged images (on_bad_image: skip)."
    )
