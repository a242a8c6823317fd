"""The brush of the synthetic people: one rounded, shaded, patterned limb painted onto a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from reid_cckd.data.synthetic.person import Colour

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Fabric:
    """A colour and a pattern in a second colour; ``period`` in pixels of the picture painted on."""

    colour: Colour
    pattern: str = "plain"
    accent: Colour = (0, 0, 0)
    period: float = 12.0


@dataclass(frozen=True)
class Stroke:
    """A shape around an axis from ``start`` to ``end`` (x, y) with half-widths at equally spaced points along it.

    ``blunt``: 1 ends it with half circles, larger values cut it off straighter.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    widths: Sequence[float]
    fabric: Fabric
    blunt: float = 1.0


@dataclass(frozen=True)
class Light:
    """``side``: -1 (light from the left) to 1; ``ambient``: 0..1 of light that has no direction."""

    side: float
    ambient: float


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], grain: int) -> Floats:
    """(H, W) noise of standard deviation about 1 whose blobs are ``grain`` pixels wide."""
    height, width = shape
    coarse = rng.standard_normal((height // grain + 2, width // grain + 2), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def paint(picture: Floats, stroke: Stroke, light: Light, folds: Floats) -> None:
    """Paint ``stroke`` onto ``picture`` (H, W, 3), 0..255, in place; ``folds`` (>= H, >= W) wrinkles the fabric."""
    (x0, y0), (x1, y1) = stroke.start, stroke.end
    reach = max(stroke.widths) + 1
    rows = _span(min(y0, y1) - reach, max(y0, y1) + reach, picture.shape[0])
    columns = _span(min(x0, x1) - reach, max(x0, x1) + reach, picture.shape[1])
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    length = float(np.hypot(x1 - x0, y1 - y0))
    axis_x, axis_y = ((x1 - x0) / length, (y1 - y0) / length) if length > 1e-3 else (0.0, 1.0)
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] - np.float32(x0)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(y0)
    along = x * np.float32(axis_x) + y * np.float32(axis_y)
    across = y * np.float32(axis_x) - x * np.float32(axis_y)
    inside = np.clip(along, 0, length)
    width = _interpolate(inside / np.float32(max(length, 1e-3)), stroke.widths)
    cover = np.clip(width - np.hypot(across, (along - inside) * np.float32(stroke.blunt)) + np.float32(0.5), 0, 1)
    shade = _shade(across / np.maximum(width, 1), axis_y, light) * (1 + np.float32(0.06) * folds[rows, columns])
    region = picture[rows, columns]
    region += cover[..., None] * (_colours(stroke.fabric, across, along) * shade[..., None] - region)


def _span(low: float, high: float, limit: int) -> slice:
    return slice(max(0, int(np.floor(low))), min(limit, int(np.ceil(high)) + 1))


def _interpolate(position: Floats, values: Sequence[float]) -> Floats:
    table = np.interp(np.linspace(0, 1, 65), np.linspace(0, 1, len(values)), values).astype(np.float32)
    values_there: Floats = table[(position * 64).astype(np.intp)]
    return values_there


def _shade(u: Floats, axis_y: float, light: Light) -> Floats:
    """Lambert's law on a cylinder seen from the side; ``u``: -1..1 across it."""
    u = np.clip(u * np.float32(np.sign(axis_y) or 1), -1, 1)
    facing = np.sqrt(1 - u * u)
    lit = np.maximum(facing * np.float32(0.75) - u * np.float32(light.side), 0)
    return np.float32(light.ambient) + np.float32(1 - light.ambient) * lit * np.float32(1.15)


def _colours(fabric: Fabric, across: Floats, along: Floats) -> Floats:
    base, accent = np.array(fabric.colour, np.float32), np.array(fabric.accent, np.float32)
    if fabric.pattern not in _PATTERNS:
        return base
    mask = _PATTERNS[fabric.pattern](across / np.float32(fabric.period), along / np.float32(fabric.period))
    return base + mask[..., None] * (accent - base)


def _bands(position: Floats) -> Floats:
    return np.asarray(np.clip(np.float32(0.5) + 3 * np.sin(position * np.float32(2 * np.pi)), 0, 1))


_PATTERNS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "stripes": lambda across, along: _bands(along),
    "pinstripes": lambda across, along: _bands(across * np.float32(1.6)),
    "checks": lambda across, along: (_bands(along) + _bands(across)) / 2,
    "block": lambda across, along: np.asarray(np.clip((along - 3) * 4, 0, 1)),
}
