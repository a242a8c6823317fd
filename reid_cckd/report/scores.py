"""Scores of several methods beside each other."""

from __future__ import annotations

import os
from collections.abc import Mapping

from reid_cckd.report.canvas import colour, figure_of


def score_plot(
    path: str | os.PathLike[str],
    scores: Mapping[str, tuple[float, float | None]],
    label: str,
    title: str = "",
    expected: Mapping[str, float] | None = None,
    reason: str = "expected",
) -> None:
    """Draw a PNG with a line for each method: mean and standard deviation (None: no bar), fractions, from the top down.

    ``expected``: what some were to reach, hollow beside them; ``reason`` says by whom.

    Raises:
        ValueError: no scores.
    """
    if not scores:
        raise ValueError("scores: nothing to draw")
    with figure_of(path, 1, title) as (figure, (axis,)):
        figure.set_size_inches(6.4, 1.4 + 0.34 * len(scores))
        for place, (mean, deviation) in enumerate(scores.values()):
            ink = colour(0 if place else 1)
            axis.errorbar(100 * mean, place, xerr=100 * (deviation or 0), fmt="o", color=ink, capsize=3)
            axis.annotate(f"{100 * mean:.1f}", (100 * mean, place), (0, 6), textcoords="offset points", ha="center")
        wanted = [(100 * value, place) for place, name in enumerate(scores) if (value := (expected or {}).get(name))]
        if wanted:
            axis.scatter(*zip(*wanted, strict=True), marker="D", facecolors="none", edgecolors="grey", label=reason)
            axis.legend(fontsize="small")
        axis.set_yticks(range(len(scores)), list(scores))
        axis.set_ylim(len(scores) - 0.5, -0.7)
        axis.set_xlabel(label)
