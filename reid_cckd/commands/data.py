"""`reid-cckd data check` and `reid-cckd data synth`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reid_cckd.build import read_manifest
from reid_cckd.commands.console import make_parser, run
from reid_cckd.config import Data
from reid_cckd.data import LAYOUTS, check_manifest, ensure_pedestrians
from reid_cckd.errors import DataError
from reid_cckd.files import write_json

CHECK_EXAMPLES = """\
  reid-cckd data check --dataset msmt17 --root datasets/msmt17
  reid-cckd data check --dataset market1501 --root datasets/market1501 --json check.json"""
SYNTH_EXAMPLES = """\
  reid-cckd data synth --root datasets/synthetic
  reid-cckd data synth --root /tmp/big --train-ids 500 --test-ids 200 --images-per-id 24 --size 256 128"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    actions = {"check": _check_main, "synth": _synth_main}
    if arguments and arguments[0] in actions:
        return actions[arguments[0]](arguments[1:])
    print(f"usage: reid-cckd data {{check,synth}} ...\n\nexamples:\n{CHECK_EXAMPLES}\n{SYNTH_EXAMPLES}")
    return 0 if arguments[:1] in (["-h"], ["--help"]) else 2


def _check_main(argv: Sequence[str]) -> int:
    text = "Count a data set beside the published numbers and find images that cannot be read."
    parser = make_parser("data check", text, CHECK_EXAMPLES)
    parser.add_argument("--dataset", default="msmt17", help=f"its layout: {', '.join(LAYOUTS)}")
    parser.add_argument("--root", required=True, help="the folder that was unpacked")
    parser.add_argument("--workers", type=int, default=2, help="threads that decode (default 2)")
    parser.add_argument("--json", type=Path, help="also write the findings here")
    return run(_check, parser, argv)


def _check(arguments: argparse.Namespace) -> None:
    manifest = read_manifest(Data(root=arguments.root, dataset=arguments.dataset))
    report = check_manifest(manifest, workers=arguments.workers)
    print(report.table())
    if arguments.json:
        write_json(arguments.json, report.to_dict())
    if report.bad:
        raise DataError(f"{len(report.bad)} images cannot be read; replace them, or train with data.on_bad_image=skip.")


def _synth_main(argv: Sequence[str]) -> int:
    parser = make_parser("data synth", "Write synthetic pedestrians in the layout of MSMT17_V1.", SYNTH_EXAMPLES)
    parser.add_argument("--root", required=True, type=Path, help="where to write; a matching set is left as it is")
    parser.add_argument("--train-ids", type=int, default=120, help="people to train on (default 120)")
    parser.add_argument("--test-ids", type=int, default=60, help="people to test on (default 60)")
    parser.add_argument("--images-per-id", type=int, default=24, help="images of each (default 24)")
    parser.add_argument("--cameras", type=int, default=6, help="cameras (default 6)")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 64), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--seed", type=int, default=0)
    return run(_synth, parser, argv)


def _synth(arguments: argparse.Namespace) -> None:
    manifest = ensure_pedestrians(
        arguments.root,
        train_ids=arguments.train_ids,
        test_ids=arguments.test_ids,
        images_per_id=arguments.images_per_id,
        cameras=arguments.cameras,
        size=tuple(arguments.size),
        seed=arguments.seed,
    )
    print(f"{len(manifest):,} images at {manifest.root}; see them with any image viewer.")
