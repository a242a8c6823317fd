"""`reid-cckd verify EMBEDDINGS --pairs LIST` or `--ijb META`: pairs of one person against pairs of two."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reid_cckd.commands.console import make_parser, run
from reid_cckd.commands.progress import readable_bytes, readable_seconds
from reid_cckd.data.ijb import IJB, Subjects, read_detection_scores, read_ijb
from reid_cckd.data.megaface import rows_of
from reid_cckd.data.pair_lists import read_pair_list
from reid_cckd.data.pairs import read_pairs
from reid_cckd.engine import Embeddings, pick_device
from reid_cckd.errors import ConfigError, UserError
from reid_cckd.evaluation import evaluate_open_set, evaluate_pairs, pair_rate, pool_templates, predict_pairs
from reid_cckd.evaluation.options import accepted
from reid_cckd.evaluation.verification import VerificationResult, roc
from reid_cckd.files import write_json
from reid_cckd.report import format_table, provenance, roc_curves

EXAMPLES = """\
  reid-cckd verify features/faces --pairs pairs.txt --output runs/pairs      a line: path, path, 1 or 0
  reid-cckd verify features/lfw --pairs /data/faces/lfw.bin --output runs/lfw
  reid-cckd verify features/ijbc --ijb IJBC/meta --output runs/ijbc          1:1, and 1:N where its files are there"""

PAIR_FARS = (1e-4, 1e-3, 1e-2)
_PAIRS = "threshold: squared distance out of 0, 0.01 ... 3.99, best on the other folds, which are consecutive"
IJB_FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    text = "10-fold accuracy, TAR at FAR and EER of pairs; templates, 1:1 and 1:N of IJB-B and IJB-C."
    parser = make_parser("verify", text, EXAMPLES)
    parser.add_argument("embeddings", type=Path, help="a folder of embeddings (extract, or features from-devkit)")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--pairs", type=Path, help="lfw.bin and its like, or text: two paths and 0 or 1 a line")
    what.add_argument("--ijb", type=Path, metavar="META", help="the meta folder of IJB-B or IJB-C")
    parser.add_argument(
        "--detection-scores", action="store_true", help="weight the images of --ijb by NAME_name_5pts_score.txt"
    )
    parser.add_argument("--folds", type=int, default=10, help="of consecutive pairs (default 10)")
    parser.add_argument("--fars", type=float, nargs="+", help="false accept rates (default 1e-4 ... as is customary)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--output", type=Path, required=True, help="where report.json and roc.png go")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to this file too")
    return run(_command, parser, argv)


def _command(arguments: argparse.Namespace) -> None:
    if arguments.detection_scores and arguments.ijb is None:
        raise ConfigError("--detection-scores goes with --ijb.")
    rows = Embeddings.load(arguments.embeddings)
    more: dict[str, Any] = {}
    try:
        if arguments.pairs is not None:
            result = _pairs(arguments, rows)
            more["protocol"] = {"pairs": arguments.pairs.name, "folds": arguments.folds, "definition": _PAIRS}
        else:
            result, more = _ijb(arguments, rows, read_ijb(arguments.ijb))
    except (ValueError, TypeError) as error:
        raise UserError(f"{arguments.embeddings}: {error}") from error
    summary = result.summary()
    rates = [key for key in summary if key.startswith(("tar@", "accuracy", "eer", "auc"))]
    row = {"pairs": result.num_same + result.num_different, **summary}
    print(format_table([row], ["pairs", *rates], percent=rates))
    _say_what_is_too_fine(result)
    report = {
        "scores": summary,
        **more,
        "provenance": provenance(checkpoint_sha256=rows.source, device=arguments.device, embeddings=dict(rows.about)),
    }
    write_json(arguments.output / "report.json", report)
    roc_curves(arguments.output / "roc.png", {arguments.embeddings.name: _curve(result)})
    if arguments.json:
        write_json(arguments.json, report)
    print(f"Report and picture: {arguments.output}")


def _say_what_is_too_fine(result: VerificationResult) -> None:
    """Below 1 / different pairs every rate is the same: it accepts none of them."""
    fine = [f"{far:g}" for far in result.tar if accepted(far, result.num_different) == 0]
    if fine:
        print(f"Of {result.num_different:,} different pairs FAR {', '.join(fine)} accepts none: TAR above all of them.")


def _pairs(arguments: argparse.Namespace, rows: Embeddings) -> VerificationResult:
    first, second, same = _listed(arguments.pairs)
    held, name = rows.paths.tolist(), str(arguments.pairs)
    sides = (rows_of(first, held, name), rows_of(second, held, name))
    return _evaluate(arguments, rows.vectors, sides, same, PAIR_FARS)


def _listed(path: Path) -> tuple[Sequence[str], Sequence[str], NDArray[np.bool_]]:
    """The paths of either side and the verdicts of a `.bin` of faces or of a text file."""
    if path.suffix == ".bin":
        found = read_pairs(path)
        return found.manifest.paths[::2], found.manifest.paths[1::2], found.same
    listed = read_pair_list(path)
    return listed.first, listed.second, listed.same


def _ijb(arguments: argparse.Namespace, rows: Embeddings, ijb: IJB) -> tuple[VerificationResult, dict[str, Any]]:
    faces = rows.take(rows_of(ijb.faces.paths, rows.paths.tolist(), str(arguments.ijb)))
    weights = read_detection_scores(ijb) if arguments.detection_scores else None
    templates, _ = pool_templates(faces.vectors, ijb.faces.templates, ijb.faces.media, weights)
    known = np.unique(ijb.faces.templates)
    sides = (np.searchsorted(known, ijb.pairs[0]), np.searchsorted(known, ijb.pairs[1]))
    result = _evaluate(arguments, templates, sides, ijb.pairs[2], IJB_FARS)
    protocol = "template: sum over media of the mean within each, L2; open set: non-mated probes of either gallery"
    weighted = "detection scores" if arguments.detection_scores else "none"
    more: dict[str, Any] = {"protocol": {"name": ijb.name, "definition": protocol, "weights": weighted}}
    if ijb.probes is not None:
        more["search"] = _search(templates, known, ijb, ijb.probes, pick_device(arguments.device))
        keys = [key for key in more["search"] if key.startswith(("rank", "tpir"))]
        print(format_table([more["search"]], keys, percent=keys))
    return result, more


def _evaluate(
    arguments: argparse.Namespace,
    vectors: NDArray[Any],
    sides: tuple[NDArray[np.int64], NDArray[np.int64]],
    same: NDArray[np.bool_],
    fars: Sequence[float],
) -> VerificationResult:
    device = pick_device(arguments.device)
    need = predict_pairs(len(vectors), len(same), vectors.shape[1])
    print(
        f"{len(same):,} pairs of {len(vectors):,} rows, width {vectors.shape[1]:,}: {readable_bytes(need.memory)} "
        f"beyond the inputs, about {readable_seconds(need.seconds(pair_rate(vectors.shape[1], device)))}",
        flush=True,
    )
    options: dict[str, Any] = {"folds": arguments.folds, "device": device}
    return evaluate_pairs(vectors, sides[0], sides[1], same, fars=arguments.fars or fars, **options)


def _search(
    templates: NDArray[np.float32], known: NDArray[np.int64], ijb: IJB, probes: Subjects, device: torch.device
) -> dict[str, float | list[dict[str, Any]]]:
    """1:N against each gallery, and the mean of the two."""
    wanted = templates[np.searchsorted(known, probes.templates)]
    each = []
    for gallery in ijb.galleries:
        enrolled = templates[np.searchsorted(known, gallery.templates)]
        each.append(evaluate_open_set(wanted, enrolled, probes.people, gallery.people, device=device).summary())
    rates = [key for key in each[0] if key.startswith(("rank", "tpir"))]
    return {**{key: float(np.mean([one[key] for one in each])) for key in rates}, "galleries": each}


def _curve(result: VerificationResult) -> dict[float, float]:
    """The ROC at rates of equal steps on its logarithmic axis, from the lowest that the pairs can show."""
    same = result.same
    fpr, tpr = roc(result.scores, same)
    lowest = np.log10(1 / result.num_different)
    points = np.logspace(min(-1, lowest), 0, 60)
    return {float(x): float(tpr[np.searchsorted(fpr, x, side="right") - 1]) for x in points}
