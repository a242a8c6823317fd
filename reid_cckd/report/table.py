"""Rows of numbers as aligned plain text or as Markdown."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

_MISSING = "-"
_HEADINGS = {
    "mean_ap": "mAP",
    "mean_inp": "mINP",
    "map_at_r": "MAP@R",
    "r_precision": "R-precision",
    "ece": "ECE",
}


def format_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str] | Mapping[str, str] | None = None,
    *,
    percent: Collection[str] = (),
    style: Literal["plain", "markdown"] = "plain",
) -> str:
    """Lines without a trailing newline: numbers flush right, text flush left, ``-`` where a row has no value.

    ``columns``: keys in order, named by `score_heading`, or key -> heading; by default every key in order of
    appearance. Values under ``percent`` are fractions and printed times 100 with one decimal. A pair of numbers is a
    mean and a standard deviation, None where a single value has none.
    No rows give the heading alone.
    """
    headings = _headings(rows, columns)
    body = [[_cell(row.get(key), key in percent) for key in headings] for row in rows]
    if style == "markdown":
        body = [[cell.replace("|", r"\|") for cell in line] for line in body]
    right = [all(_is_number(row.get(key)) for row in rows) for key in headings]
    titles = [f"{text} %" if key in percent else text for key, text in headings.items()]
    widths = [max(len(line[i]) for line in [titles, *body]) for i in range(len(titles))]
    lines = [_align(line, widths, right) for line in [titles, *body]]
    if style == "markdown":
        rule = ["-" * (width - 1) + ":" if flush else "-" * width for width, flush in zip(widths, right, strict=True)]
        return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])
    rule = ["-" * width for width in widths]
    return "\n".join("  ".join(line).rstrip() for line in [lines[0], rule, *lines[1:]])


def score_heading(key: str) -> str:
    """How a score is called in print: mAP for ``mean_ap``, rank-5 for ``rank5``, R@1 for ``recall@1``."""
    plain = re.sub(r"^(rank|top)(\d+)$", r"\1-\2", key.replace("recall@", "R@"))
    return _HEADINGS.get(key) or plain.replace("_", " ")


def _headings(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | Mapping[str, str] | None) -> dict[str, str]:
    if isinstance(columns, Mapping):
        return dict(columns)
    keys = columns if columns is not None else dict.fromkeys(key for row in rows for key in row)
    return {key: score_heading(key) for key in keys}


def _cell(value: Any, is_fraction: bool) -> str:
    if value is None:
        return _MISSING
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        return " ± ".join(_cell(part, is_fraction) for part in value if part is not None)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return str(value)
    if not math.isfinite(value):
        return _MISSING if math.isnan(value) else str(value)
    if is_fraction:
        return f"{100 * float(value):.1f}"
    return f"{value:,}" if isinstance(value, numbers.Integral) else _decimal(float(value))


def _decimal(value: float) -> str:
    """Four significant digits, never fewer than all digits before the point."""
    if value == 0 or 1e-3 <= abs(value) < 1e9:
        digits = 3 if value == 0 else max(0, 3 - math.floor(math.log10(abs(value))))
        return f"{value:,.{digits}f}"
    return f"{value:.3e}"


def _is_number(value: Any) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return all(_is_number(part) for part in value)
    return value is None or (isinstance(value, numbers.Real) and not isinstance(value, bool))


def _align(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> list[str]:
    return [
        cell.rjust(width) if flush else cell.ljust(width)
        for cell, width, flush in zip(cells, widths, right, strict=True)
    ]
