"""What all judges have in common, and what they leave for a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from reid_cckd.data import Manifest
from reid_cckd.evaluation import RecallResult


@dataclass(frozen=True)
class Verdict:
    """``scores``: fractions by name. ``protocol``: what must be known to compare them. ``details``: more, for JSON.

    ``queries``: the images that searched and what each of them found, where there are such.
    """

    scores: dict[str, float]
    protocol: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)
    queries: tuple[Manifest, RecallResult] | None = None


class Judge(Protocol):
    """Scores any network on the images that it holds; ``main`` names the score that a checkpoint is chosen by.

    One without a test set gives no scores, and its ``main`` is empty.
    """

    @property
    def main(self) -> str: ...
    @property
    def manifest(self) -> Manifest: ...

    def check(self) -> None:
        """Raises DataError where images are missing that will be evaluated."""

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """Fractions by name, for the training log."""

    def verdict(self, network: nn.Module) -> Verdict:
        """Scores and everything else that a report wants."""

    def for_classes(self, classes: Sequence[int]) -> Judge:
        """The same judge for a network whose head has these classes, in this order."""

    def for_teacher(self, classes: Sequence[int]) -> Judge:
        """Who tells a teacher whose head has these classes from a network that guesses."""
