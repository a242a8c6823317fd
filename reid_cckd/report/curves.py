"""Plots of what a run logged, and of CMC and ROC results."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reid_cckd.report.canvas import colour, figure_of, plain_logarithmic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]

_LABEL = 0.09  # of a panel's height is what a label takes
_PLACE = ("step", "epoch")
# Fractions in the log of an evaluation, the panels that come first.
_SCORES = {"mean_ap": "mAP (%)", "rank1": "rank-1 (%)", "top1": "top-1 (%)", "accuracy": "accuracy (%)"}


def training_curves(path: str | os.PathLike[str], runs: Mapping[str, Sequence[Row]], title: str = "") -> None:
    """Draw a PNG with a panel for each logged value, evaluation first, the runs over each other.

    ``runs``: name -> rows of its log, each with ``step`` and ``epoch`` and any of: ``mean_ap``, ``rank1``,
    ``top1``, ``accuracy`` (fractions), ``loss`` and each of its terms, ``lr``. Other scores are left out to keep the
    picture readable. Noisy values are drawn faintly, with a running mean on top.

    Raises:
        ValueError: nothing to draw in any run.
    """
    panels = _panels(runs)
    if not panels:
        raise ValueError("runs hold no value to draw: expected rows with step, epoch and loss or a score")
    with figure_of(path, len(panels), title) as (figure, axes):
        for axis, key in zip(axes, panels, strict=True):
            _draw_panel(axis, key, runs)
        if len(runs) > 1:
            handles = [axes[0].plot([], color=colour(number), label=name)[0] for number, name in enumerate(runs)]
            figure.legend(handles=handles, loc="outside lower center", ncols=min(len(runs), 6))


def cmc_curves(path: str | os.PathLike[str], runs: Mapping[str, Mapping[int, float]], title: str = "") -> None:
    """Draw a PNG of cumulative match characteristics: name -> {rank: fraction}."""
    with figure_of(path, 1, title) as (_, (axis,)):
        _draw_rates(axis, runs)
        if max((rank for cmc in runs.values() for rank in cmc), default=0) > 50:
            plain_logarithmic(axis)
        axis.set(xlabel="rank", ylabel="found by this rank (%)")


def roc_curves(path: str | os.PathLike[str], runs: Mapping[str, Mapping[float, float]], title: str = "") -> None:
    """Draw a PNG of true positive rates over false positive rates, the latter logarithmic: name -> {fpr: tpr}."""
    with figure_of(path, 1, title) as (_, (axis,)):
        _draw_rates(axis, runs)
        axis.set_xscale("log")
        axis.set(xlabel="false positive rate", ylabel="true positive rate (%)")


def _draw_rates(axis: Axes, runs: Mapping[str, Mapping[Any, float]]) -> None:
    for number, (name, rates) in enumerate(runs.items()):
        x = sorted(rates)
        y = [100 * rates[value] for value in x]
        axis.plot(x, y, color=colour(number), marker="o", markersize=4, label=name)
    axis.legend(loc="lower right")


def _panels(runs: Mapping[str, Sequence[Row]]) -> list[str]:
    """Evaluation scores, the loss, its terms in order of appearance, the learning rate."""
    rows = [row for run in runs.values() for row in run]
    logged = dict.fromkeys(
        key for row in rows if not _is_evaluation(row) for key, value in row.items() if _is_value(value)
    )
    terms = [key for key in logged if key not in (*_PLACE, "loss", "lr")]
    scores = [key for key in _SCORES if any(key in row for row in rows)]
    return scores + ["loss"] * ("loss" in logged) + terms + ["lr"] * ("lr" in logged)


def _is_evaluation(row: Row) -> bool:
    return not _SCORES.keys().isdisjoint(row)


def _draw_panel(axis: Axes, key: str, runs: Mapping[str, Sequence[Row]]) -> None:
    by_epoch = all(_epochs_per_step(rows) for rows in runs.values())
    ends: list[tuple[float, float, str]] = []
    for number, rows in enumerate(runs.values()):
        scale = _epochs_per_step(rows) if by_epoch else 1.0
        points = [(row["step"] * scale, float(row[key])) for row in rows if _is_value(row.get(key))]
        if points:
            x, y = zip(*points, strict=True)
            draw = _draw_score if key in _SCORES else _draw_line if key == "lr" else _draw_noisy
            draw(axis, x, y, colour(number))
            ends.append((x[-1], 100 * y[-1], colour(number)))
    axis.set_title("learning rate" if key == "lr" else _SCORES.get(key, key))
    axis.set_xlabel("epoch" if by_epoch else "step")
    axis.set_xlim(left=0)
    if key in _SCORES:
        _label_ends(axis, ends)
    if key == "lr":
        axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


def _draw_score(axis: Axes, x: Sequence[float], y: Sequence[float], ink: str) -> None:
    axis.plot(x, [100 * value for value in y], color=ink, marker="o", markersize=3.5)


def _label_ends(axis: Axes, ends: Sequence[tuple[float, float, str]]) -> None:
    """Write the last value (x, y in percent, colour) behind each line, those that are close above one another."""
    gap = _LABEL * (axis.get_ylim()[1] - axis.get_ylim()[0])
    for x in {end[0] for end in ends}:
        here = sorted((y, ink) for place, y, ink in ends if place == x)
        heights = _apart([y for y, _ in here], gap)
        for (y, ink), height in zip(here, heights, strict=True):
            offset, points = (5, 0), "offset points"
            axis.annotate(f"{y:.1f}", (x, height), offset, textcoords=points, color=ink, fontsize=9, va="center")


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """Rising values, moved no further than puts them ``gap`` apart, their mean kept."""
    moved: list[float] = []
    for value in values:
        moved.append(max(value, moved[-1] + gap) if moved else value)
    shift = (sum(moved) - sum(values)) / len(moved) if moved else 0.0
    return [value - shift for value in moved]


def _draw_line(axis: Axes, x: Sequence[float], y: Sequence[float], ink: str) -> None:
    axis.plot(x, y, color=ink)


def _draw_noisy(axis: Axes, x: Sequence[float], y: Sequence[float], ink: str) -> None:
    axis.plot(x, y, color=ink, linewidth=1, alpha=0.25)
    axis.plot(x, _running_mean(y, max(1, len(y) // 25)), color=ink)


def _running_mean(values: Sequence[float], width: int) -> list[float]:
    """Mean of up to ``width`` neighbours on either side, fewer at the ends so that these stay in place."""
    means = []
    for place in range(len(values)):
        reach = min(width, place, len(values) - 1 - place)
        near = values[place - reach : place + reach + 1]
        means.append(sum(near) / len(near))
    return means


def _epochs_per_step(rows: Sequence[Row]) -> float:
    """From a row written at an epoch's end; 0 where the log has none."""
    ends = [row["epoch"] / row["step"] for row in rows if _is_evaluation(row) and row["step"]]
    return float(ends[-1]) if ends else 0.0


def _is_value(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
