"""`reid-cckd runs FOLDER ...`: runs as a table, seeds of one configuration as mean ± standard deviation, and curves."""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from reid_cckd.commands.console import make_parser, run
from reid_cckd.commands.sameness import FREE, REPORT, learned_from, read_report, settings_of
from reid_cckd.commands.study_table import mean_and_deviation
from reid_cckd.engine import RunLog
from reid_cckd.errors import DataError
from reid_cckd.files import write_json
from reid_cckd.report import format_table, score_heading, training_curves

EXAMPLES = """\
  reid-cckd runs runs/omniglot
  reid-cckd runs runs/omniglot --json omniglot.json --markdown
  reid-cckd runs runs/omniglot/student runs/omniglot/kd runs/omniglot/cckd --plot curves.png"""

LEFT_OUT = ("rank10",)  # of the table, which is wide enough


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    text = (
        "Compare runs. Finished ones that differ in seed and output alone become one row, mean ± std; "
        "those without scores, still under way or of no test set, are listed below with what their log says."
    )
    parser = make_parser("runs", text, EXAMPLES)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of runs, searched for report.json and log.jsonl")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves of all runs found over each other")
    return run(_command, parser, argv)


def _command(arguments: argparse.Namespace) -> None:
    logs = _below(arguments.folders, "log.jsonl")
    reports = [path for path in _below(arguments.folders, REPORT) if path.with_name("config.yaml").exists()]
    if not reports and not logs:
        raise DataError(f"No report.json or log.jsonl below {', '.join(map(str, arguments.folders))}.")
    style: Literal["plain", "markdown"] = "markdown" if arguments.markdown else "plain"
    read = {path: read_report(path) for path in reports}
    rows = summarise(read)
    if rows:
        scores = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in ("name", "seeds")]
        headings = {"name": "name", "seeds": "seeds", **{key: score_heading(key) for key in scores}}
        print(format_table(rows, headings, percent=scores, style=style))
    scored = {path.parent for path, report in read.items() if report.get("scores")}
    if others := [_progress(log) for log in logs if log.parent not in scored]:
        print(f"\nwithout scores:\n{format_table(others, percent=['mean_ap'], style=style)}")
    if arguments.json:
        write_json(arguments.json, rows)
    if arguments.plot:
        _plot(arguments.plot, logs)


def _below(folders: Sequence[Path], name: str) -> list[Path]:
    """Each once, however often its folder is named."""
    found = [path for folder in folders for path in sorted(folder.rglob(name))]
    return list({path.resolve(): path for path in reversed(found)}.values())[::-1]


def summarise(reports: Mapping[Path, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a configuration, best main score first; a score is (mean, sample standard deviation) over its seeds.

    A seed counts once: of a run that was copied, or trained a second time, there are two rows.
    """
    groups: dict[tuple[str, int], list[tuple[Path, dict[str, Any]]]] = defaultdict(list)
    turns = Counter[tuple[str, int]]()
    for path, report in reports.items():
        if not report.get("scores") or not report.get("provenance", {}).get("config"):  # of another command
            continue
        same, seed = _identity(report), report["provenance"]["config"].get("seed", 0)
        groups[same, turns[same, seed]].append((path, report))
        turns[same, seed] += 1
    ordered = sorted(groups.values(), key=lambda group: -statistics.mean(_main_score(report) for _, report in group))
    names = _row_names([[path.parent for path, _ in group] for group in ordered])
    return [{"name": name, **_row(group)} for name, group in zip(names, ordered, strict=True)]


def _main_score(report: dict[str, Any]) -> float:
    return float(report["scores"][report.get("main", "mean_ap")])  # reports did not always name it


def _identity(report: dict[str, Any]) -> str:
    """What runs that may be averaged have in common: everything but seed, place, and machine."""
    settings = settings_of(report["provenance"]["config"])
    teacher = learned_from(report) or settings.get("teacher.checkpoint")
    shared = {key: value for key, value in settings.items() if key not in ("seed", "output", *FREE)}
    return json.dumps([shared, teacher, report["protocol"]], sort_keys=True)


def _row(group: Sequence[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    names = [name for name in group[0][1]["scores"] if name not in LEFT_OUT]
    scores = {name: mean_and_deviation([report["scores"][name] for _, report in group]) for name in names}
    return {"seeds": len(group), **scores}


def _row_names(groups: Sequence[Sequence[Path]]) -> list[str]:
    """The folder shared by all seeds, or the first run's own; with as much of its path as tells rows apart."""
    chosen = [one[0].parent if len(one) > 1 and len({run.parent for run in one}) == 1 else one[0] for one in groups]
    known = list(dict.fromkeys(chosen))
    names = dict(zip(known, short_names(known), strict=True))
    return [names[folder] for folder in chosen]


def _progress(log: Path) -> dict[str, Any]:
    """The newest values of a run that has no scores, or none yet."""
    newest: dict[str, Any] = {}
    for row in RunLog(log).rows():
        newest |= row | row.get("system", {})
    kept = {key: newest.get(key) for key in ("epoch", "step", "loss", "mean_ap", "images_per_second", "memory_mb")}
    state = "finished" if log.with_name(REPORT).exists() else "under way, or stopped"
    return {"name": str(log.parent), "state": state, **kept}


def _plot(path: Path, logs: Sequence[Path]) -> None:
    names = short_names([log.parent for log in logs])
    runs = {name: rows for name, log in zip(names, logs, strict=True) if (rows := RunLog(log).rows())}
    try:
        training_curves(path, runs)
    except ValueError as error:
        raise DataError(f"Nothing to plot: {error}.") from error
    print(f"\ncurves: {path}")


def short_names(folders: Sequence[Path]) -> list[str]:
    """Of different folders as many last parts of each path as tell them apart."""
    for length in range(1, max((len(folder.parts) for folder in folders), default=1) + 1):
        names = ["/".join(folder.parts[-length:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]
