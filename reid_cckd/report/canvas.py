"""The paper that all plots are drawn on: size, style, colours told apart by everyone, atomic saving."""

from __future__ import annotations

import contextlib
import math
import os
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from reid_cckd.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")  # Okabe and Ito's
_LETTERS = 8.5  # of a title in an inch
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#868e96",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "axes.labelcolor": "#495057",
    "xtick.color": "#495057",
    "ytick.color": "#495057",
    "grid.color": "#e9ecef",
    "lines.linewidth": 1.8,
    "legend.frameon": False,
}


@contextlib.contextmanager
def figure_of(path: str | os.PathLike[str], count: int, title: str) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of ``count`` panels, saved on leaving; drawn without pyplot, so no caller's figure is touched."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    columns = min(count, 2 if count in (2, 4) else 3)
    lines = math.ceil(count / columns)
    size = (6.4, 4.4) if count == 1 else (4.3 * columns, 0.8 + 2.6 * lines)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False).ravel().tolist()
        for axis in axes[count:]:
            axis.remove()
        if title:
            lines_of_title = textwrap.fill(title, int(_LETTERS * size[0]))
            figure.suptitle(lines_of_title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        yield figure, axes[:count]
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)


def colour(number: int) -> str:
    """The colour of the n-th run, the same in every plot."""
    return COLOURS[number % len(COLOURS)]


def plain_logarithmic(axis: Axes) -> None:
    """A logarithmic axis of what is drawn that reads 0.3, 1, 3: matplotlib's own labels overlap within two decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    first, last = axis.get_xlim()
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 3) if last > 20 * first else (1, 2, 3, 5, 7)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
