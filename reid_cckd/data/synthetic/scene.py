"""Where the synthetic cameras hang: a wide backdrop for each, and things that stand before a person."""

from __future__ import annotations

import cv2
import numpy as np

from reid_cckd.data.synthetic.paint import Fabric, Floats, Light, Stroke, paint, smooth_noise

KINDS = ("street", "hall", "park", "plaza", "crossing")
LEAVES = ((58, 78, 40), (72, 92, 50), (44, 62, 36), (88, 98, 60))


def draw_scene(kind: str, height: int, width: int, floor: float, rng: np.random.Generator) -> Floats:
    """(height, width, 3) backdrop of 0..255, ``floor`` of it (from below) being ground."""
    line = int(height * (1 - floor))
    scene = np.empty((height, width, 3), dtype=np.float32)
    scene[:line] = _tone(rng, 95, 190)
    scene[line:] = _tone(rng, 80, 175)
    _ground(scene, line, kind, rng)
    if kind == "park":
        _foliage(scene, line, rng)
    else:
        _facade(scene, line, kind, rng)
    _clutter(scene, line, rng)
    scene *= 1 + 0.05 * smooth_noise(rng, (height, width), max(height // 6, 1))[..., None]
    scene += 4.0 * smooth_noise(rng, (height, width), 3)[..., None]
    return np.clip(cv2.GaussianBlur(scene, (0, 0), 1.2), 0, 255).astype(np.float32)


def paint_obstacle(picture: Floats, light: Light, folds: Floats, rng: np.random.Generator) -> None:
    """Something that hides a part of the person: a post, a box or bonnet at the bottom, a bush, a board at one side."""
    height, width = picture.shape[:2]
    kind = rng.integers(4)
    side = float(rng.choice((-1, 1)))
    if kind == 0:
        x = width * (0.5 + side * rng.uniform(0.05, 0.35))
        _solid(
            picture, (x, -20), (x + rng.normal(0, 2), height + 20), width * rng.uniform(0.03, 0.07), light, folds, rng
        )
    elif kind == 1:
        top = height * rng.uniform(0.66, 0.82)
        half = width * rng.uniform(0.45, 0.8)
        x = width * (0.5 + side * rng.uniform(0.0, 0.4))
        _solid(picture, (x, top), (x, height + half), half, light, folds, rng, blunt=3.0)
    elif kind == 2:
        centre = (width * (0.5 + side * rng.uniform(0.2, 0.5)), height * rng.uniform(0.75, 0.95))
        _bush(picture, centre, width * 0.35, light, folds, rng)
    else:
        x = width * (0.5 + side * rng.uniform(0.42, 0.6))
        _solid(
            picture, (x, height * rng.uniform(-0.1, 0.5)), (x, height * 1.2), width * 0.22, light, folds, rng, blunt=9.0
        )


def _tone(rng: np.random.Generator, low: float, high: float) -> Floats:
    return np.asarray(rng.uniform(low, high) + rng.normal(0, 10, 3), dtype=np.float32)


def _colour(rng: np.random.Generator, low: int = 30, high: int = 220) -> tuple[int, int, int]:
    red, green, blue = np.clip(rng.uniform(low, high) + rng.normal(0, 20, 3), 10, 245).astype(int).tolist()
    return red, green, blue


def _rectangle(scene: Floats, left: float, top: float, right: float, bottom: float, colour: tuple[int, ...]) -> None:
    cv2.rectangle(scene, (int(left), int(top)), (int(right), int(bottom)), colour, cv2.FILLED)


def _ground(scene: Floats, line: int, kind: str, rng: np.random.Generator) -> None:
    """Joints between tiles, narrower with distance; stripes of a crossing."""
    height, width = scene.shape[:2]
    depth = height - line
    joint = scene[line + depth // 2].mean(axis=0) * rng.uniform(0.75, 1.2)
    colour = tuple(float(value) for value in joint)
    if kind == "park":
        scene[line:] += rng.normal(0, 7, (depth, width, 1)).astype(np.float32)
        return
    for row in np.geomspace(1.5, depth, 9):
        cv2.line(scene, (0, line + int(row)), (width, line + int(row)), colour, 1 + int(row > depth / 2))
    for column in np.arange(-width, 2 * width, width / 14):
        far = width / 2 + (column - width / 2) * 0.55
        cv2.line(scene, (int(far), line), (int(column), height), colour, 1)
    if kind == "crossing":
        for row in np.linspace(0.2, 0.8, 3):
            _rectangle(scene, 0, line + depth * row, width, line + depth * (row + 0.12), (215, 215, 208))


def _facade(scene: Floats, line: int, kind: str, rng: np.random.Generator) -> None:
    """Windows, doors, posters and pillars along a wall."""
    width, x = scene.shape[1], 0.0
    wall = scene[0, 0].copy()
    while x < width:
        step = rng.uniform(0.25, 0.7) * max(line, 40)
        choice = rng.integers(5)
        if choice == 0:  # window
            pane = _colour(rng, 30, 110) if kind != "hall" else _colour(rng, 150, 230)
            _rectangle(scene, x + step * 0.1, line * 0.12, x + step * 0.85, line * 0.66, (235, 235, 230))
            _rectangle(scene, x + step * 0.15, line * 0.15, x + step * 0.8, line * 0.63, pane)
        elif choice == 1:  # door
            _rectangle(scene, x + step * 0.2, line * 0.1, x + step * 0.75, line, _colour(rng, 30, 140))
        elif choice == 2:  # poster
            top = line * rng.uniform(0.1, 0.4)
            _rectangle(scene, x + step * 0.2, top, x + step * 0.7, top + line * 0.35, _colour(rng, 60, 230))
        elif choice == 3:  # pillar
            colour = tuple(float(value) for value in wall * rng.uniform(0.7, 1.2))
            _rectangle(scene, x + step * 0.4, 0, x + step * 0.6, line * 1.02, colour)  # type: ignore[arg-type]
        x += step
    skirting = tuple(float(value) for value in wall * 0.6)
    cv2.rectangle(scene, (0, int(line * 0.96)), (width, line), skirting, cv2.FILLED)


def _foliage(scene: Floats, line: int, rng: np.random.Generator) -> None:
    width = scene.shape[1]
    scene[:line] = np.array(LEAVES[0], np.float32) * 1.3
    for _ in range(260):
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0, line * 1.02)))
        leaf = LEAVES[rng.integers(len(LEAVES))]
        axes = (int(rng.uniform(4, 26)), int(rng.uniform(4, 20)))
        cv2.ellipse(scene, centre, axes, rng.uniform(0, 180), 0, 360, leaf, cv2.FILLED, cv2.LINE_AA)
    for _ in range(rng.integers(3, 9)):
        x = rng.uniform(0, width)
        _rectangle(scene, x, 0, x + rng.uniform(5, 14), line * 1.04, (70, 56, 44))


def _clutter(scene: Floats, line: int, rng: np.random.Generator) -> None:
    """Bins, benches, parked things on the ground, of any colour: what a network must learn to ignore."""
    height, width = scene.shape[:2]
    flat, calm = np.zeros((height, width), np.float32), Light(float(rng.uniform(-0.6, 0.6)), 0.6)
    for _ in range(rng.integers(5, 14)):
        x, base = rng.uniform(0, width), line + (height - line) * rng.uniform(0.0, 0.35)
        size = rng.uniform(0.05, 0.16) * height
        thing = Stroke((x, base - size), (x, base), (size * 0.5, size * 0.55, size * 0.5), Fabric(_colour(rng)), 4.0)
        paint(scene, thing, calm, flat)


def _solid(
    picture: Floats,
    start: tuple[float, float],
    end: tuple[float, float],
    half: float,
    light: Light,
    folds: Floats,
    rng: np.random.Generator,
    blunt: float = 1.0,
) -> None:
    paint(picture, Stroke(start, end, (half, half), Fabric(_colour(rng)), blunt), light, folds)


def _bush(
    picture: Floats, centre: tuple[float, float], size: float, light: Light, folds: Floats, rng: np.random.Generator
) -> None:
    for _ in range(26):
        x, y = centre[0] + rng.normal(0, size * 0.5), centre[1] + abs(rng.normal(0, size * 0.6)) - size * 0.2
        leaf = Fabric(LEAVES[rng.integers(len(LEAVES))])
        tip = (x + rng.normal(0, size * 0.2), y + rng.normal(0, size * 0.2))
        paint(picture, Stroke((x, y), tip, (size * 0.12, size * 0.16, size * 0.08), leaf), light, folds)
