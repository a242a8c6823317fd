"""Who the synthetic people are: attributes that stay the same in every photograph of one person."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

Colour = tuple[int, int, int]

BLACK, CHARCOAL, GREY, WHITE = (26, 26, 30), (64, 66, 72), (132, 134, 138), (226, 226, 222)
NAVY, BLUE, SKY, PURPLE = (28, 38, 78), (58, 96, 166), (150, 186, 216), (98, 66, 128)
RED, MAROON, PINK, ORANGE = (172, 40, 44), (96, 30, 40), (210, 142, 158), (206, 120, 52)
GREEN, OLIVE, BEIGE, YELLOW = (52, 98, 66), (98, 96, 60), (192, 172, 136), (214, 180, 66)
DENIM, FADED, BROWN, KHAKI = (46, 60, 98), (110, 134, 168), (94, 66, 46), (152, 132, 100)

# Black, grey and navy repeat, as in any street: clothes alone do not tell people apart.
UPPER = (
    *(BLACK, BLACK, BLACK, CHARCOAL, GREY, GREY, WHITE, WHITE, NAVY, NAVY, BLUE, SKY, RED, MAROON, PINK, GREEN),
    *(OLIVE, BEIGE, YELLOW, PURPLE, ORANGE),
)
LOWER = (BLACK, BLACK, BLACK, CHARCOAL, CHARCOAL, DENIM, DENIM, DENIM, FADED, KHAKI, GREY, BROWN, NAVY, WHITE, OLIVE)
SHOES = (BLACK, BLACK, WHITE, WHITE, BROWN, GREY, RED, BLUE)
BAGS = (BLACK, BLACK, BROWN, NAVY, RED, GREY, OLIVE, PINK)
SKIN = ((238, 200, 172), (224, 180, 146), (198, 150, 114), (150, 104, 74), (98, 66, 48))
HAIR = ((24, 20, 20), (24, 20, 20), (52, 36, 28), (92, 62, 40), (176, 140, 88), (120, 60, 36), (158, 156, 154))

TOPS = ("tee", "tee", "shirt", "shirt", "jacket", "jacket", "coat", "hoodie", "dress")
BOTTOMS = ("trousers", "trousers", "trousers", "slim", "slim", "shorts", "skirt", "long_skirt")
PATTERNS = ("plain", "plain", "plain", "stripes", "pinstripes", "checks", "logo", "block")
HAIRSTYLES = ("short", "short", "long", "long", "bun", "bald", "cap")
CARRIED = ("none", "none", "backpack", "backpack", "handbag", "shoulder_bag")


@dataclass(frozen=True)
class Person:
    """One identity. ``height`` and ``build`` are factors around 1; colours are RGB 0..255 in neutral light."""

    skin: Colour
    hairstyle: str
    hair: Colour
    cap: Colour
    top: str
    upper: Colour
    pattern: str
    accent: Colour
    bottom: str
    lower: Colour
    shoes: Colour
    carried: str
    bag: Colour
    bag_side: int
    height: float
    build: float


SUBTLE = ("hairstyle", "hair", "pattern", "shoes", "carried", "bag", "bag_side", "height", "build", "bottom")
RELATIVES = 0.4  # share of people dressed like somebody else


def make_people(count: int, seed: int, start: int = 0) -> list[Person]:
    """``count`` different people; some differ from another one in two or three subtle attributes only.

    ``start`` opens another sequence of the same seed, so that training and test people are drawn independently.
    """
    rng = np.random.default_rng([seed, 1, start])
    strangers: list[Person] = []
    people: dict[Person, None] = {}
    while len(people) < count:
        person = stranger(rng)
        if strangers and rng.random() < RELATIVES:
            model = strangers[rng.integers(len(strangers))]
            person = _relative(model, person, rng)
            if _differences(model, person) < 2:
                continue
        elif person not in people:
            strangers.append(person)
        people[person] = None
    return list(people)


def stranger(rng: np.random.Generator) -> Person:
    """Anybody, dressed from the common palettes."""

    def pick(choices: tuple[Any, ...]) -> Any:
        return choices[rng.integers(len(choices))]

    person = Person(
        skin=pick(SKIN),
        hairstyle=pick(HAIRSTYLES),
        hair=pick(HAIR),
        cap=pick(BAGS),
        top=pick(TOPS),
        upper=pick(UPPER),
        pattern=pick(PATTERNS),
        accent=pick(UPPER),
        bottom=pick(BOTTOMS),
        lower=pick(LOWER),
        shoes=pick(SHOES),
        carried=pick(CARRIED),
        bag=pick(BAGS),
        bag_side=pick((-1, 1)),
        height=pick((0.90, 0.96, 1.02, 1.08)),
        build=pick((0.82, 0.95, 1.08, 1.25)),
    )
    return _visible(person)


def _visible(person: Person) -> Person:
    """``person`` with one fixed value for what nobody can see, so that different people look different."""
    hidden: dict[str, Any] = {}
    if person.hairstyle == "bald":
        hidden["hair"] = BLACK
    if person.hairstyle != "cap":
        hidden["cap"] = BLACK
    if person.carried == "none":
        hidden.update(bag=BLACK, bag_side=1)
    if person.carried == "backpack":
        hidden["bag_side"] = 1
    if person.top == "dress":
        hidden.update(lower=person.upper, bottom="skirt")
    if person.pattern == "plain" and person.top not in ("jacket", "coat"):
        hidden["accent"] = BLACK
    return replace(person, **hidden)


def _differences(one: Person, other: Person) -> int:
    return sum(getattr(one, field.name) != getattr(other, field.name) for field in fields(Person))


def _relative(model: Person, other: Person, rng: np.random.Generator) -> Person:
    """``model`` with three attributes of ``other`` that a glance misses."""
    names = [field.name for field in fields(Person) if field.name in SUBTLE]
    changed = rng.choice(len(names), size=3, replace=False)
    return _visible(replace(model, **{names[i]: getattr(other, names[i]) for i in changed}))
