"""Pictures of classes that a small network tells apart in seconds: gratings of a class's own angle and colours."""

from __future__ import annotations

import numpy as np

from reid_cckd.data.images import Pixels


def pattern(label: int, rng: np.random.Generator, size: tuple[int, int]) -> Pixels:
    """A picture (H, W, 3) of class ``label``; ``rng`` shifts, tilts, shades and blurs it with noise."""
    own = np.random.default_rng([7, label])
    angle, waves = own.uniform(0, np.pi) + rng.normal(0, 0.06), own.uniform(2, 6) * rng.uniform(0.93, 1.07)
    light, dark = own.uniform(90, 255, 3), own.uniform(0, 130, 3)
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    phase = 2 * np.pi * (waves * (columns * np.cos(angle) + rows * np.sin(angle)) + rng.uniform())
    share = (0.5 + 0.5 * np.sin(phase))[..., None]
    picture = (share * light + (1 - share) * dark) * rng.uniform(0.75, 1.2) + rng.normal(0, 12, (*size, 3))
    return np.asarray(np.clip(picture, 0, 255), dtype=np.uint8)
