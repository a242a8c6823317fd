"""`reid-cckd reproduce table3`: a table of the paper, trained, evaluated and set beside what was published."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reid_cckd.commands.console import make_parser, run, take_overrides
from reid_cckd.commands.figures import draw_figures
from reid_cckd.commands.sameness import REPORT
from reid_cckd.commands.study_table import render, tabulate
from reid_cckd.commands.sweep import Sweep
from reid_cckd.config.expansion import StudyRun, expand_study
from reid_cckd.config.study import Published, Study, load_study
from reid_cckd.errors import ConfigError, did_you_mean
from reid_cckd.files import atomic_path
from reid_cckd.report import format_table, score_heading, score_plot

SCALES = {"paper": Path("configs/studies"), "small": Path("configs/studies/small")}

EXAMPLES = """\
  reid-cckd reproduce table3 --data /data/msmt17             MSMT17, ResNet-50 to ResNet-18, as published
  reid-cckd reproduce table3 --scale small --data /data/omniglot
  reid-cckd reproduce table7 --scale small --data /data/omniglot --seeds 5 train.epochs=12
  reid-cckd reproduce table8 --scale small --data /data/omniglot --report    what is there so far, training nothing
Interrupted, the same line continues; teachers are trained once; several processes may share the work."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    text = "Train what a table of the paper needs, evaluate it, and write Markdown, CSV, JSON and plots."
    parser = make_parser("reproduce", text, EXAMPLES)
    parser.add_argument("table", help="table1 ... table8")
    take_overrides(parser, "of the study, or else of all its runs")
    parser.add_argument("--data", metavar="ROOT", help="the data set's folder: data.root of all runs")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N - 1 instead of the study's")
    parser.add_argument("--scale", choices=SCALES, default="paper", help="the paper's data, or small sets (paper)")
    parser.add_argument("--studies", type=Path, metavar="FOLDER", help="another folder of tableN.yaml files")
    parser.add_argument("--report", action="store_true", help="write the report of what has finished, train nothing")
    return run(_command, parser, argv)


def _command(arguments: argparse.Namespace) -> None:
    path = _study_file(arguments.studies or SCALES[arguments.scale], arguments.table)
    study, overrides = load_study(path, [*arguments.overrides, *_shorthand(arguments)])
    runs = expand_study(study, path, overrides)
    sweep = Sweep(runs)
    if not arguments.report:
        sweep.work()
    sweep.check()
    rows = tabulate(study, runs, path)
    report = write_report(study, runs, rows)
    print(f"\n{render(study, rows)}\n\n{comparison_text(study, rows)}\nReport: {report}")
    sweep.complain()


def _study_file(folder: Path, table: str) -> Path:
    path = folder / f"{table.removesuffix('.yaml')}.yaml"
    if not path.is_file():
        names = sorted(one.stem for one in folder.glob("table*.yaml"))
        listing = f"{folder} holds {', '.join(names)}" if names else f"Run this in a clone: there is no {folder}"
        raise ConfigError(f"There is no study {path}.{did_you_mean(table, names)} {listing}.")
    return path


def _shorthand(arguments: argparse.Namespace) -> list[str]:
    if arguments.seeds is not None and arguments.seeds < 1:
        raise ConfigError(f"--seeds is a number of seeds from 1 up, not {arguments.seeds}.")
    seeds = [] if arguments.seeds is None else [f"seeds={list(range(arguments.seeds))}"]
    return seeds + ([] if arguments.data is None else [f"data.root={arguments.data}"])


def write_report(study: Study, runs: Sequence[StudyRun], rows: Sequence[Mapping[str, Any]]) -> Path:
    """report.md, scores.png and, where the study asks for them, pictures of similarities; returns the report's path."""
    folder = Path(study.output)
    score_plot(
        folder / "scores.png",
        {row["name"]: row[study.metric] for row in rows},
        f"{score_heading(study.metric)} (%), mean ± std over seeds",
        study.title,
        expected_scores(study, rows),
        "published difference" + (f" from {study.published.against}" if study.published else ""),
    )
    pictures = [folder / "scores.png", *_pictures(study, runs)]
    parts = [
        f"# {study.title or folder.name}",
        render(study, rows, "markdown"),
        comparison_text(study, rows),
        *(f"![{picture.stem}]({picture.name})" for picture in pictures),
    ]
    with atomic_path(folder / "report.md") as temporary:
        temporary.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return folder / "report.md"


def _pictures(study: Study, runs: Sequence[StudyRun]) -> list[Path]:
    """Of the first teacher and the rows that the study names, as far as they have finished."""
    named = [run for run in runs if not run.is_teacher and run.config.seed == study.seeds[0]]
    chosen = [run for run in runs if run.is_teacher][:1] + [run for run in named if run.row in study.pictures]
    folders = {run.row: run.folder for run in chosen if (run.folder / REPORT).exists()}
    return draw_figures(folders, Path(study.output)) if study.pictures and len(folders) > 1 else []


def comparison_text(study: Study, rows: Sequence[Mapping[str, Any]]) -> str:
    """What was published, as a sentence, and row by row beside what was found here; empty without a source."""
    published = study.published
    if published is None:
        return ""
    text = f"Published ({published.source}): {published.finding}"
    return text if published.against is None else f"{text}\n\n{_beside(published, rows, study.metric)}"


def expected_scores(study: Study, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Where rows would be if they were as far from the one that the source compares with as it says."""
    found, published = {row["name"]: row for row in rows}, study.published
    if published is None or published.against not in found:
        return {}
    base = float(found[published.against][study.metric][0])
    differences = {name: published.difference(name, study.metric) for name in found}
    return {name: base + difference for name, difference in differences.items() if difference is not None}


def _beside(published: Published, rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    found = {row["name"]: row for row in rows}
    lines = [
        {
            "name": name,
            "score": score_heading(key),
            "here": _ours(found, name, published.against, key),
            "published": _points(published.difference(name, key), "not published"),
        }
        for name in found
        if name != published.against
        for key in published.scores(metric)
    ]
    headings = {"name": f"less {published.against}, points", "score": "score", "here": "here", "published": "published"}
    return format_table(lines, headings, style="markdown")


def _ours(found: Mapping[str, Mapping[str, Any]], name: str, against: str | None, key: str) -> str:
    """The difference over the seeds that both rows have; of a teacher, which is one run, that of the means."""
    base, row = found.get(against or "", {}), found[name]
    if key not in base or key not in row:
        return "not run"
    if "by_seed" not in base or "by_seed" not in row:
        return _points(float(row[key][0] - base[key][0]), "")
    common = base["by_seed"].keys() & row["by_seed"].keys()
    if not common:
        return "no seed in common"
    mean = statistics.mean(float(row["by_seed"][seed][key] - base["by_seed"][seed][key]) for seed in common)
    is_part = len(common) < max(base["seeds"], row["seeds"])
    return _points(mean, "") + (f" (seeds: {', '.join(map(str, sorted(common)))})" if is_part else "")


def _points(difference: float | None, missing: str) -> str:
    return missing if difference is None else f"{100 * difference:+.1f}"
