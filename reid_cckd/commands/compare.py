"""`reid-cckd compare TEACHER STUDENT`: what a student keeps of its teacher, and whether it can search its gallery."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reid_cckd.assess import PLAIN
from reid_cckd.commands.console import make_parser, run, take_overrides
from reid_cckd.commands.reporting import ranked_rows
from reid_cckd.commands.sameness import source_of
from reid_cckd.commands.significance import comparison, refuse_other_images
from reid_cckd.commands.subjects import Subject, open_subject
from reid_cckd.commands.test import announce
from reid_cckd.data import Source
from reid_cckd.errors import ConfigError, UserError
from reid_cckd.evaluation import DistillationResult, evaluate_distillation
from reid_cckd.files import write_json
from reid_cckd.report import format_table, provenance, ranked_sheet

EXAMPLES = """\
  reid-cckd compare runs/msmt17/teacher/last.pt runs/msmt17/cckd/last.pt --output runs/msmt17/kept
  reid-cckd compare features/teacher features/cckd --output runs/kept data.root=/data/msmt17      with pictures"""

_SHOWN = 20  # queries in the report
_SEARCHES = 5  # either in its own gallery, the student in the teacher's, and the neighbours of either


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    text = "Retention of the teacher's mAP, agreement of the rankings, student queries in the teacher's gallery."
    parser = make_parser("compare", text, EXAMPLES)
    parser.add_argument("teacher", type=source_of, help="a run's folder, a checkpoint, or a folder of embeddings")
    parser.add_argument("student", type=source_of, help="another of the same images")
    take_overrides(parser, "data.* and evaluation.* keys to change")
    parser.add_argument("-k", type=int, default=10, help="neighbours whose agreement is measured (default 10)")
    parser.add_argument("--rows", type=int, default=6, help="queries on the picture sheet; 0 draws none (default 6)")
    parser.add_argument("--output", type=Path, required=True, help="where report.json and worse.png go")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to this file too")
    return run(_command, parser, argv)


def _command(arguments: argparse.Namespace) -> None:
    if arguments.k < 1 or arguments.rows < 0:
        raise ConfigError("-k is a number of neighbours from 1 up, and --rows a number of queries from 0 up.")
    teacher, student = (open_subject(source, arguments.overrides) for source in (arguments.teacher, arguments.student))
    refuse_other_images(student, teacher)
    wider = max(teacher, student, key=lambda subject: int(subject.gallery.vectors.shape[1]))
    announce(wider, PLAIN, searches=_SEARCHES)
    result = _evaluate(teacher, student, arguments.k)
    searches = result.summary()
    shares = ["mean_ap", "rank1", "mean_inp", "retention"]
    print(format_table(searches, ["search", *shares], percent=shares))
    print(f"The {result.k} nearest of a query agree by {100 * result.agreement:.1f} %.")
    if result.across is None:
        print("Their widths differ, so the student cannot search the teacher's gallery.")
    report = {
        "searches": searches,
        "retention": result.retention,
        "retention_across": result.retention_across,
        "agreement": result.agreement,
        "k": result.k,
        "comparison": comparison(student, result.student, teacher, result.teacher),
        "num_worse": len(result.worse),
        "worse": [_fall(result, student, query) for query in result.worse[:_SHOWN].tolist()],
        "provenance": provenance(
            config={"student": student.config, "teacher": teacher.config},
            checkpoint_sha256=student.query.source,
            device=str(student.device),
            teacher_sha256=teacher.query.source,
        ),
    }
    write_json(arguments.output / "report.json", report)
    if arguments.json:
        write_json(arguments.json, report)
    images = student.images or teacher.images
    if arguments.rows and images is not None and len(result.worse):
        _draw(arguments.output / "worse.png", teacher, student, result, images, arguments.rows)
    print(f"Report: {arguments.output}")


def _evaluate(teacher: Subject, student: Subject, k: int) -> DistillationResult:
    query, gallery, settings = student.query, student.gallery, student.settings
    try:
        return evaluate_distillation(
            teacher.query.vectors,
            teacher.gallery.vectors,
            query.vectors,
            gallery.vectors,
            query.labels,
            gallery.labels,
            query.cameras,
            gallery.cameras,
            settings.ranks,
            k=k,
            convention=settings.convention,
            cameras=settings.cameras,
            device=student.device,
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"{teacher.name} and {student.name}: {error}") from error


def _fall(result: DistillationResult, student: Subject, query: int) -> dict[str, Any]:
    ap = {"teacher_ap": float(result.teacher.ap[query]), "student_ap": float(result.student.ap[query])}
    label = student.query.labels[query].item()
    return {"query": str(student.query.paths[query]), "label": student.query.class_names.get(label, label), **ap}


def _draw(
    path: Path, teacher: Subject, student: Subject, result: DistillationResult, images: Source, count: int
) -> None:
    """The queries that fell most, each as the teacher ranks it and as the student does."""
    worst = result.worse[:count]
    each = [
        ranked_rows(subject, worst, images, [f"{who}: AP {100 * ap:.0f} %" for ap in score.ap[worst]])
        for who, subject, score in (("teacher", teacher, result.teacher), ("student", student, result.student))
    ]
    rows = [row for pair in zip(*each, strict=True) for row in pair]
    ranked_sheet(path, rows, f"Queries that got worse from {teacher.name} to {student.name}")
