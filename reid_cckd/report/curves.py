"""Plots of what a run logged, and of CMC and ROC results."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reid_cckd.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

_PLACE = ("step", "epoch")
_HEADINGS = {"mean_ap": "mAP (%)", "rank1": "rank-1 (%)", "lr": "learning rate"}
_SCORES = ("mean_ap", "rank1")  # fractions, shown in this order before the losses
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "grid.color": "#e9ecef",
    "lines.linewidth": 1.8,
    "legend.frameon": False,
}


def training_curves(path: str | os.PathLike[str], runs: Mapping[str, Sequence[Row]], title: str = "") -> None:
    """Draw a PNG with a panel for each logged value, evaluation first, the runs over each other.

    ``runs``: name -> rows of its log, each with ``step`` and ``epoch`` and any of: ``mean_ap``, ``rank1`` (fractions),
    ``loss`` and each of its terms, ``lr``. Other evaluation ranks are left out to keep the picture readable.

    Raises:
        ValueError: nothing to draw in any run.
    """
    panels = _panels(runs)
    if not panels:
        raise ValueError("runs hold no value to draw: expected rows with step, epoch and loss or mean_ap")
    figure, axes = _figure(len(panels), title)
    for axis, key in zip(axes, panels, strict=True):
        _draw_panel(axis, key, runs)
    _share_legend(figure, axes[0], len(runs))
    _save(figure, path)


def cmc_curves(path: str | os.PathLike[str], runs: Mapping[str, Mapping[int, float]], title: str = "") -> None:
    """Draw a PNG of cumulative match characteristics: name -> {rank: fraction}."""
    figure, (axis,) = _figure(1, title)
    for name, cmc in runs.items():
        ranks = sorted(cmc)
        axis.plot(ranks, [100 * cmc[rank] for rank in ranks], marker="o", markersize=4, label=name)
    if max(rank for cmc in runs.values() for rank in cmc) > 50:
        axis.set_xscale("log")
    axis.set(xlabel="rank", ylabel="queries with a match so far (%)")
    axis.legend(loc="lower right")
    _save(figure, path)


def roc_curves(path: str | os.PathLike[str], runs: Mapping[str, Mapping[float, float]], title: str = "") -> None:
    """Draw a PNG of true positive rates over false positive rates, the latter logarithmic: name -> {fpr: tpr}."""
    figure, (axis,) = _figure(1, title)
    for name, tpr in runs.items():
        rates = sorted(rate for rate in tpr if rate > 0)
        axis.plot(rates, [100 * tpr[rate] for rate in rates], marker="o", markersize=4, label=name)
    axis.set_xscale("log")
    axis.set(xlabel="false positive rate", ylabel="true positive rate (%)")
    axis.legend(loc="lower right")
    _save(figure, path)


def _panels(runs: Mapping[str, Sequence[Row]]) -> list[str]:
    """Evaluation scores, the loss, its terms in order of appearance, the learning rate."""
    seen = dict.fromkeys(key for rows in runs.values() for row in rows if not _is_evaluation(row) for key in row)
    scores = [key for key in _SCORES if any(key in row for rows in runs.values() for row in rows)]
    terms = [key for key in seen if key not in (*_PLACE, "loss", "lr")]
    return scores + ["loss"] * ("loss" in seen) + terms + ["lr"] * ("lr" in seen)


def _is_evaluation(row: Row) -> bool:
    return "mean_ap" in row


def _figure(count: int, title: str) -> tuple[Figure, list[Axes]]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    columns = min(count, 2 if count in (2, 4) else 3)
    lines = math.ceil(count / columns)
    size = (6.4, 4.4) if count == 1 else (4.3 * columns, 0.8 + 2.9 * lines)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False).ravel().tolist()
    for axis in axes[count:]:
        axis.remove()
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    return figure, axes[:count]


def _draw_panel(axis: Axes, key: str, runs: Mapping[str, Sequence[Row]]) -> None:
    is_score = key in _SCORES
    by_epoch = all(_epochs_per_step(rows) for rows in runs.values())
    for number, (name, rows) in enumerate(runs.items()):
        scale = _epochs_per_step(rows) if by_epoch else 1.0
        points = [(row["step"] * scale, row[key]) for row in rows if _is_value(row.get(key))]
        x, y = [p[0] for p in points], [p[1] * (100 if is_score else 1) for p in points]
        marker = "o" if len(points) <= 40 and is_score else ""
        axis.plot(x, y, color=f"C{number % 10}", marker=marker, markersize=3.5, label=name)
    axis.set_title(_HEADINGS.get(key, key))
    axis.set_xlabel("epoch" if by_epoch else "step")
    if is_score:
        axis.set_ylim(bottom=0)
    elif key == "lr":
        axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


def _epochs_per_step(rows: Sequence[Row]) -> float:
    """From a row written at an epoch's end; 0 where the log has none."""
    ends = [row["epoch"] / row["step"] for row in rows if _is_evaluation(row) and row["step"]]
    return float(ends[-1]) if ends else 0.0


def _is_value(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _share_legend(figure: Figure, axis: Axes, runs: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if runs > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(runs, 5), frameon=False)


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
