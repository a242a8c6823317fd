"""What embeddings were made with, as far as those that are compared must agree in it."""

from __future__ import annotations

from pathlib import Path

from reid_cckd.engine import Embeddings
from reid_cckd.errors import UserError

MADE_WITH = ("flip", "on")  # settings of evaluation that embeddings keep


def refuse_other_making(first: Embeddings, name: Path, second: Embeddings, other: Path | None) -> None:
    """What is to be compared must come from one layer, and with the mirror image or without on both sides."""
    for key in MADE_WITH:
        if key in first.about and key in second.about and first.about[key] != second.about[key]:
            raise UserError(
                f"{name} was extracted with evaluation.{key}={first.about[key]} and {other} with {second.about[key]}; "
                "extract both alike."
            )
