"""The protocols of `test` beside the usual one: multi-query, one gallery image a person, every image searching all."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reid_cckd.assess import searchers
from reid_cckd.commands.reporting import write_queries
from reid_cckd.commands.significance import comparison, intervals
from reid_cckd.commands.subjects import Subject, changes, configured, open_subject, usual_output
from reid_cckd.config import Evaluation
from reid_cckd.data import refuse_unlabelled
from reid_cckd.engine import Embeddings, local_device, pick_device, rank
from reid_cckd.errors import ConfigError, UserError
from reid_cckd.evaluation import RecallResult, evaluate_recall, evaluate_single_shot, pool_queries
from reid_cckd.files import write_json
from reid_cckd.report import format_table, provenance

RECALL_RANKS = (1, 2, 4, 8)  # unless evaluation.ranks says others


def pooled(subject: Subject) -> Subject:
    """The same with one query a person and camera, the mean of its images.

    Raises:
        UserError: every query is the only one of its person and camera, so that nothing would be pooled.
    """
    query = subject.query
    try:
        vectors, first = pool_queries(query.vectors, query.labels, query.cameras)
    except (ValueError, TypeError) as error:
        raise UserError(f"{subject.name}: {error}") from error
    if len(first) == len(query):
        raise UserError(
            f"{subject.name}: no person has two queries at one camera, as in the folder query of Market-1501 and "
            "DukeMTMC, so multi-query would be single query under another name. Extract more queries, for Market-1501 "
            "those of gt_bbox (a CSV that lists them as query), and give the gallery with --gallery."
        )
    return replace(subject, query=replace(query.take(first), vectors=vectors))


def test_otherwise(arguments: argparse.Namespace) -> None:
    """`--protocol single-shot` or `recall`: a table and report.json, of recall queries.csv too."""
    recall = arguments.protocol == "recall"
    refused = ("rerank", "expand", "save_embeddings", *(("gallery",) if recall else ("bootstrap", "compare")))
    given = [name for name in refused if getattr(arguments, name) is not None]
    if given:
        raise ConfigError(f"--{given[0].replace('_', '-')} does not go with --protocol {arguments.protocol}.")
    folder = arguments.output or usual_output(arguments.source, arguments.overrides)
    try:
        subject, found = _recall(arguments, folder) if recall else _single_shot(arguments)
    except (ValueError, TypeError) as error:
        raise UserError(f"{arguments.source}: {error}") from error
    if rank() != 0:
        return
    shares = [key for key, value in found["scores"].items() if isinstance(value, float)]
    print(format_table([found["scores"]], percent=shares))
    source = provenance(checkpoint_sha256=subject.query.source, embeddings=dict(subject.query.about))
    report = {**found, "protocol": arguments.protocol, "provenance": source}
    write_json(folder / "report.json", report)
    if arguments.json:
        write_json(arguments.json, report)


def _recall(arguments: argparse.Namespace, folder: Path) -> tuple[Subject, dict[str, Any]]:
    config = configured(arguments.overrides, ("evaluation.ranks", "train.device"))
    ranks = config.evaluation.ranks if changes(arguments.overrides, "evaluation.ranks") else RECALL_RANKS
    device = local_device(pick_device(config.train.device))
    subject = _searching_itself(arguments.source, device)
    other = _searching_itself(arguments.compare, device) if arguments.compare else None
    result = _recalled(subject, ranks)
    found: dict[str, Any] = {"scores": result.summary()}
    if arguments.bootstrap:
        found["intervals"] = intervals(subject, result, arguments.bootstrap)
    if other is not None:
        found["comparison"] = comparison(subject, result, other, _recalled(other, ranks))
    if rank() == 0:
        write_queries(folder / "queries.csv", subject.query, result)
    return subject, found


def _searching_itself(source: Path, device: torch.device) -> Subject:
    """Embeddings of which some search each other."""
    if source.is_file():
        raise ConfigError(f"{source} is a checkpoint, which evaluation.task=recall lets search without --protocol.")
    rows = Embeddings.load(source)
    kept = np.flatnonzero(searchers(rows.roles))
    if not len(kept):
        raise UserError(f"{source} holds images for training only; extract those to test on.")
    part = rows.take(kept)
    refuse_unlabelled(part.labels, f"images of {source} that search each other")
    return Subject(source.name, part, part, Evaluation(), device, {})


def _recalled(subject: Subject, ranks: Sequence[int]) -> RecallResult:
    return evaluate_recall(subject.query.vectors, subject.query.labels, ranks, device=subject.device)


def _single_shot(arguments: argparse.Namespace) -> tuple[Subject, dict[str, Any]]:
    subject = open_subject(arguments.source, arguments.overrides, arguments.gallery)
    query, gallery, settings = subject.query, subject.gallery, subject.settings
    labels, cameras = (query.labels, gallery.labels), (query.cameras, gallery.cameras)
    options: dict[str, Any] = {"cameras": settings.cameras, "device": subject.device}
    result = evaluate_single_shot(query.vectors, gallery.vectors, *labels, *cameras, settings.ranks, **options)
    rates = {f"rank{rank}": value for rank, value in result.cmc.items()}
    spread = {f"rank{rank}_std": value for rank, value in result.std.items()}
    counts = {name: getattr(result, name) for name in ("num_valid_queries", "num_queries", "repeats")}
    return subject, {"scores": {**rates, **spread, **counts, "camera_policy": result.camera_policy}}
