"""The protocols of `test` beside the usual one: multi-query, one gallery image a person, every image searching all."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from reid_cckd.commands.subjects import Subject, open_subject, usual_output
from reid_cckd.engine import Embeddings, local_device, pick_device, rank
from reid_cckd.errors import ConfigError, UserError
from reid_cckd.evaluation import evaluate_recall, evaluate_single_shot, pool_queries
from reid_cckd.files import write_json
from reid_cckd.report import format_table, provenance


def pooled(subject: Subject) -> Subject:
    """The same with one query a person and camera, the mean of its images."""
    query = subject.query
    vectors, first = pool_queries(query.vectors, query.labels, query.cameras)
    return replace(subject, query=replace(query.take(first), vectors=vectors))


def test_otherwise(arguments: argparse.Namespace) -> None:
    """`--protocol single-shot` or `recall`: a table and report.json."""
    refused = ("rerank", "expand", "bootstrap", "compare", "save_embeddings")
    given = [name for name in refused if getattr(arguments, name) is not None]
    if given:
        raise ConfigError(f"--{given[0].replace('_', '-')} does not go with --protocol {arguments.protocol}.")
    try:
        scores, source = _recall(arguments) if arguments.protocol == "recall" else _single_shot(arguments)
    except (ValueError, TypeError) as error:
        raise UserError(f"{arguments.source}: {error}") from error
    if rank() != 0:
        return
    shares = [key for key, value in scores.items() if isinstance(value, float)]
    print(format_table([scores], percent=shares))
    report = {"scores": scores, "protocol": arguments.protocol, "provenance": provenance(checkpoint_sha256=source)}
    write_json((arguments.output or usual_output(arguments.source)) / "report.json", report)
    if arguments.json:
        write_json(arguments.json, report)


def _recall(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Every image of role "test", or where there is none every one that is not for training, searches the others."""
    rows = Embeddings.load(arguments.source)
    role = "test" if (rows.roles == "test").any() else None
    kept = np.flatnonzero(rows.roles == role if role else rows.roles != "train")
    if not len(kept):
        raise UserError(f"{arguments.source} holds images for training only; extract those to test on.")
    part = rows.take(kept)
    return evaluate_recall(part.vectors, part.labels, device=local_device(pick_device())).summary(), rows.source


def _single_shot(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    subject = open_subject(arguments.source, arguments.overrides, arguments.gallery)
    query, gallery, settings = subject.query, subject.gallery, subject.settings
    labels, cameras = (query.labels, gallery.labels), (query.cameras, gallery.cameras)
    options: dict[str, Any] = {"cameras": settings.cameras, "device": subject.device}
    result = evaluate_single_shot(query.vectors, gallery.vectors, *labels, *cameras, settings.ranks, **options)
    rates = {f"rank{rank}": value for rank, value in result.cmc.items()}
    spread = {f"rank{rank}_std": value for rank, value in result.std.items()}
    counts = {name: getattr(result, name) for name in ("num_valid_queries", "num_queries", "repeats")}
    return {**rates, **spread, **counts, "camera_policy": result.camera_policy}, query.source
