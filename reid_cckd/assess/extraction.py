"""The images of a role and what a network says about them; decoded once if ``data.cache`` says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn

from reid_cckd import config as configuration
from reid_cckd.assess.chance import Guess
from reid_cckd.assess.verdict import Judge
from reid_cckd.batch import Answer
from reid_cckd.build import image_dataset, plain_loader
from reid_cckd.data import ImageDataset, Manifest
from reid_cckd.engine import exchange_rows, extract, rank, share_of
from reid_cckd.errors import DataError, UserError


@dataclass
class Extraction:
    """One data set, one device, one way to read and embed its images."""

    manifest: Manifest
    settings: configuration.Evaluation
    data: configuration.Data
    device: torch.device
    precision: Callable[[], AbstractContextManager[object]]
    _datasets: dict[str, ImageDataset] = field(default_factory=dict, repr=False)

    def for_classes(self, classes: Sequence[int]) -> Self:
        """The same judge: embeddings are compared without a class head."""
        return self

    def for_teacher(self, classes: Sequence[int]) -> Judge:
        """The same judge, for a head of these classes."""
        return self.for_classes(classes)  # type: ignore[return-value]  # whatever inherits this is a judge

    @classmethod
    def looks_at(cls, settings: configuration.Evaluation) -> Answer:
        """What of a network is evaluated, and nothing beyond it counts as its cost: embeddings, as ``on`` says."""
        return settings.on

    def check(self) -> None:
        """Refuse, before anything is trained, a data set without the images that will be evaluated.

        Raises:
            DataError: there are none of a role.
        """

    def part(self, role: str) -> Manifest:
        """The table of the images of a role.

        Raises:
            DataError: there are none.
        """
        part = self.manifest.select(role)
        if not len(part):
            there = ", ".join(sorted(set(self.manifest.roles.tolist())))
            raise DataError(
                f"{self.manifest.name} at {self.manifest.root} has no {role} images to evaluate on, but {there}. "
                "evaluation.task: retrieval looks at query and gallery, classification at test or val, recall at test, "
                "verification and identification at files of their own (evaluation.pairs, evaluation.benchmark); none "
                "trains without a test set."
            )
        return part

    def images(self, role: str) -> ImageDataset:
        """The images of a role; raises as `part`."""
        return self.images_of(role, self.part(role))

    def images_of(self, name: str, part: Manifest) -> ImageDataset:
        """The images of a manifest, prepared once for a name."""
        if name not in self._datasets:
            self._datasets[name] = image_dataset(part, part.labels, self.data)
        return self._datasets[name]

    def rows(self, network: nn.Module, dataset: ImageDataset) -> Tensor:
        """(N, D) float32 of what is looked at, in the order of the data set.

        A network that guesses looks at no image, and none is read for it.
        In a distributed run every process embeds its share, in the batches that one process would make, and gets all.

        Raises:
            UserError: numbers that cannot be compared, as those of a network that has diverged.
        """
        on = self.looks_at(self.settings)
        flip = self.settings.flip and on != "logits"
        if isinstance(network, Guess):
            return network.rows(len(dataset), on)
        size, count = self.settings.batch_size, len(dataset)
        mine = share_of(count, rank(), size) or range(1)  # who has no share learns the width from one image
        batches = plain_loader(dataset, size, self.data.workers, mine.start, mine.stop)
        rows = extract(network, batches, count, device=self.device, precision=self.precision, on=on, flip=flip)
        rows = exchange_rows(rows, size)
        _refuse_diverged(rows, on, dataset.manifest)
        return rows


def _refuse_diverged(rows: Tensor, on: Answer, manifest: Manifest) -> None:
    lengths = torch.linalg.vector_norm(rows, dim=1)
    usable = lengths.isfinite() & ((lengths > 0) | (on == "logits"))  # a row of zeros has no direction
    if usable.all():
        return
    what = "logits" if on == "logits" else "embeddings"
    first = manifest.path(int(usable.int().argmin()))
    raise UserError(
        f"The network's {what} are not finite, or zero, for {int((~usable).sum()):,} of {len(rows):,} images, {first} "
        f"the first. It has diverged, or its precision does not hold its numbers: lower optim.lr or a term's weight, "
        f"set train.clip_norm or train.amp: off, and train it anew."
    )
