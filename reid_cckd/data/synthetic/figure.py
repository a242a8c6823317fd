"""A person in a pose as strokes on a picture: a skeleton turned towards the camera, dressed, painted back to front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reid_cckd.data.synthetic.paint import Fabric, Floats, Light, Stroke, paint
from reid_cckd.data.synthetic.person import Colour, Person

Widths = Sequence[float] | NDArray[np.float64]
Point = tuple[float, float, float]  # x to the person's left, y up, z forward; one unit is a body of average height


@dataclass(frozen=True)
class Pose:
    """``yaw``: 0 faces the camera, pi turns the back to it; ``stride``: leg angle (radians); ``phase``: of the gait."""

    yaw: float
    pitch: float
    stride: float
    phase: float


@dataclass(frozen=True)
class Placement:
    """Where the feet stand in the picture (pixels) and how many pixels one body unit is."""

    x: float
    y: float
    scale: float


class Part(NamedTuple):
    """A body part between two points; ``side``, ``depth``: half-widths along it, from the front and from the side."""

    start: Point
    end: Point
    side: Widths
    depth: Widths
    fabric: Fabric
    lift: float = 0.0  # towards the camera when parts are ordered
    blunt: float = 1.0


def paint_person(picture: Floats, person: Person, pose: Pose, place: Placement, light: Light, folds: Floats) -> None:
    """Paint ``person`` onto ``picture`` (H, W, 3), 0..255, in place."""
    scale = place.scale * person.height
    cos, sin = float(np.cos(pose.yaw)), float(np.sin(pose.yaw))
    tilt_cos, tilt_sin = float(np.cos(pose.pitch)), float(np.sin(pose.pitch))

    legs, arms = _swing(pose)
    ground = min(limb.tip[1] for limb in legs) - 0.03  # the lower foot carries the body

    def project(point: Point) -> tuple[float, float, float]:
        x, y, z = point[0], point[1] - ground, point[2]
        depth = z * cos - x * sin
        across, up = x * cos + z * sin, y * tilt_cos - depth * tilt_sin
        return place.x + across * scale, place.y - up * scale, depth

    drawn: list[tuple[float, Stroke]] = []
    for part in _parts(person, cos, legs, arms, scale):
        x0, y0, depth0 = project(part.start)
        x1, y1, depth1 = project(part.end)
        widths = np.hypot(np.array(part.side) * cos, np.array(part.depth) * sin) * scale
        stroke = Stroke((x0, y0), (x1, y1), widths.tolist(), part.fabric, part.blunt)
        drawn.append(((depth0 + depth1) / 2 + part.lift, stroke))
    for _, stroke in sorted(drawn, key=lambda entry: entry[0]):
        paint(picture, stroke, light, folds)


def _parts(person: Person, facing: float, legs: list[Limb], arms: list[Limb], scale: float) -> Iterator[Part]:
    yield from _lower_body(person, legs, scale)
    yield from _upper_body(person, facing, scale)
    yield from _arms(person, arms, scale)
    yield from _head(person, facing)
    yield from _luggage(person, facing, arms)


class Limb(NamedTuple):
    """The joints of an arm or a leg from the trunk outwards."""

    root: Point
    middle: Point
    tip: Point


def _swing(pose: Pose) -> tuple[list[Limb], list[Limb]]:
    """Both legs and both arms (person's right, left) at one moment of the gait; arms swing against the legs."""
    legs, arms = [], []
    for side in (-1, 1):
        angle = side * pose.stride * float(np.sin(pose.phase))
        bend = pose.stride * max(0.0, float(np.cos(pose.phase)) * side) * 0.9
        legs.append(_limb((side * 0.052, 0.50, 0.0), (0.235, 0.235), angle, angle - bend))
        arms.append(
            _limb((side * 0.102, 0.795, 0.0), (0.165, 0.15), -angle * 0.8, -angle * 0.8 + 0.25, out=side * 0.022)
        )
    return legs, arms


def _limb(root: Point, lengths: tuple[float, float], first: float, second: float, out: float = 0.0) -> Limb:
    middle = _from(root, lengths[0], first, out)
    return Limb(root, middle, _from(middle, lengths[1], second, out / 2))


def _from(point: Point, length: float, angle: float, out: float) -> Point:
    return point[0] + out, point[1] - length * float(np.cos(angle)), point[2] + length * float(np.sin(angle))


def _lower_body(person: Person, legs: list[Limb], scale: float) -> Iterator[Part]:
    cloth, skin, shoes = Fabric(person.lower), Fabric(person.skin), Fabric(person.shoes)
    build = person.build
    bottom = "skirt" if person.top == "dress" else person.bottom
    loose = {"trousers": 1.25, "shorts": 1.3}.get(bottom, 0.95)
    thigh = cloth if bottom in ("trousers", "slim", "shorts") else skin
    shin = cloth if bottom in ("trousers", "slim") else skin
    for limb in legs:
        upper = np.array([0.058, 0.052, 0.040]) * build * loose
        lower = np.array([0.038, 0.036, 0.030 * loose]) * build * (loose if shin is cloth else 0.85)
        yield Part(limb.middle, limb.tip, lower, lower, shin)
        yield Part(limb.root, limb.middle, upper, upper, thigh, 0.002)
        heel = (limb.tip[0], limb.tip[1] - 0.02, limb.tip[2] - 0.02)
        toe = (limb.tip[0], limb.tip[1] - 0.03, limb.tip[2] + 0.07)
        yield Part(heel, toe, (0.026, 0.024), (0.022, 0.018), shoes, 0.004)
    hips = np.array([0.085, 0.098, 0.095]) * build
    if bottom in ("skirt", "long_skirt"):
        hem = 0.30 if bottom == "skirt" else 0.12
        flare = np.array([0.085, 0.105, 0.125, 0.135 if bottom == "skirt" else 0.15]) * build
        yield Part((0, 0.56, 0), (0, hem, 0), flare, flare * 0.85, _cloth(person, scale, "lower"), 0.05, HEM)
    else:
        yield Part((0, 0.56, 0), (0, 0.47, 0), hips, hips * 0.8, cloth, 0.02)


def _cloth(person: Person, scale: float, which: str) -> Fabric:
    if which == "lower" and person.top != "dress":
        return Fabric(person.lower)
    pattern = "plain" if person.pattern == "logo" else person.pattern
    return Fabric(person.upper, pattern, person.accent, period=0.052 * scale)


def _upper_body(person: Person, facing: float, scale: float) -> Iterator[Part]:
    build = person.build
    hem = {"coat": 0.33, "dress": 0.50, "hoodie": 0.47}.get(person.top, 0.49)
    loose = {"coat": 1.12, "jacket": 1.1, "hoodie": 1.12}.get(person.top, 1.0)
    side = np.array([0.030, 0.098, 0.118, 0.112, 0.105, 0.098, 0.095, 0.098, 0.10]) * (0.55 + 0.45 * build) * loose
    depth = np.array([0.030, 0.052, 0.066, 0.072, 0.072, 0.070, 0.068, 0.068, 0.07]) * build * loose
    yield Part(
        (0, 0.838, 0),
        (0, hem, 0),
        side,
        depth,
        _cloth(person, scale, "upper"),
        0.06 if person.top == "coat" else 0.045,
        HEM,
    )
    front = max(0.0, facing)
    if person.top in ("jacket", "coat"):  # worn open: a strip of the shirt beneath
        strip = np.array([0.012, 0.030, 0.026, 0.024]) * front
        yield Part((0, 0.83, 0.06), (0, hem + 0.03, 0.06), strip, strip * 0, Fabric(person.accent), 0.05, HEM)
    elif person.pattern == "logo":
        logo = np.array([0.05, 0.055, 0.05]) * front
        yield Part((0, 0.755, 0.06), (0, 0.69, 0.06), logo, logo * 0, Fabric(person.accent), 0.05, HEM)


def _arms(person: Person, arms: list[Limb], scale: float) -> Iterator[Part]:
    skin, build = Fabric(person.skin), person.build
    bare = person.top in ("tee", "dress")
    loose = 1.2 if person.top in ("coat", "jacket", "hoodie") else 1.0
    sleeve = _cloth(person, scale, "upper")
    for limb in arms:
        upper = np.array([0.036, 0.034, 0.030]) * (0.5 + 0.5 * build) * loose
        lower = np.array([0.028, 0.025, 0.021]) * (0.5 + 0.5 * build) * (1.0 if bare else loose * 1.1)
        hand = _between(limb.middle, limb.tip, 1.16)
        yield Part(limb.tip, hand, (0.019, 0.021, 0.015), (0.019, 0.021, 0.015), skin, 0.001)
        yield Part(limb.middle, limb.tip, lower, lower, skin if bare else sleeve, 0.002)
        yield Part(limb.root, limb.middle, upper, upper, sleeve, 0.003)


def _between(start: Point, end: Point, t: float) -> Point:
    return tuple(a + t * (b - a) for a, b in zip(start, end, strict=True))  # type: ignore[return-value]


HEM = 5.0  # how straight cloth is cut off
OVAL = np.array([0.7, 0.9, 1.0, 1.0, 0.98, 0.85, 0.55])


def _head(person: Person, facing: float) -> Iterator[Part]:
    skin, hair = Fabric(person.skin), Fabric(person.hair)
    yield Part((0, 0.88, -0.005), (0, 0.82, -0.005), (0.026, 0.030), (0.028, 0.032), skin, 0.0)
    yield Part((0, 0.985, 0.008), (0, 0.872, 0.012), OVAL * 0.047, OVAL * 0.054, skin, 0.02)
    eyes = np.array([0.005, 0.009, 0.005, 0.009, 0.005]) * max(0.0, facing)
    yield Part((-0.026, 0.935, 0.05), (0.026, 0.935, 0.05), eyes, eyes * 0, Fabric(_darker(person.skin)), 0.03)
    if person.hairstyle == "bald":
        return
    crown = Fabric(person.cap) if person.hairstyle == "cap" else hair
    yield Part((0, 0.990, -0.006), (0, 0.958, -0.004), (0.036, 0.050, 0.052), (0.040, 0.058, 0.060), crown, 0.055, 2.0)
    nape = {"long": 0.80, "bun": 0.90}.get(person.hairstyle, 0.905)
    fall = np.array([0.045, 0.053, 0.055, 0.050])
    yield Part((0, 0.97, -0.030), (0, nape, -0.034), fall, fall * 0.66, hair, 0.025)
    if person.hairstyle == "bun":
        yield Part((0, 0.965, -0.075), (0, 0.945, -0.08), (0.026, 0.026), (0.024, 0.024), hair, 0.0)
    if person.hairstyle == "cap":
        yield Part((0, 0.956, 0.02), (0, 0.95, 0.085), (0.044, 0.036), (0.010, 0.008), crown, 0.03)


def _darker(colour: Colour) -> Colour:
    return (colour[0] // 2, colour[1] // 2, colour[2] // 2)


def _luggage(person: Person, facing: float, arms: list[Limb]) -> Iterator[Part]:
    bag, strap = Fabric(person.bag), Fabric(_darker(person.bag))
    side = person.bag_side
    if person.carried == "backpack":
        pack = np.array([0.05, 0.082, 0.090, 0.092, 0.080])
        yield Part((0, 0.80, -0.105), (0, 0.59, -0.115), pack, pack * 0.58, bag, 0.0)
        front = 0.013 * max(0.0, facing)
        for x in (-0.062, 0.062):
            yield Part((x, 0.825, 0.06), (x * 1.1, 0.64, 0.065), (front, front), (0.012, 0.012), strap, 0.052)
    elif person.carried == "handbag":
        x, y, z = arms[(side + 1) // 2].tip
        yield Part((x, y, z), (x, y - 0.06, z), (0.008, 0.008), (0.012, 0.02), strap, 0.0)
        yield Part((x, y - 0.06, z), (x, y - 0.15, z), (0.028, 0.034, 0.034), (0.06, 0.07, 0.066), bag, 0.01)
    elif person.carried == "shoulder_bag":
        depth = 0.07 if facing > 0 else -0.07
        belt = (0.011, 0.011)
        yield Part((-side * 0.07, 0.825, depth), (side * 0.11, 0.56, depth), belt, belt, strap, 0.055)
        yield Part(
            (side * 0.135, 0.57, 0.0), (side * 0.14, 0.44, 0.0), (0.03, 0.038, 0.036), (0.07, 0.08, 0.075), bag, 0.02
        )
