"""`reid-cckd data check` and `reid-cckd data synth`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reid_cckd.build import read_manifest
from reid_cckd.commands.console import make_parser, run, run_action
from reid_cckd.config import Data
from reid_cckd.data import LAYOUTS, TWINS, Manifest, Numbers, check_manifest, ensure_pedestrians, write_twin
from reid_cckd.errors import ConfigError, DataError, did_you_mean
from reid_cckd.files import write_json

CHECK_EXAMPLES = """\
  reid-cckd data check --dataset msmt17 --root datasets/msmt17
  reid-cckd data check --dataset market1501 --root datasets/market1501 --json check.json
  reid-cckd data check --dataset recordio --root datasets/ms1mv3"""
SYNTH_EXAMPLES = """\
  reid-cckd data synth --root datasets/synthetic/pedestrians
  reid-cckd data synth recordio --root /tmp/faces --train-ids 50 --size 112 112
  reid-cckd data synth cifar100 --root /tmp/cifar
  reid-cckd data synth --root /tmp/big --train-ids 500 --test-ids 200 --images-per-id 24 --size 256 128"""

PEDESTRIANS = "pedestrians"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    actions = {"check": _check_main, "synth": _synth_main}
    return run_action("data", actions, f"{CHECK_EXAMPLES}\n{SYNTH_EXAMPLES}", argv)


def _check_main(argv: Sequence[str]) -> int:
    text = "Count a data set beside the published numbers and find images that cannot be read."
    parser = make_parser("data check", text, CHECK_EXAMPLES)
    parser.add_argument("--dataset", default="msmt17", help=f"its layout: {', '.join(LAYOUTS)}")
    parser.add_argument("--root", required=True, help="the folder that was unpacked")
    parser.add_argument("--workers", type=int, default=2, help="threads that decode (default 2)")
    parser.add_argument("--json", type=Path, help="also write the findings here")
    return run(_check, parser, argv)


def _check(arguments: argparse.Namespace) -> None:
    manifest = read_manifest(Data(root=arguments.root, dataset=arguments.dataset), "--dataset")
    report = check_manifest(manifest, workers=arguments.workers)
    print(report.table())
    if arguments.json:
        write_json(arguments.json, report.to_dict())
    if report.bad:
        raise DataError(f"{len(report.bad)} images cannot be read; replace them, or train with data.on_bad_image=skip.")


def _synth_main(argv: Sequence[str]) -> int:
    text = "Write synthetic pedestrians in the layout of MSMT17_V1, or a small twin of another data set in its format."
    parser = make_parser("data synth", text, SYNTH_EXAMPLES)
    parser.add_argument(
        "format", nargs="?", default=PEDESTRIANS, help=f"{PEDESTRIANS} (default), or one of {', '.join(TWINS)}"
    )
    parser.add_argument("--root", required=True, type=Path, help="where to write; a matching set is left as it is")
    parser.add_argument("--train-ids", type=int, help="people to train on (default 120), or all classes of a twin (12)")
    parser.add_argument("--test-ids", type=int, default=60, help="people to test on, of pedestrians only (default 60)")
    parser.add_argument("--images-per-id", type=int, help="images of each (default 24, of a twin 10)")
    parser.add_argument("--cameras", type=int, default=6, help="cameras, of pedestrians only (default 6)")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="default 128 64, of a twin 64 64"
    )
    parser.add_argument("--seed", type=int, default=0)
    return run(_synth, parser, argv)


def _synth(arguments: argparse.Namespace) -> None:
    given = {"images_per_id": arguments.images_per_id, "size": arguments.size and tuple(arguments.size)}
    given = {name: value for name, value in given.items() if value is not None}
    try:
        if arguments.format == PEDESTRIANS:
            manifest = _pedestrians(arguments, given)
        elif arguments.format in TWINS:
            ids = {} if arguments.train_ids is None else {"ids": arguments.train_ids}
            manifest = write_twin(arguments.format, arguments.root, Numbers(**ids, **given, seed=arguments.seed))
        else:
            known = [PEDESTRIANS, *TWINS]
            raise ConfigError(
                f"There is no format {arguments.format!r}: choose one of {', '.join(known)}."
                f"{did_you_mean(arguments.format, known)}"
            )
    except ValueError as error:
        raise ConfigError(f"{error}.") from error
    print(f"{len(manifest):,} images at {manifest.root}; look at them with: reid-cckd data check {_reading(arguments)}")


def _pedestrians(arguments: argparse.Namespace, given: dict[str, Any]) -> Manifest:
    people = 120 if arguments.train_ids is None else arguments.train_ids
    numbers: dict[str, Any] = {"images_per_id": 24, "size": (128, 64), **given}
    return ensure_pedestrians(
        arguments.root,
        train_ids=people,
        test_ids=arguments.test_ids,
        cameras=arguments.cameras,
        seed=arguments.seed,
        **numbers,
    )


def _reading(arguments: argparse.Namespace) -> str:
    dataset = "synthetic" if arguments.format == PEDESTRIANS else arguments.format
    return f"--dataset {dataset} --root {arguments.root}"
