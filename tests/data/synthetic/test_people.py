from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from reid_cckd.data.synthetic.camera import make_camera, make_visit, photograph
from reid_cckd.data.synthetic.figure import Placement, Pose, paint_person
from reid_cckd.data.synthetic.paint import Fabric, Floats, Light, Stroke, paint
from reid_cckd.data.synthetic.person import BAGS, HAIR, UPPER, Person, make_people

LIGHT = Light(0.3, 0.6)
FLAT = np.zeros((256, 128), np.float32)


def picture_of(person: Person, yaw: float) -> Floats:
    picture = np.full((256, 128, 3), 128, np.float32)
    paint_person(picture, person, Pose(yaw, 0.1, 0.4, 1.0), Placement(64, 240, 200), LIGHT, FLAT)
    return picture


def test_people_are_repeatable_and_independent_of_how_many_follow() -> None:
    assert make_people(20, seed=3) == make_people(50, seed=3)[:20]
    assert make_people(20, seed=3) != make_people(20, seed=4)
    assert not set(make_people(50, seed=3)) & set(make_people(50, seed=3, start=1))


def test_any_two_people_look_different() -> None:
    """Attributes that nobody can see (the colour of a bag not carried) must not be all that tells two people apart."""
    pictures = [np.stack([picture_of(person, yaw) for yaw in (0.2, 3.3)]) for person in make_people(40, seed=0)]
    for number, one in enumerate(pictures):
        for other in pictures[:number]:
            assert np.abs(one - other).max() > 10


def test_clothes_are_shared_and_some_people_are_dressed_alike() -> None:
    people = make_people(200, seed=0)
    clothes = [(person.top, person.upper, person.lower) for person in people]
    assert len(set(clothes)) < 0.75 * len(people)
    assert {person.upper for person in people} <= set(UPPER)


@pytest.mark.parametrize("field", [field.name for field in fields(Person)])
def test_every_attribute_can_be_seen(field: str) -> None:
    base = make_people(1, seed=0)[0]
    base = replace(
        base, hairstyle="cap", top="jacket", pattern="stripes", bottom="trousers", carried="handbag", bag_side=1
    )
    other = {
        "hairstyle": "long", "top": "tee", "pattern": "checks", "bottom": "shorts", "carried": "backpack",
        "bag_side": -1, "height": base.height * 0.9, "build": base.build * 1.2,
        "skin": (90, 60, 40) if base.skin != (90, 60, 40) else (230, 200, 170),
    }  # fmt: skip
    colours = [colour for colour in (*BAGS, *HAIR, *UPPER) if colour != getattr(base, field)]
    changed = replace(base, **{field: other.get(field, colours[-1])})
    seen = [np.abs(picture_of(base, yaw) - picture_of(changed, yaw)).max() for yaw in (0.3, 2.8)]
    assert max(seen) > 8


def test_front_and_back_differ() -> None:
    person = replace(make_people(1, seed=0)[0], carried="backpack", hairstyle="long")
    assert np.abs(picture_of(person, 0.0) - picture_of(person, np.pi)).max() > 30


def test_feet_stand_on_the_ground_through_the_whole_gait() -> None:
    person = make_people(1, seed=1)[0]
    for phase in np.linspace(0, 6, 7):
        picture = np.full((256, 128, 3), 128, np.float32)
        paint_person(picture, person, Pose(1.5, 0.0, 0.5, float(phase)), Placement(64, 230, 200), LIGHT, FLAT)
        lowest = np.flatnonzero(np.abs(picture - 128).max(axis=(1, 2)) > 5).max()
        assert 225 <= lowest <= 238


def test_paint_is_a_disc_for_a_stroke_without_length() -> None:
    picture = np.zeros((40, 40, 3), np.float32)
    paint(picture, Stroke((20, 20), (20, 20), (8, 8), Fabric((200, 200, 200))), Light(0, 1), FLAT)
    covered = float(picture[..., 0].sum() / 200)
    assert covered == pytest.approx(np.pi * 64, rel=0.02)


def test_paint_beyond_the_picture_is_harmless() -> None:
    picture = np.zeros((20, 20, 3), np.float32)
    for x in (-100.0, 19.0, 100.0):
        paint(picture, Stroke((x, -30), (x, 60), (5, 5), Fabric((255, 0, 0), "checks")), LIGHT, FLAT)
    assert picture[:, :10].max() == 0
    assert picture[:, 19].max() > 0


def test_cameras_see_one_person_in_different_colours() -> None:
    person, size = make_people(1, seed=0)[0], (64, 32)
    means = []
    for number in range(1, 7):
        camera = make_camera(number, size, seed=0)
        rng = np.random.default_rng(number)
        images = [photograph(person, camera, make_visit(camera, size, rng), size, rng) for _ in range(6)]
        assert all(image.shape == (64, 32, 3) and image.dtype == np.uint8 for image in images)
        means.append(np.mean(images, axis=(0, 1, 2)))
    assert np.ptp(np.array(means), axis=0).min() > 15
