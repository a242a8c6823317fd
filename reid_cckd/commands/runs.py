"""`reid-cckd runs FOLDER ...`: finished runs as a table, seeds of one configuration as mean ± standard deviation."""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from reid_cckd.commands.console import make_parser, run
from reid_cckd.errors import DataError
from reid_cckd.files import write_json
from reid_cckd.report import format_table, score_heading

EXAMPLES = """\
  reid-cckd runs runs/omniglot
  reid-cckd runs runs/omniglot --json omniglot.json --markdown"""

LEFT_OUT = ("rank10",)  # of the table, which is wide enough


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    text = "Compare finished runs; those that differ in seed and output alone become one row, mean ± std."
    parser = make_parser("runs", text, EXAMPLES)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of runs, searched for report.json")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    return run(_command, parser, argv)


def _command(arguments: argparse.Namespace) -> None:
    reports = [report for folder in arguments.folders for report in sorted(folder.rglob("report.json"))]
    if not reports:
        raise DataError(f"No report.json below {', '.join(map(str, arguments.folders))}; a run writes it at its end.")
    rows = summarise(reports)
    scores = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in ("name", "seeds")]
    headings = {"name": "name", "seeds": "seeds", **{key: score_heading(key) for key in scores}}
    style: Literal["plain", "markdown"] = "markdown" if arguments.markdown else "plain"
    print(format_table(rows, headings, percent=scores, style=style))
    if arguments.json:
        write_json(arguments.json, rows)


def summarise(reports: Sequence[Path]) -> list[dict[str, Any]]:
    """One row a configuration, best main score first; a score is (mean, sample standard deviation) over its seeds."""
    groups: dict[str, list[tuple[Path, dict[str, Any]]]] = defaultdict(list)
    for path in reports:
        report = json.loads(path.read_text(encoding="utf-8"))
        groups[_identity(report)].append((path, report))
    ordered = sorted(groups.values(), key=lambda group: -statistics.mean(_main_score(report) for _, report in group))
    return [_row(group) for group in ordered]


def _main_score(report: dict[str, Any]) -> float:
    return float(report["scores"][report.get("main", "mean_ap")])  # reports did not always name it


def _identity(report: dict[str, Any]) -> str:
    """What runs that may be averaged have in common: everything but seed, place, and machine."""
    config = {key: value for key, value in report["provenance"]["config"].items() if key not in ("seed", "output")}
    return json.dumps([config, report["protocol"]], sort_keys=True)


def _row(group: Sequence[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    folders = [path.parent for path, _ in group]
    names = [name for name in group[0][1]["scores"] if name not in LEFT_OUT]
    scores = {name: [report["scores"][name] for _, report in group] for name in names}
    means = {name: (statistics.mean(values), _deviation(values)) for name, values in scores.items()}
    return {"name": _common_name(folders), "seeds": len(group), **means}


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _common_name(folders: Sequence[Path]) -> str:
    """The folder shared by all seeds, or the run's own."""
    parents = {folder.parent for folder in folders}
    return folders[0].name if len(folders) == 1 or len(parents) > 1 else folders[0].parent.name
