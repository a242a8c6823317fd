"""`reid-cckd test CHECKPOINT [key=value ...]`, or `reid-cckd test --query Q.npz --gallery G.npz`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reid_cckd import build
from reid_cckd.assess import Judge, evaluate_embeddings, protocol, scores
from reid_cckd.commands.console import make_parser, run
from reid_cckd.commands.reporting import print_scores, report_network
from reid_cckd.config import Evaluation, config_from_dict, to_dict
from reid_cckd.engine import Embeddings, pick_device
from reid_cckd.errors import ConfigError, UserError
from reid_cckd.files import write_json
from reid_cckd.report import provenance

EXAMPLES = """\
  reid-cckd test runs/omniglot/cckd/last.pt
  reid-cckd test runs/msmt17/cckd/last.pt data.root=/data/msmt17 evaluation.flip=false --json result.json
  reid-cckd test runs/msmt17/cckd/last.pt data.dataset=market1501 data.root=/data/market --output runs/cross
  reid-cckd test runs/msmt17/cckd/last.pt --save-embeddings runs/msmt17/cckd
  reid-cckd test --query runs/msmt17/cckd/query.npz --gallery runs/msmt17/cckd/gallery.npz"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    text = "Evaluate a checkpoint on its own data set or another, or evaluate saved embeddings."
    parser = make_parser("test", text, EXAMPLES)
    parser.add_argument("checkpoint", nargs="?", type=Path, help="last.pt or best.pt of a run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="data.* and evaluation.* keys to change")
    parser.add_argument("--query", type=Path, help="saved embeddings of the queries (.npz), instead of a checkpoint")
    parser.add_argument("--gallery", type=Path, help="saved embeddings of the gallery (.npz)")
    parser.add_argument(
        "--convention", help="of saved embeddings", choices=("torchreid", "market1501"), default="torchreid"
    )
    parser.add_argument(
        "--cameras", help="of saved embeddings", choices=("exclude-same", "ignore"), default="exclude-same"
    )
    parser.add_argument("--output", type=Path, help="where report.json and ranks.png go (default: CHECKPOINT's test/)")
    parser.add_argument("--save-embeddings", type=Path, metavar="FOLDER", help="write query.npz and gallery.npz there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to this file too")
    return run(_command, parser, argv)


def _command(arguments: argparse.Namespace) -> None:
    saved = arguments.query is not None or arguments.gallery is not None
    if saved == (arguments.checkpoint is not None) or (arguments.query is None) != (arguments.gallery is None):
        raise ConfigError("Give either a CHECKPOINT, or both --query and --gallery.")
    report = _test_saved(arguments) if saved else _test_checkpoint(arguments)
    if arguments.json:
        write_json(arguments.json, report)


def _test_saved(arguments: argparse.Namespace) -> dict[str, Any]:
    query, gallery = Embeddings.load(arguments.query), Embeddings.load(arguments.gallery)
    if query.source != gallery.source:
        raise UserError(
            f"{arguments.query} and {arguments.gallery} come from different checkpoints ({query.source[:12]} and "
            f"{gallery.source[:12]}); extract both with the same one."
        )
    settings = Evaluation(convention=arguments.convention, cameras=arguments.cameras)
    try:
        result = evaluate_embeddings(query, gallery, settings)
    except ValueError as error:
        raise UserError(f"{arguments.query} against {arguments.gallery}: {error}") from error
    print_scores(str(arguments.query), scores(result))
    return {
        "scores": scores(result),
        "protocol": protocol(settings, result),
        "provenance": provenance(config=asdict(settings), checkpoint_sha256=query.source, device="cpu"),
    }


def _test_checkpoint(arguments: argparse.Namespace) -> dict[str, Any]:
    loaded = build.load_network(arguments.checkpoint)
    config = config_from_dict(to_dict(loaded.config), str(arguments.checkpoint), arguments.overrides)
    _refuse_other_changes(arguments.overrides)
    device = pick_device(config.train.device)
    manifest = build.read_manifest(config.data)
    judge = Judge(manifest, config.evaluation, config.data, device, build.precision(config, device))
    folder = arguments.output or arguments.checkpoint.parent / "test"
    network = loaded.network.to(device)
    if arguments.save_embeddings:
        for name, part in zip(("query", "gallery"), judge.embed(network, loaded.sha256), strict=True):
            part.save(arguments.save_embeddings / f"{name}.npz")
    return report_network(network, config, judge, loaded.sha256, folder)


def _refuse_other_changes(overrides: Sequence[str]) -> None:
    """A checkpoint's model is what it is; only what is measured can be changed."""
    allowed = ("data.", "evaluation.", "train.device", "train.amp")
    for override in overrides:
        if not override.startswith(allowed) or override.startswith("data.image_size"):
            raise ConfigError(f"{override}: a test changes data.*, evaluation.*, train.device or train.amp only.")
