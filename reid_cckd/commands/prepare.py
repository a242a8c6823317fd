"""`reid-cckd prepare FORMAT`: a data set as a RecordIO pack, as identity folders or as packed images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reid_cckd.build import read_manifest
from reid_cckd.commands.console import make_parser, run
from reid_cckd.commands.progress import progress, readable_bytes
from reid_cckd.commands.roles import of_roles
from reid_cckd.config import Data
from reid_cckd.data import LAYOUTS, ROLES, Converted, Identities, Manifest, PackedImages, RecordIO, convert
from reid_cckd.errors import ConfigError
from reid_cckd.files import write_json

EXAMPLES = """\
  reid-cckd prepare packed --dataset msmt17 --root datasets/msmt17 --size 256 128 --output /fast/msmt17
  reid-cckd prepare identities --dataset recordio --root datasets/ms1m --output datasets/ms1m_folders
  reid-cckd prepare recordio --dataset identities --root datasets/crops --size 112 112 --output datasets/crops_pack
  reid-cckd prepare recordio --dataset market1501 --root datasets/market1501 --roles train --output /tmp/market"""
TARGETS: dict[str, Any] = {"recordio": RecordIO, "identities": Identities, "packed": PackedImages}
SHOWN = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    text = (
        "Write a data set in another format and compare it with its source, image by image.\n\n"
        "  recordio    a pack (.rec, .idx, property): few files, for millions of images\n"
        "  identities  one folder of image files for each person\n"
        "  packed      images decoded once to one size, which training maps into memory; keeps roles and cameras\n\n"
        "Interrupted, the same command goes on where it was. Nothing is written over; what is there is complete."
    )
    parser = make_parser("prepare", text, EXAMPLES)
    parser.add_argument("format", choices=TARGETS)
    parser.add_argument("--dataset", required=True, help=f"layout of the source: {', '.join(LAYOUTS)}")
    parser.add_argument("--root", required=True, help="the source's folder, or its file")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="a new folder")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of packed images; others keep their size and their bytes unless told",
    )
    parser.add_argument("--roles", nargs="+", choices=ROLES, help="which images (all, for packed)")
    parser.add_argument(
        "--im2rec", action="store_true", help="a pack without header and identities, as im2rec makes it"
    )
    parser.add_argument("--workers", type=int, default=2, help="threads that read and decode (default 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was made to this file")
    return run(_command, parser, argv)


def _command(arguments: argparse.Namespace) -> None:
    options = _options(arguments)
    manifest = _chosen(read_manifest(Data(root=arguments.root, dataset=arguments.dataset), "--dataset"), arguments)
    target = TARGETS[arguments.format](manifest, **options)
    size, _ = target.needed()
    print(f"{manifest.name} at {manifest.root}: {len(manifest):,} images, about {readable_bytes(size)} to write.")
    made = convert(target, arguments.output, progress)
    print(_summary(made, arguments))
    if arguments.json:
        write_json(arguments.json, {**asdict(made), "bad": [image._asdict() for image in made.bad]})


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the format is made with.

    Raises:
        ConfigError: options that do not belong together.
    """
    if arguments.format == "packed" and arguments.size is None:
        raise ConfigError("Packed images have one size: give --size HEIGHT WIDTH, the data.image_size of training.")
    if arguments.size and min(arguments.size) < 1:
        raise ConfigError(f"--size {arguments.size[0]} {arguments.size[1]}: expected numbers of pixels above 0.")
    if arguments.workers < 1:
        raise ConfigError(f"--workers {arguments.workers}: expected a number of threads from 1 up.")
    if arguments.im2rec and arguments.format != "recordio":
        raise ConfigError("--im2rec goes with recordio.")
    size = tuple(arguments.size) if arguments.size else None
    return {"size": size, "workers": arguments.workers, **({"kind": "im2rec"} if arguments.im2rec else {})}


def _chosen(manifest: Manifest, arguments: argparse.Namespace) -> Manifest:
    """The images of the roles that were asked for.

    Raises:
        ConfigError: they have to be named, as the format does not keep them apart, or the source has none of them.
    """
    roles = [role for role in ROLES if (manifest.roles == role).any()]
    if arguments.roles is None and len(roles) > 1 and arguments.format != "packed":
        raise ConfigError(
            f"{manifest.name} holds images of the roles {', '.join(roles)}, which {arguments.format} does not tell "
            f"apart: name those to write, for example --roles {roles[0]}."
        )
    return of_roles(manifest, arguments.roles, roles)


def _summary(made: Converted, arguments: argparse.Namespace) -> str:
    size = f" data.image_size=[{arguments.size[0]},{arguments.size[1]}]" if arguments.format == "packed" else ""
    lines = [
        f"{arguments.output}: {made.images:,} images of {made.people:,} people or classes, "
        f"{readable_bytes(made.bytes)}; the table and {made.compared:,} images equal those of the source.",
        *([f"-> {len(made.bad):,} of them cannot be decoded, here as there:"] if made.bad else []),
        *(f"      {image.path}: {image.reason}" for image in made.bad[:SHOWN]),
        *([f"      ... and {len(made.bad) - SHOWN:,} more"] if len(made.bad) > SHOWN else []),
        f"Read it with data.dataset={arguments.format} data.root={arguments.output}{size}",
    ]
    return "\n".join(lines)
