"""How far a long piece of work has come and when it will end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm


@contextmanager
def progress(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A function of (done, total) that draws a bar with the time left; a line a half minute where there is no screen.

    Work of less than a second draws nothing. What the first call says is done counts as done before.
    """
    screen = sys.stderr.isatty()
    options = {"delay": 1, "mininterval": 0.2 if screen else 30, "leave": not screen, "dynamic_ncols": screen}
    with tqdm(desc=title, unit=f" {unit}", unit_scale=True, **options) as bar:

        def show(done: int, total: int) -> None:
            if bar.total is None:
                bar.initial = bar.last_print_n = bar.n = done
            bar.total = total
            bar.update(done - bar.n)

        yield show


def readable_bytes(count: float) -> str:
    """12 MB, 3.4 GB."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6)):,} MB"


def readable_seconds(seconds: float) -> str:
    """2 s, 3 min, 1.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
