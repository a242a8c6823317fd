"""Small twins of public data sets in their own formats, so that every reader and configuration can be tried at once."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from reid_cckd.data.cifar import CIFAR10, CIFAR100, Cifar
from reid_cckd.data.layouts import LAYOUTS, MARKET_STYLE, MarketStyle
from reid_cckd.data.manifest import Manifest
from reid_cckd.data.pack_writer import write_pack
from reid_cckd.data.recordio import MAGIC
from reid_cckd.data.staging import staged
from reid_cckd.data.synthetic.patterns import pattern
from reid_cckd.data.synthetic.pickles import write_cifar

LANDMARKS = (0.34, 0.46, 0.65, 0.46, 0.5, 0.64, 0.37, 0.82, 0.63, 0.82)  # eyes, nose, mouth: x and y


@dataclass(frozen=True)
class Numbers:
    """How large a twin is: people or classes, images of each, (H, W) of an image.

    Raises:
        ValueError: fewer than four classes, which leave nothing to test on, or than four images of each.
    """

    ids: int = 12
    images_per_id: int = 10
    size: tuple[int, int] = (64, 64)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.ids < 4 or self.images_per_id < 4 or min(self.size) < 8:
            raise ValueError(f"{self}: expected at least 4 ids, 4 images of each and 8 x 8 pixels")

    def jpeg(self, label: int, image: int) -> bytes:
        """Image number ``image`` of class ``label``."""
        buffer = io.BytesIO()
        rng = np.random.default_rng([self.seed, label, image])
        Image.fromarray(pattern(label, rng, self.size)).save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    def pairs(self, first: int = 0, last: int | None = None) -> Iterable[tuple[int, int]]:
        """(label, image) of every image of the classes ``first`` to ``last``, the last left out."""
        return [(label, i) for label in range(first, last or self.ids) for i in range(self.images_per_id)]


def write_twin(name: str, root: str | os.PathLike[str], numbers: Numbers) -> Manifest:
    """Write the twin ``name`` of `TWINS` at ``root``, or leave it when it is there, and read it.

    Raises:
        DataError: ``root`` holds something else. UserError: no space. KeyError: no such twin.
    """
    target, write = Path(root).expanduser().absolute(), TWINS[name]
    plan = {"kind": f"synthetic {name}", "revision": 1, **asdict(numbers), "size": list(numbers.size)}
    with staged(target, plan) as part:
        if part is not None:
            write(part, numbers)
    return LAYOUTS[name](target)


def write_class_folders(root: Path, numbers: Numbers) -> None:
    """ImageNet's: one image in five is held back for ``val``."""
    for label, image in numbers.pairs():
        role, name = ("val" if image % 5 == 0 else "train"), f"n{label:08d}"
        _write(root / role / name / f"{name}_{image}.JPEG", numbers.jpeg(label, image))


def write_identities(root: Path, numbers: Numbers) -> None:
    """One folder a person, as face sets are unpacked."""
    for label, image in numbers.pairs():
        _write(root / f"m.{label:06d}" / f"{image}.jpg", numbers.jpeg(label, image))


def write_recordio(root: Path, numbers: Numbers) -> None:
    """insightface's pack; one image in three holds the magic number, so that its record is cut into parts."""
    rows = list(numbers.pairs())

    def read(row: int) -> bytes:
        content = numbers.jpeg(*rows[row])
        padding = b"\0" * (-len(content) % 4)
        return content + padding + MAGIC + b"tail" + MAGIC if row % 3 == 0 else content

    write_pack(root / "train.rec", np.array([label for label, _ in rows]), read, size=numbers.size)
    for name in ("lfw", "cfp_fp"):
        write_pair_file(root / f"{name}.bin", numbers)


def write_pairs(root: Path, numbers: Numbers) -> None:
    """Two files of face pairs, one in each manner that is around."""
    write_pair_file(root / "lfw.bin", numbers)
    write_pair_file(root / "agedb_30.bin", numbers, arrays=True)


def write_pair_file(path: Path, numbers: Numbers, count: int = 40, arrays: bool = False) -> None:
    """``count`` pairs in turn of one person and of two."""
    images, same = [], []
    rng = np.random.default_rng([numbers.seed, len(path.name)])
    for number in range(count):
        first, second = rng.choice(numbers.ids, 2, replace=False).tolist()
        same.append(number % 2 == 0)
        images += [numbers.jpeg(first, 2 * number), numbers.jpeg(first if same[-1] else second, 2 * number + 1)]
    content = [np.frombuffer(image, np.uint8) for image in images] if arrays else images
    path.write_bytes(pickle.dumps((content, same), protocol=2 if arrays else 4))


def write_megaface(root: Path, numbers: Numbers) -> None:
    """Probes of half of the people, one distractor of each further class, lists, template lists, noise lists."""
    probes = {
        f"Person_{label:02d}/Person_{label:02d}_{image}.jpg": (label, image)
        for label, image in numbers.pairs(0, numbers.ids // 2)
    }
    distractors = {
        f"{number % 7:03d}/{number:04d}/{number}.jpg": (1000 + number, 0)
        for number in range(numbers.ids * numbers.images_per_id)
    }
    for folder, images in (("facescrub", probes), ("megaface", distractors)):
        for path, key in images.items():
            _write(root / folder / path, numbers.jpeg(*key))
        _lines(root / f"{folder}_lst", images)
    _lines(root / "facescrub_noises.txt", [path.split("/")[1] for path in list(probes)[:2]])
    _lines(root / "megaface_noises.txt", ["# of people in FaceScrub", *list(distractors)[:3]])
    templates = root / "templatelists"
    _json(
        templates / "facescrub_features_list.json",
        {"path": list(probes), "id": [path.split("/")[0] for path in probes]},
    )
    for scale in (10, len(distractors)):
        _json(templates / f"megaface_features_list.json_{scale}_1", {"path": list(distractors)[:scale]})


def write_ijb(root: Path, numbers: Numbers) -> None:
    """The meta files and crops of IJB-C: two templates a person, of stills and of one video each."""
    faces, pairs, landmarks = [], [], []
    points = [round(share * numbers.size[0], 2) for share in LANDMARKS]
    for label, image in numbers.pairs():
        name, template = f"{label * numbers.images_per_id + image + 1}.jpg", 2 * label + image % 2 + 1
        media = template * 1000 + (0 if image >= numbers.images_per_id // 2 else image)
        _write(root / "loose_crop" / name, numbers.jpeg(label, image))
        faces.append(f"{name} {template} {media}")
        landmarks.append(" ".join(map(str, [name, *points, 0.99])))
    for first in range(numbers.ids):
        for second in (first, (first + 1) % numbers.ids):
            pairs.append(f"{2 * first + 1} {2 * second + 2} {int(first == second)}")
    meta = root / "meta"
    _lines(meta / "ijbc_face_tid_mid.txt", faces)
    _lines(meta / "ijbc_template_pair_label.txt", pairs)
    _lines(meta / "ijbc_name_5pts_score.txt", landmarks)
    head = "TEMPLATE_ID,SUBJECT_ID,FILENAME"
    for name, templates in {
        "gallery_G1": range(1, 2 * numbers.ids, 4),
        "gallery_G2": range(3, 2 * numbers.ids, 4),
        "probe_mixed": range(2, 2 * numbers.ids + 1, 2),
    }.items():
        _lines(meta / f"ijbc_1N_{name}.csv", [head, *(f"{number},{(number - 1) // 2},img" for number in templates)])


def write_csv(root: Path, numbers: Numbers) -> None:
    """Train, query and gallery with cameras and superclasses; one training image in ten has no label."""
    rows = ["path,label,split,camera,superclass"]
    for label, image in numbers.pairs():
        path, camera = f"crops/{label:03d}/{image}.jpg", image % 3
        split = "train" if label < numbers.ids // 2 else "query" if image < 2 else "gallery"
        known = "" if split == "train" and image % 10 == 9 else label
        rows.append(f"{path},{known},{split},{camera},kind {label % 3}")
        _write(root / path, numbers.jpeg(label, image))
    _lines(root / "images.csv", rows)


def write_cub200(root: Path, numbers: Numbers) -> None:
    """Half of the classes below 101, half above, as its own lists number them."""
    images, labels = [], []
    for number, (label, image) in enumerate(numbers.pairs(), start=1):
        kind = 1 + label if label < numbers.ids // 2 else 101 + label
        path = f"{kind:03d}.Bird/{image}.jpg"
        _write(root / "images" / path, numbers.jpeg(label, image))
        images.append(f"{number} {path}")
        labels.append(f"{number} {kind}")
    _lines(root / "images.txt", images)
    _lines(root / "image_class_labels.txt", labels)


def write_sop(root: Path, numbers: Numbers) -> None:
    """Two lists with superclasses."""
    lists = {role: ["image_id class_id super_class_id path"] for role in ("train", "test")}
    for number, (label, image) in enumerate(numbers.pairs(), start=1):
        path, kind = f"kind{label % 3}_final/{number}_{image}.JPG", label % 3 + 1
        _write(root / path, numbers.jpeg(label, image))
        lists["train" if label < numbers.ids // 2 else "test"].append(f"{number} {label + 1} {kind} {path}")
    for role, lines in lists.items():
        _lines(root / f"Ebay_{role}.txt", lines)


def write_inshop(root: Path, numbers: Numbers) -> None:
    """The partition of In-shop below Eval/, images below Img/."""
    rows = []
    for label, image in numbers.pairs():
        role = "train" if label < numbers.ids // 2 else "query" if image < 2 else "gallery"
        path = f"img/WOMEN/Tees/id_{label:08d}/{image:02d}_1_front.jpg"
        _write(root / "Img" / path, numbers.jpeg(label, image))
        rows.append(f"{path}   id_{label:08d} {role}")
    head = [str(len(rows)), "image_name item_id evaluation_status"]
    _lines(root / "Eval" / "list_eval_partition.txt", head + rows)


def write_market_style(style: MarketStyle, root: Path, numbers: Numbers) -> None:
    """Half of the people to train on, and of the others a query from each camera and a gallery."""
    train, query, gallery = style.folders
    for label, image in numbers.pairs():
        folder = train if label < numbers.ids // 2 else query if image < 2 else gallery
        name = f"{label + 1:04d}_c{image % 2 + 1}s1_{image:06d}_01.jpg"
        _write(root / folder / name, numbers.jpeg(label, image))


def _cifar(kind: Cifar, root: Path, numbers: Numbers) -> None:
    write_cifar(root, kind, images_per_batch=numbers.ids * numbers.images_per_id, seed=numbers.seed)


TWINS: dict[str, Callable[[Path, Numbers], None]] = {
    "cifar10": partial(_cifar, CIFAR10),
    "cifar100": partial(_cifar, CIFAR100),
    "imagenet": write_class_folders,
    "class_folders": write_class_folders,
    "identities": write_identities,
    "recordio": write_recordio,
    "pairs": write_pairs,
    "megaface": write_megaface,
    "ijb": write_ijb,
    "csv": write_csv,
    "cub200": write_cub200,
    "sop": write_sop,
    "inshop": write_inshop,
    **{name: partial(write_market_style, style) for name, style in MARKET_STYLE.items()},
}


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
