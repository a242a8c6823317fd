"""The synthetic cameras: each sees its own place from its own angle, in its own light, through its own optics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from reid_cckd.data.synthetic.figure import Placement, Pose, paint_person
from reid_cckd.data.synthetic.paint import Fabric, Floats, Light, Stroke, paint, smooth_noise
from reid_cckd.data.synthetic.person import Person, stranger
from reid_cckd.data.synthetic.scene import KINDS, draw_scene, paint_obstacle

OVERSAMPLING = 2
TIMES = {"morning": (1.04, 1.0, 0.94), "noon": (1.0, 1.0, 1.0), "afternoon": (0.82, 0.84, 0.92)}  # RGB light


@dataclass(frozen=True)
class Camera:
    """What stays the same in every picture of one camera."""

    scene: Floats
    floor: float  # share of a crop, from below, that is ground
    pitch: float  # radians from above
    heading: float  # the yaw at which most people pass
    gains: Floats  # (3,) white balance and exposure
    gamma: float
    saturation: float
    haze: float  # 0..1 of grey veil
    detail: float  # rows that the sensor had for the crop; where the picture has fewer, nothing is lost
    blur: float  # sigma, of a picture of 128 rows
    noise: float  # standard deviation, of 255
    quality: int  # JPEG
    light: Light


@dataclass(frozen=True)
class Visit:
    """One walk of a person past one camera: a track of pictures that share place, light and direction."""

    yaw: float
    stride: float
    left: int  # column of the scene
    rise: int  # row shift of the scene
    size: float  # the body as a share of the crop's height
    time: str
    brightness: float
    partner: Person | None  # somebody who walks close by
    partner_side: float


@lru_cache(maxsize=64)
def make_camera(number: int, size: tuple[int, int], seed: int) -> Camera:
    """Camera ``number`` (from 1) of a set with pictures of ``size`` (H, W)."""
    rng = np.random.default_rng([seed, 2, number])
    height, width = size[0] * OVERSAMPLING, size[1] * OVERSAMPLING
    pitch = float(rng.uniform(0.03, 0.35))
    floor = float(np.clip(0.28 + 1.1 * pitch + rng.normal(0, 0.05), 0.25, 0.75))
    kind = KINDS[(number - 1) % len(KINDS)]
    return Camera(
        scene=draw_scene(kind, height + height // 4, width * 8, floor, rng),
        floor=floor,
        pitch=pitch,
        heading=float(rng.uniform(0, 2 * np.pi)),
        gains=np.asarray(rng.uniform(0.78, 1.12) * np.exp(rng.normal(0, 0.08, 3)), dtype=np.float32),
        gamma=float(rng.uniform(0.78, 1.35)),
        saturation=float(rng.uniform(0.6, 1.1)),
        haze=float(rng.uniform(0, 0.22)),
        detail=float(rng.uniform(60, 130)),
        blur=float(rng.uniform(0, 0.9)),
        noise=float(rng.uniform(1.5, 7)),
        quality=int(rng.integers(38, 88)),
        light=Light(float(rng.uniform(-0.7, 0.7)), float(rng.uniform(0.45, 0.8))),
    )


def make_visit(camera: Camera, size: tuple[int, int], rng: np.random.Generator) -> Visit:
    """A walk past ``camera``: along its path in either direction, sometimes across it."""
    scene_height, scene_width = camera.scene.shape[:2]
    height, width = size[0] * OVERSAMPLING, size[1] * OVERSAMPLING
    turn = float(rng.choice((0.0, np.pi, np.pi / 2, -np.pi / 2), p=(0.4, 0.36, 0.12, 0.12)))
    return Visit(
        yaw=camera.heading + turn + float(rng.normal(0, 0.3)),
        stride=float(rng.choice((0.06, 0.5), p=(0.2, 0.8))) * float(rng.uniform(0.7, 1.2)),
        left=int(rng.integers(scene_width - width)),
        rise=int(rng.integers(scene_height - height)),
        size=float(rng.uniform(0.80, 0.90)),
        time=str(rng.choice(list(TIMES))),
        brightness=float(np.exp(rng.normal(0, 0.13))),
        partner=stranger(rng) if rng.random() < 0.25 else None,
        partner_side=float(rng.choice((-1, 1))),
    )


def photograph(
    person: Person, camera: Camera, visit: Visit, size: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """One picture of ``person``: (H, W, 3) uint8 RGB, before JPEG."""
    height, width = size[0] * OVERSAMPLING, size[1] * OVERSAMPLING
    left = int(np.clip(visit.left + rng.normal(0, 5), 0, camera.scene.shape[1] - width))
    picture = camera.scene[visit.rise : visit.rise + height, left : left + width].copy()
    folds = smooth_noise(rng, (height, width), 7)
    pose = Pose(visit.yaw + float(rng.normal(0, 0.12)), camera.pitch, visit.stride, float(rng.uniform(0, 2 * np.pi)))
    place = _placement(visit, height, width, rng)
    behind = visit.partner is not None and rng.random() < 0.7
    if visit.partner and behind:
        _paint_partner(picture, visit, pose, place, camera, folds, rng)
    _paint_shadow(picture, place, camera.light, folds)
    paint_person(picture, person, pose, place, camera.light, folds)
    if visit.partner and not behind:
        _paint_partner(picture, visit, pose, place, camera, folds, rng)
    if rng.random() < 0.13:
        paint_obstacle(picture, camera.light, folds, rng)
    return _expose(picture, camera, visit, size, rng)


def _placement(visit: Visit, height: int, width: int, rng: np.random.Generator) -> Placement:
    """Feet and size within the crop; one detection in twelve cuts the person badly."""
    share = visit.size * float(np.exp(rng.normal(0, 0.03)))
    x, feet = 0.5 + float(rng.normal(0, 0.035)), 0.955 - (0.9 - share) * 0.5 + float(rng.normal(0, 0.012))
    if rng.random() < 1 / 12:
        share *= float(rng.uniform(1.15, 1.55))
        x, feet = 0.5 + float(rng.normal(0, 0.15)), float(rng.choice((1.05, 1.35)))
    return Placement(x * width, feet * height, share * height)


def _paint_partner(
    picture: Floats,
    visit: Visit,
    pose: Pose,
    place: Placement,
    camera: Camera,
    folds: Floats,
    rng: np.random.Generator,
) -> None:
    if visit.partner is None:
        return
    offset = visit.partner_side * picture.shape[1] * float(rng.uniform(0.38, 0.55))
    beside = Placement(place.x + offset, place.y + float(rng.normal(0, 4)), place.scale * float(rng.uniform(0.9, 1.05)))
    stride = Pose(pose.yaw, pose.pitch, pose.stride, float(rng.uniform(0, 2 * np.pi)))
    paint_person(picture, visit.partner, stride, beside, camera.light, folds)


def _paint_shadow(picture: Floats, place: Placement, light: Light, folds: Floats) -> None:
    reach, y = 0.16 * place.scale, place.y - 0.005 * place.scale
    ends = (place.x - reach * (0.6 + light.side), y), (place.x + reach * (0.6 - light.side), y)
    shaded = picture.copy()
    paint(shaded, Stroke(*ends, (reach * 0.1, reach * 0.22, reach * 0.1), Fabric((40, 40, 44))), light, folds)
    picture += 0.55 * (shaded - picture)


def _expose(
    picture: Floats, camera: Camera, visit: Visit, size: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Optics, then sensor: resolution, blur, light, colour, tone, noise."""
    share, blur = min(1.0, camera.detail / size[0]), camera.blur * size[0] / 128
    image = cv2.resize(picture, (round(size[1] * share), round(size[0] * share)), interpolation=cv2.INTER_AREA)
    image = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    if blur > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    grey = image.mean(axis=2, keepdims=True)
    image = grey + np.float32(camera.saturation) * (image - grey)
    image = image * (camera.gains * np.float32(visit.brightness) * np.array(TIMES[visit.time], np.float32))
    image = 255 * np.clip(image / 255, 0, 1) ** np.float32(camera.gamma)
    image = image * np.float32(1 - camera.haze) + np.float32(190 * camera.haze)
    image += np.float32(camera.noise) * rng.standard_normal(image.shape, dtype=np.float32)
    developed: NDArray[np.uint8] = np.clip(image + np.float32(0.5), 0, 255).astype(np.uint8)
    return developed
