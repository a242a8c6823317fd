"""Reports of classification, verification and identification: whatever a judge says, in report.json and a table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reid_cckd.assess import Judge, answer_of, build_judge
from reid_cckd.commands.reporting import cost, counts, score_table, write_queries
from reid_cckd.commands.subjects import open_checkpoint, usual_output
from reid_cckd.config import Config, config_from_dict, to_dict
from reid_cckd.engine import is_embeddings, load_checkpoint, rank
from reid_cckd.errors import ConfigError
from reid_cckd.files import write_json
from reid_cckd.models import Embedder
from reid_cckd.report import provenance


def task_of(source: Path, overrides: Sequence[str] = ()) -> str:
    """What a checkpoint is tested on; folders of embeddings are for retrieval.

    Raises:
        ConfigError: on nothing.
    """
    if is_embeddings(source) or not source.is_file():
        return "retrieval"
    config = config_from_dict(load_checkpoint(source, lazy=True)["config"], str(source), overrides)
    if not config.evaluation.is_scored:
        raise ConfigError(
            f"{source} was trained without a test set (evaluation.task: none). Name one, and what is measured on it, "
            "for example data.dataset=market1501 data.root=FOLDER evaluation.task=retrieval."
        )
    return config.evaluation.task


def test_judged(arguments: argparse.Namespace, task: str) -> None:
    """`reid-cckd test` of a checkpoint of a task other than retrieval.

    Raises:
        UserError: an option of retrieval, a key that cannot be changed here, or data that does not fit.
    """
    source = arguments.source
    if arguments.protocol not in ("retrieval", task):
        raise ConfigError(f"--protocol {arguments.protocol} is of retrieval or embeddings, and {source} is for {task}.")
    for name in ("gallery", "rerank", "expand", "bootstrap", "compare", "save_embeddings"):
        if getattr(arguments, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} is of retrieval, and {source} is for {task}.")
    tested = open_checkpoint(source, arguments.overrides)
    judge = build_judge(tested.config, tested.manifest, tested.device).for_classes(tested.classes)
    folder = arguments.output or usual_output(source, arguments.overrides)
    hashes = tested.sha256, tested.teacher_sha256
    report = report_judged(tested.network, tested.config, judge, folder, *hashes)
    if arguments.json and rank() == 0:
        write_json(arguments.json, report)


def report_judged(
    network: Embedder, config: Config, judge: Judge, folder: Path, sha256: str, teacher_sha256: str | None
) -> dict[str, Any]:
    """Evaluate a network, print its table and write report.json into ``folder``; nothing but the first on rank 1 up."""
    verdict = judge.verdict(network)
    if rank() != 0:
        return {}
    device = str(next(network.parameters()).device)
    measured = cost(network, answer_of(config.evaluation))
    report = {
        "main": judge.main,
        "scores": verdict.scores,
        "cost": measured,
        "protocol": verdict.protocol,
        "details": verdict.details,
        "data": {"name": judge.manifest.name, "counts": counts(judge.manifest)},
        "provenance": provenance(
            config=to_dict(config), checkpoint_sha256=sha256, teacher_sha256=teacher_sha256, device=device
        ),
    }
    write_json(folder / "report.json", report)
    if verdict.queries is not None:
        write_queries(folder / "queries.csv", *verdict.queries)
    print(score_table([{"name": Path(config.output).name, **verdict.scores, **measured}]))
    print(f"Report: {folder}")
    return report
