"""Classification: the class head against the labels of the images held back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from reid_cckd import config as configuration
from reid_cckd.assess.extraction import Extraction
from reid_cckd.assess.unjudged import Unjudged
from reid_cckd.assess.verdict import Judge, Verdict
from reid_cckd.batch import Answer
from reid_cckd.data import Manifest
from reid_cckd.engine import on_rank_zero
from reid_cckd.errors import DataError
from reid_cckd.evaluation import ClassificationResult, evaluate_classification

HELD_BACK = ("test", "val")  # the first of these roles that a data set has is what networks are scored on


@dataclass
class ClassificationJudge(Extraction):
    """The test images of a data set (its validation images if it has no others) under its class head.

    ``classes``: labels of the head's columns, in order; None are those of the training images.
    """

    main: ClassVar[str] = "top1"
    classes: Sequence[int] | None = None

    @classmethod
    def looks_at(cls, settings: configuration.Evaluation) -> Answer:
        """Class scores, whose head counts."""
        return "logits"

    def check(self) -> None:
        """Raises DataError where nothing is held back."""
        held_back(self.manifest)

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """Fractions by name, for the training log."""
        return _scores(self.evaluate(network))

    def for_classes(self, classes: Sequence[int]) -> ClassificationJudge:
        """The same images, decoded once, for another head."""
        return replace(self, classes=tuple(classes))

    def for_teacher(self, classes: Sequence[int]) -> Judge:
        """The head against those of the images that are of its classes; no score where none is."""
        part, setup = self.manifest.select(self.role), (self.settings, self.data, self.device, self.precision)
        known = np.isin(part.labels, classes)
        if known.all():
            return self.for_classes(classes)
        if not known.any():
            return Unjudged(part, *setup)
        print(
            f"The teacher is judged by {known.sum():,} of {len(part):,} {self.role} images, those of classes it knows."
        )
        return ClassificationJudge(part.take(known), *setup, classes=tuple(classes))

    def verdict(self, network: nn.Module) -> Verdict:
        """Top-k and calibration, and the classes that are recognised worst."""
        result = self.evaluate(network)
        protocol = {"task": "classification", "role": self.role, "images": result.num_images, "flip": False}
        return Verdict(_scores(result), protocol, {"worst": [self._named(one) for one in result.summary()["worst"]]})

    def evaluate(self, network: nn.Module) -> ClassificationResult:
        """Exact metrics of the network's logits.

        Raises:
            DataError: nothing is held back, or a label is none of the head's classes.
        """
        dataset = self.images(self.role)
        labels = self._positions(dataset.manifest.labels)
        logits = self.rows(network, dataset)
        top = [k for k in self.settings.top if k <= logits.shape[1]]
        return on_rank_zero(lambda: evaluate_classification(logits, labels, top=top))

    @property
    def role(self) -> str:
        """The role of the images that count."""
        return held_back(self.manifest)

    def _known(self) -> NDArray[np.int64]:
        if self.classes is None:
            return self.manifest.select("train").contiguous_labels()[1]
        return np.asarray(self.classes, dtype=np.int64)

    def _positions(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Columns of the head."""
        known = self._known()
        order = np.argsort(known)
        place = np.searchsorted(known[order], labels).clip(max=len(known) - 1)
        strange = known[order][place] != labels
        if strange.any():
            found, names = np.unique(labels[strange]), self.manifest.class_names
            some = [names.get(label, label) for label in found[:5].tolist()]
            raise DataError(
                f"{strange.sum():,} {self.role} images of {self.manifest.name} are of {len(found)} classes that the "
                f"network's head of {len(known):,} does not have, such as {some}. Test it on data of "
                "the classes it was trained on."
            )
        columns: NDArray[np.int64] = order[place]
        return columns

    def _named(self, confusion: dict[str, Any]) -> dict[str, Any]:
        """Labels of the data set for the columns of the head, None for no column, and their names where it has any.

        None, too, for a class that the data set does not know.
        """
        known: dict[int, Any] = {column: label for column, label in enumerate(self._known().tolist()) if label >= 0}
        labels: dict[str, Any] = {key: known.get(confusion[key]) for key in ("label", "taken_for")}
        names = self.manifest.class_names
        named = {f"{key}_name": names.get(label) for key, label in labels.items()} if names else {}
        return {**confusion, **labels, **named}


def _scores(result: ClassificationResult) -> dict[str, float]:
    return {**{f"top{k}": value for k, value in result.accuracy.items()}, "ece": result.ece}


def held_back(manifest: Manifest) -> str:
    """The role of the images that training does not see, of which classes are told.

    Raises:
        DataError: there are none.
    """
    held = [role for role in HELD_BACK if (manifest.roles == role).any()]
    if not held:
        raise DataError(
            f"{manifest.name} at {manifest.root} has no test or val images to classify. Expected a data set that holds "
            "some back; for query and gallery set evaluation.task: retrieval, "
            "to train without a test set none."
        )
    return held[0]
