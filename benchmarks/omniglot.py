"""Omniglot as MSMT17, and four more layouts of it, to measure on.

python benchmarks/omniglot.py msmt17 ARCHIVE FOLDER   FOLDER/MSMT17_V1 from the official images_background_small1 and
                                                      ..._small2 (or images_background), unpacked in ARCHIVE
python benchmarks/omniglot.py split FOLDER OTHER      the split inside out: tests on three alphabets that the first
                                                      one trains on, and trains on its test alphabets, each turned
                                                      four ways, and on the two alphabets that remain
python benchmarks/omniglot.py faces FOLDER FACES      MegaFace's layout: the test characters as they are are the
                                                      people, turned by 90, 180 and 270 degrees the distractors
python benchmarks/omniglot.py classes FOLDER CLASSES  train/CLASS/* and test/CLASS/*: the 544 training characters, to
                                                      be told from what the last four drawers of each wrote
python benchmarks/omniglot.py skewed FOLDER SKEWED    of the training characters the commonest keeps its 20 images, the
                                                      rarest 2, and the others lie between; tested on the same ones
"""

from __future__ import annotations

import argparse
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

HOME = "MSMT17_V1"
KEPT = ("balinese", "earlyaramaic")
TESTED = ("greek", "korean", "latin")
UNSEEN = ("japanesekatakana", "sanskrit", "tagalog")  # of the first split, which trains on the others
QUARTERS = {0: None, 90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
MOST, LEAST = 20, 2  # images of the commonest and of the rarest character of a skewed set
QUERIES = 4  # of the twenty drawers of a character, as in the first split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layout", choices=LAYOUTS)
    parser.add_argument("source", type=Path, help="the folder that holds MSMT17_V1, or the archive")
    parser.add_argument("target", type=Path, help="where the new layout goes; must not exist")
    arguments = parser.parse_args()
    arguments.target.mkdir(parents=True)
    LAYOUTS[arguments.layout](arguments.source, arguments.target)


def write_msmt17(source: Path, target: Path) -> None:
    folders, scratch = alphabets_in(source), target / "drawn"
    seen = (*KEPT, *TESTED)
    trained = [images for angle in QUARTERS for images in drawn(folders, seen, scratch / str(angle), angle)]
    tested = list(drawn(folders, UNSEEN, scratch / "unseen", None))
    write_parts(target / HOME, trained, tested)
    shutil.rmtree(scratch)


def alphabets_in(source: Path) -> dict[str, Path]:
    """The folder of each alphabet that is needed, by the letters of its name."""
    found = {"".join(filter(str.isalpha, path.name)).lower(): path for path in source.rglob("*") if path.is_dir()}
    missing = [name for name in (*KEPT, *TESTED, *UNSEEN) if name not in found]
    if missing:
        raise SystemExit(f"{source} holds no folder of {', '.join(missing)}; unpack both small background sets there.")
    return found


def drawn(
    folders: dict[str, Path], alphabets: tuple[str, ...], target: Path, angle: int | None
) -> Iterator[list[Path]]:
    """The images of each character by drawer, 64 x 64, turned and written under the names of the layout."""
    turn, suffix = QUARTERS[angle or 0], "" if angle is None else str(angle)
    for alphabet in alphabets:
        for character in sorted(folders[alphabet].iterdir()):
            place = target / alphabet / character.name
            place.mkdir(parents=True)
            for number, path in enumerate(sorted(character.iterdir())):
                image = Image.open(path).convert("RGB").resize((64, 64), Image.Resampling.LANCZOS)
                name = f"0000_{number:03d}_{number + 1:02d}_{alphabet}{suffix}_{number:04d}_0.jpg"
                (image if turn is None else image.transpose(turn)).save(place / name, quality=90)
            yield sorted(place.iterdir())


def write_split(source: Path, target: Path) -> None:
    home, scratch = source / HOME, target / "turned"
    trained = list(of_alphabets(home / "train", KEPT, range(0, 360, 90)))
    trained += [images for angle in QUARTERS for images in turned(home / "test", scratch / str(angle), angle)]
    tested = list(of_alphabets(home / "train", TESTED, [0]))
    write_parts(target / HOME, trained, tested)
    shutil.rmtree(scratch)


def write_faces(source: Path, target: Path) -> None:
    test = source / HOME / "test"
    people = list(turned(test, target / "facescrub", 0))
    angles = [angle for angle in QUARTERS if angle]
    others = [one for angle in angles for one in turned(test, target / "megaface" / str(angle), angle)]
    print(f"{target}: {len(people)} people, {sum(map(len, others))} distractors")


def write_classes(source: Path, target: Path) -> None:
    classes = list(identities(source / HOME / "train"))
    for images in classes:
        for part, chosen in (("train", images[:-QUERIES]), ("test", images[-QUERIES:])):
            place = target / part / images[0].parent.name
            place.mkdir(parents=True)
            for path in chosen:
                shutil.copyfile(path, place / path.name)
    print(f"{target}: {len(classes)} classes")


def write_skewed(source: Path, target: Path) -> None:
    """Which character is a rare one, and what it keeps, is drawn from seed 0."""
    train, test = (list(identities(source / HOME / part)) for part in ("train", "test"))
    draw, steps = random.Random(0), len(train) - 1
    sizes = [round(MOST * (LEAST / MOST) ** (place / steps)) for place in range(steps + 1)]
    draw.shuffle(sizes)
    write_parts(target / HOME, [sorted(draw.sample(one, size)) for one, size in zip(train, sizes, strict=True)], test)


def identities(part: Path) -> Iterator[list[Path]]:
    """The images of each identity, by drawer."""
    for folder in sorted(part.iterdir()):
        yield sorted(folder.iterdir())


def of_alphabets(part: Path, alphabets: tuple[str, ...], angles: range | list[int]) -> Iterator[list[Path]]:
    """Those of these alphabets, so turned."""
    wanted = {f"{alphabet}{angle}" for alphabet in alphabets for angle in angles}
    return (images for images in identities(part) if images[0].name.split("_")[3] in wanted)


def turned(part: Path, target: Path, angle: int) -> Iterator[list[Path]]:
    """The images of each identity by drawer, turned and written into a folder of the same name."""
    turn = QUARTERS[angle]
    for folder in sorted(part.iterdir()):
        place = target / folder.name
        place.mkdir(parents=True)
        for path in folder.iterdir():
            image = Image.open(path)
            (image if turn is None else image.transpose(turn)).save(place / path.name, quality=95)
        yield sorted(place.iterdir())


def write_parts(home: Path, trained: list[list[Path]], tested: list[list[Path]]) -> None:
    """Both halves of a set in MSMT17's layout."""
    write_part(home, "train", trained, {"train": 0, "val": 18})
    write_part(home, "test", tested, {"query": 0, "gallery": QUERIES})
    print(f"{home}: {len(trained)} identities to train on, {len(tested)} to test on")


def write_part(target: Path, part: str, identities: list[list[Path]], lists: dict[str, int]) -> None:
    """Folders 0000, 0001, ... of images and the list files; a list begins at that image of each identity."""
    ends = [*list(lists.values())[1:], None]
    lines: dict[str, list[str]] = {name: [] for name in lists}
    for label, images in enumerate(identities):
        folder = target / part / f"{label:04d}"
        folder.mkdir(parents=True)
        names = [f"{label:04d}_{path.name.split('_', 1)[1]}" for path in images]
        for path, name in zip(images, names, strict=True):
            shutil.copyfile(path, folder / name)
        for (listed, start), end in zip(lists.items(), ends, strict=True):
            lines[listed] += [f"{folder.name}/{name} {label}\n" for name in names[start:end]]
    for listed, content in lines.items():
        (target / f"list_{listed}.txt").write_text("".join(content), encoding="utf-8")


LAYOUTS = {
    "msmt17": write_msmt17,
    "split": write_split,
    "faces": write_faces,
    "classes": write_classes,
    "skewed": write_skewed,
}


if __name__ == "__main__":
    main()
