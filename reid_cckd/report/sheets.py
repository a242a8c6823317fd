"""Picture sheets of ranked lists: the query, then its neighbours in green and red frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reid_cckd.files import atomic_path

if TYPE_CHECKING:
    from PIL.Image import Image

# Gives the pixels, (H, W, 3) uint8 RGB, or in a few words why there are none.
Picture: TypeAlias = Callable[[], NDArray[np.uint8] | str]

_PAPER, _INK, _FAINT = (255, 255, 255), (33, 37, 41), (134, 142, 150)
_GREEN, _RED, _TILE = (47, 158, 68), (224, 49, 49), (222, 226, 230)
_HEIGHT, _FRAME, _GAP, _MARGIN = 176, 5, 8, 24  # pixels of a picture, its frame, between pictures, around the sheet
_TITLE, _CAPTION, _NAME = 30, 28, 16  # pixels for the line above a row, for the score under a picture, and for a name


@dataclass(frozen=True)
class RankedRow:
    """One query and its best gallery items, best first, junk already left out; ``names``: who is on them, if known."""

    query: Picture
    gallery: Sequence[Picture]
    is_match: Sequence[bool]
    scores: Sequence[float]
    title: str = ""
    names: Sequence[str] = ()


def choose_rows(ap: NDArray[np.floating[Any]], count: int, seed: int = 0) -> NDArray[np.int64]:
    """Which queries to show: a third are the worst ones, the rest a seeded draw, ordered from best to worst.

    ``ap``: (Q,) average precision, NaN where a query has no match; such queries are never chosen.
    """
    valid = np.flatnonzero(~np.isnan(ap))
    count = min(count, len(valid))
    ranked = valid[np.argsort(ap[valid], kind="stable")]
    worst, others = ranked[: -(-count // 3)], ranked[-(-count // 3) :]
    drawn = np.random.default_rng(seed).choice(others, count - len(worst), replace=False)
    chosen = np.concatenate([worst, drawn])
    return chosen[np.argsort(-ap[chosen], kind="stable")]


def ranked_sheet(path: str | os.PathLike[str], rows: Sequence[RankedRow], title: str = "") -> None:
    """Draw a PNG of one line per query; an image that cannot be read becomes a grey tile.

    Raises:
        ValueError: no rows, or a row whose gallery, is_match, scores and names, if any, differ in length.
    """
    from PIL import Image, ImageDraw

    _check(rows)
    tile = (_tile_width(rows), _HEIGHT)
    caption = _CAPTION + _NAME * any(any(row.names) for row in rows)
    step = (tile[0] + 2 * _FRAME + _GAP, _TITLE + tile[1] + 2 * _FRAME + caption + _GAP)
    columns = max(len(row.gallery) for row in rows)
    header = 54 if title else 30
    width = 2 * _MARGIN + (columns + 1) * step[0] + _GAP  # the query stands apart by one more gap
    sheet = Image.new("RGB", (width, 2 * _MARGIN + header + len(rows) * step[1]), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_header(draw, title, sheet.width)
    for line, row in enumerate(rows):
        _draw_row(sheet, draw, row, _MARGIN + header + line * step[1], tile, step[0])
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def _check(rows: Sequence[RankedRow]) -> None:
    if not rows:
        raise ValueError("rows is empty: there is nothing to draw")
    for number, row in enumerate(rows):
        if not len(row.gallery) == len(row.is_match) == len(row.scores) == len(row.names or row.gallery):
            lengths = f"{len(row.gallery)}, {len(row.is_match)}, {len(row.scores)} and {len(row.names)}"
            raise ValueError(f"row {number}: gallery, is_match, scores and names have lengths {lengths}")


def _tile_width(rows: Sequence[RankedRow]) -> int:
    """The median aspect of the queries, between a standing person and a lying vehicle."""
    images = [image for image in (_open(row.query) for row in rows) if image is not None]
    aspects = [image.width / image.height for image in images] or [0.5]
    return round(_HEIGHT * float(np.clip(np.median(aspects), 0.4, 1.6)))


def _draw_header(draw: Any, title: str, width: int) -> None:
    y = _MARGIN
    if title:
        draw.text((_MARGIN, y), title, _INK, _font(20))
        y += 30
    legend = [("same identity", _GREEN), ("another identity", _RED)]
    x = _MARGIN
    for text, colour in legend:
        draw.rounded_rectangle((x, y + 1, x + 12, y + 13), 3, fill=colour)
        draw.text((x + 18, y), text, _FAINT, _font(13))
        x += 18 + round(draw.textlength(text, _font(13))) + 20
    draw.text((x, y), "score: cosine similarity", _FAINT, _font(13))
    draw.line((_MARGIN, y + 24, width - _MARGIN, y + 24), _TILE, 1)


def _draw_row(sheet: Image, draw: Any, row: RankedRow, y: int, tile: tuple[int, int], step: int) -> None:
    draw.text((_MARGIN, y + 7), row.title, _INK, _font(14))
    y += _TITLE
    _draw_tile(sheet, draw, row.query, (_MARGIN, y), tile, _INK)
    _caption(draw, "query", (_MARGIN, y), tile, _INK)
    names = [_shortened(draw, name, tile[0] + 2 * _FRAME) for name in row.names] or [""] * len(row.gallery)
    for place, (item, match, score) in enumerate(zip(row.gallery, row.is_match, row.scores, strict=True)):
        x = _MARGIN + (place + 1) * step + _GAP
        _draw_tile(sheet, draw, item, (x, y), tile, _GREEN if match else _RED)
        _caption(draw, f"{place + 1}   {score:.3f}\n{names[place]}", (x, y), tile, _FAINT)


def _draw_tile(
    sheet: Image, draw: Any, item: Picture, corner: tuple[int, int], tile: tuple[int, int], colour: Any
) -> None:
    from PIL import ImageOps

    x, y = corner
    box = (x, y, x + tile[0] + 2 * _FRAME - 1, y + tile[1] + 2 * _FRAME - 1)
    draw.rounded_rectangle(box, 6, fill=colour)
    inner = (x + _FRAME, y + _FRAME)
    draw.rectangle((*inner, inner[0] + tile[0] - 1, inner[1] + tile[1] - 1), fill=_TILE)
    image = _open(item)
    if image is None:
        middle = (inner[0] + tile[0] // 2, inner[1] + tile[1] // 2)
        draw.text(middle, "no image", _FAINT, _font(14), anchor="mm")
        return
    fitted = ImageOps.contain(image, tile)
    sheet.paste(fitted, (inner[0] + (tile[0] - fitted.width) // 2, inner[1] + (tile[1] - fitted.height) // 2))


def _caption(draw: Any, text: str, corner: tuple[int, int], tile: tuple[int, int], colour: Any) -> None:
    middle = corner[0] + _FRAME + tile[0] // 2
    draw.text((middle, corner[1] + tile[1] + 2 * _FRAME + 4), text, colour, _font(13), anchor="ma", align="center")


def _shortened(draw: Any, text: str, width: int) -> str:
    """As much of a text as fits in a line."""
    text = " ".join(text.split())
    while draw.textlength(text, _font(13)) > width:
        text = f"{text.removesuffix('…')[:-1]}…"
    return text


def _open(picture: Picture) -> Image | None:
    """The picture, or None where there is none to be had."""
    from PIL import Image

    pixels = picture()
    return None if isinstance(pixels, str) else Image.fromarray(pixels)


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
