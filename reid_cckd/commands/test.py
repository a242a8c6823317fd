"""`reid-cckd test CHECKPOINT [key=value ...]`, or `reid-cckd test FOLDER` of embeddings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from reid_cckd.assess import Refinement, evaluate_embeddings
from reid_cckd.commands.console import make_parser, run, take_overrides
from reid_cckd.commands.judged import task_of, test_judged
from reid_cckd.commands.progress import progress, readable_bytes, readable_seconds
from reid_cckd.commands.protocols import pooled, test_otherwise
from reid_cckd.commands.reporting import report_subject
from reid_cckd.commands.sameness import source_of
from reid_cckd.commands.significance import comparison, intervals
from reid_cckd.commands.subjects import Subject, open_subject, usual_output
from reid_cckd.engine import processes, rank
from reid_cckd.errors import ConfigError, UserError
from reid_cckd.evaluation import Reranking, RetrievalResult, predict_retrieval, product_rate
from reid_cckd.files import write_json

EXAMPLES = """\
  reid-cckd test runs/omniglot/cckd                           its last checkpoint
  reid-cckd test runs/msmt17/cckd/last.pt data.root=/data/msmt17 evaluation.flip=false --json result.json
  reid-cckd test runs/msmt17/cckd/last.pt data.dataset=market1501 data.root=/data/market
  reid-cckd test features/cckd --rerank                       embeddings that extract kept
  reid-cckd test features/cckd --expand 10 3 --bootstrap 2000 evaluation.convention=market1501
  torchrun --nproc-per-node 4 tools/test.py features/cckd    each process reads (of a checkpoint: embeds) a quarter
  reid-cckd test features/cub --protocol recall --bootstrap 2000 --compare features/cub_kd
  reid-cckd test features/cckd --compare features/kd          is cckd better than kd on these queries?"""

PROTOCOLS = ("retrieval", "multi-query", "single-shot", "recall")
_LARGE = 2**30  # query-gallery pairs from which the rate of this machine is measured for a prediction


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    text = "Evaluate a checkpoint on its own data set or another, or evaluate embeddings kept by extract."
    parser = make_parser("test", text, EXAMPLES)
    parser.add_argument("source", type=source_of, help="a run's folder, last.pt or best.pt; or a folder of embeddings")
    take_overrides(parser, "data.* and evaluation.* keys to change")
    parser.add_argument("--gallery", type=Path, metavar="FOLDER", help="take the gallery from these embeddings")
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default="retrieval", help="what is measured (default retrieval)"
    )
    parser.add_argument(
        "--rerank", nargs="*", type=float, metavar="N", help="k-reciprocal re-ranking; k1 k2 lambda (20 6 0.3)"
    )
    parser.add_argument("--expand", nargs="*", type=float, metavar="N", help="alpha query expansion; k alpha (10 3)")
    parser.add_argument(
        "--bootstrap", type=int, metavar="N", help="95 %% intervals of the scores by N resamples of people"
    )
    parser.add_argument("--compare", type=source_of, metavar="OTHER", help="paired test against a run or embeddings")
    parser.add_argument(
        "--output",
        type=Path,
        help="where report.json and pictures go (default: test/ in the run's or the embeddings' folder, on other data "
        "test_DATASET/)",
    )
    parser.add_argument("--save-embeddings", type=Path, metavar="FOLDER", help="keep query and gallery there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to this file too")
    return run(_command, parser, argv, together=True)


def _command(arguments: argparse.Namespace) -> None:
    with processes(torch.device("cpu")):
        _test(arguments)


def _test(arguments: argparse.Namespace) -> None:
    refinement = _refinement(arguments)
    if arguments.bootstrap is not None and arguments.bootstrap < 1:
        raise ConfigError(f"--bootstrap takes a number of resamples from 1 up, not {arguments.bootstrap}.")
    if (task := task_of(arguments.source, arguments.overrides)) != "retrieval":
        test_judged(arguments, task)
        return
    if arguments.protocol in ("recall", "single-shot"):
        test_otherwise(arguments)
        return
    subject = open_subject(arguments.source, arguments.overrides, arguments.gallery)
    if arguments.save_embeddings and rank() == 0:
        subject.query.joined(subject.gallery).save(arguments.save_embeddings)
    images = len(subject.query)
    if arguments.protocol == "multi-query":
        subject = pooled(subject)
    other = open_subject(arguments.compare, arguments.overrides) if arguments.compare else None
    result = evaluate(subject, refinement)
    more: dict[str, Any] = {}
    if arguments.bootstrap:
        more["intervals"] = intervals(subject, result, arguments.bootstrap)
    if other is not None:
        other = pooled(other) if arguments.protocol == "multi-query" else other
        more["comparison"] = comparison(subject, result, other, evaluate(other, refinement))
    if rank() != 0:
        return
    folder = arguments.output or usual_output(arguments.source, arguments.overrides)
    if arguments.protocol == "multi-query":
        more["queries"] = {"each": "mean of a person's images at a camera", "images": images}
    report = report_subject(subject, result, folder, refinement, more)
    if arguments.json:
        write_json(arguments.json, report)


def _refinement(arguments: argparse.Namespace) -> Refinement:
    try:
        return Refinement(_reranking(arguments.rerank), _expansion(arguments.expand))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _reranking(values: Sequence[float] | None) -> Reranking | None:
    if values is None:
        return None
    if len(values) not in (0, 3) or any(value % 1 for value in values[:2]):
        raise ValueError("--rerank takes nothing, or k1 k2 lambda, for example --rerank 20 6 0.3.")
    return Reranking(int(values[0]), int(values[1]), values[2]) if values else Reranking()


def _expansion(values: Sequence[float] | None) -> tuple[int, float] | None:
    if values is None:
        return None
    k, alpha = (*values, *(10, 3.0)[len(values) :]) if len(values) < 3 else (0, 0.0)
    if k < 1 or k % 1 or alpha < 0:
        raise ValueError(
            "--expand takes k alpha, a number of neighbours and a power from 0, for example --expand 10 3."
        )
    return int(k), alpha


def evaluate(subject: Subject, refinement: Refinement) -> RetrievalResult:
    """The metrics of a subject, what they need said first.

    Raises:
        UserError: embeddings that cannot be scored: not finite, zero, no query with a match.
    """
    announce(subject, refinement)
    parts = subject.query, subject.gallery, subject.settings
    try:
        with progress(f"rank {subject.name}", "queries") as show:
            return evaluate_embeddings(*parts, refinement=refinement, device=subject.device, progress=show)
    except (ValueError, TypeError) as error:
        raise UserError(f"{subject.name}: {error}") from error


def announce(subject: Subject, refinement: Refinement, searches: int = 1) -> None:
    """Print the memory that an evaluation takes, and where it is long the time of so many ``searches``."""
    queries, items, width = len(subject.query), len(subject.gallery), subject.gallery.vectors.shape[1]
    need = predict_retrieval(queries, items, width, refinement.reranking)
    text = f"{queries:,} queries x {items:,} gallery, width {width:,}: {readable_bytes(need.memory)} beyond the inputs"
    if queries * items >= _LARGE or refinement.reranking:
        text += f", about {readable_seconds(searches * need.seconds(product_rate(width, subject.device)))}"
    print(text, flush=True)
