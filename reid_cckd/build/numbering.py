"""Which image has which number in a run: batches, kept answers and memories of losses go by it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from reid_cckd.build.data import fingerprint, probed
from reid_cckd.data import ImageDataset, Manifest
from reid_cckd.data.sources import length_of
from reid_cckd.errors import DataError


@dataclass(frozen=True)
class Numbering:
    """What a run must find again when it goes on, as its checkpoints keep it.

    ``paths``: a digest of the training images' paths, in order. ``left_out``: rows that were damaged when the run
    began, which have no number. ``lengths``: bytes of the `probed` files of all others, as they were then.
    ``classes``: a digest of their classes, by name where they have names; None of older versions, which kept none.
    """

    paths: str
    left_out: list[int]
    lengths: list[int]
    classes: str | None = None

    @classmethod
    def of(cls, manifest: Manifest, dataset: ImageDataset) -> Self:
        """That of a run which begins with these training images, of which ``dataset`` holds the readable ones."""
        left_out, lengths = [image.row for image in dataset.bad], list(map(length_of, probed(dataset.manifest)))
        return cls(_digest(manifest), left_out, lengths, _classes(manifest))

    @classmethod
    def kept(cls, checkpoint: Mapping[str, Any]) -> Self | None:
        """That of the run that a checkpoint is of; None of older versions, which kept none."""
        return cls(**checkpoint["numbering"]) if "numbering" in checkpoint else None

    def check(self, manifest: Manifest) -> None:
        """Raises DataError where these are not the training images that the run began with, or of other classes."""
        if _digest(manifest) != self.paths:
            raise DataError(
                f"The {len(manifest):,} training images of {manifest.name} at {manifest.root} are not those that this "
                "run began with: some came, went, or have other names. Restore the data, or begin anew in another "
                "output=FOLDER."
            )
        if self.classes not in (None, _classes(manifest)):
            raise DataError(
                f"The training images of {manifest.name} at {manifest.root} have other labels, or names of them, than "
                "when this run began. Restore those, or begin anew in another output=FOLDER."
            )

    def fingerprint(self, dataset: ImageDataset) -> str:
        """`fingerprint` of the images: one that was damaged since counts as what it was, because it is not shown."""
        manifest = dataset.manifest
        replaced = {manifest.path(row) for row, shown in enumerate(dataset.shown.tolist()) if row != shown}
        files = zip(probed(manifest), self.lengths, strict=True)
        return fingerprint(manifest, [was if file in replaced else length_of(file) for file, was in files])

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def _digest(manifest: Manifest) -> str:
    return _sha256("\n".join([manifest.name, *manifest.paths]))


def _classes(manifest: Manifest) -> str:
    labels, classes = manifest.contiguous_labels()
    return _sha256(repr(manifest.names_of(classes) or classes.tolist()), labels.tobytes())


def _sha256(text: str, content: bytes = b"") -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape") + content).hexdigest()
