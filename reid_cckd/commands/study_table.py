"""What a study found: a row a method and grid point, mean ± standard deviation over its seeds."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from reid_cckd.commands.sameness import REPORT, read_report
from reid_cckd.config.expansion import StudyRun
from reid_cckd.config.study import Study
from reid_cckd.errors import ConfigError, UserError, did_you_mean
from reid_cckd.evaluation import compare_seeds
from reid_cckd.files import atomic_path, write_json
from reid_cckd.report import format_table, score_heading

NO_SCORES = ("name", "seeds", "by_seed", "difference")  # what a row has besides
Scores = dict[str, dict[int, dict[str, float]]]  # row -> seed -> name -> fraction


def tabulate(study: Study, runs: Sequence[StudyRun], source: Path) -> list[dict[str, Any]]:
    """The rows of everything that has finished, written to the study's folder too.

    Raises:
        UserError: nothing has finished. ConfigError: as `study_rows`.
    """
    rows = study_rows(study, runs)
    if not rows:
        raise UserError(f"No run of {source} has finished in {study.output}.")
    write_table(study, rows)
    return rows


def study_rows(study: Study, runs: Sequence[StudyRun]) -> list[dict[str, Any]]:
    """A row for everything that has finished; a score is (mean, sample standard deviation), a fraction.

    Rows of methods keep the scores of each seed as ``by_seed``: what is compared must be compared seed by seed.

    Raises:
        ConfigError: the study compares by a score that its runs do not have.
    """
    teachers = _scores([run for run in runs if run.is_teacher])
    students = _scores([run for run in runs if not run.is_teacher])
    rows = [_row("teacher" if name == "teacher" else f"teacher {name}", seeds) for name, seeds in teachers.items()]
    for name, seeds in students.items():
        compared = study.baseline in students and name != study.baseline
        against = students[study.baseline] if compared and study.baseline is not None else None
        rows.append(
            {**_row(name, seeds), "by_seed": seeds, **({} if against is None else _difference(study, against, seeds))}
        )
    return rows


def _scores(runs: Sequence[StudyRun]) -> Scores:
    found: Scores = {}
    for run in runs:
        if (run.folder / REPORT).exists():
            found.setdefault(run.row, {})[run.config.seed] = read_report(run.folder / REPORT)["scores"]
    return found


def _row(name: str, seeds: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    first = next(iter(seeds.values()))
    values = {key: [scores[key] for scores in seeds.values()] for key in first}
    return {"name": name, "seeds": len(seeds), **{key: mean_and_deviation(found) for key, found in values.items()}}


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """The sample standard deviation is None of a single value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def _difference(
    study: Study, baseline: Mapping[int, Mapping[str, float]], seeds: Mapping[int, Mapping[str, float]]
) -> dict[str, Any]:
    if not baseline.keys() & seeds.keys():
        return {}
    one, other = ({seed: _metric(study, scores) for seed, scores in side.items()} for side in (baseline, seeds))
    return {"difference": asdict(compare_seeds(one, other, interval=study.interval, confidence=study.confidence))}


def _metric(study: Study, scores: Mapping[str, float]) -> float:
    if study.metric not in scores:
        meant = did_you_mean(study.metric, scores)
        raise ConfigError(f"metric: the runs have no score {study.metric!r} but {', '.join(scores)}.{meant}")
    return scores[study.metric]


def render(study: Study, rows: Sequence[Mapping[str, Any]], style: Literal["plain", "markdown"] = "plain") -> str:
    """The table in percent, with the differences where there is a baseline."""
    scores = dict.fromkeys(key for row in rows for key in row if key not in NO_SCORES)
    headings = {"name": "name", "seeds": "seeds", **{key: score_heading(key) for key in scores}}
    if study.baseline is not None:
        headings["difference"] = (
            f"{score_heading(study.metric)} - {study.baseline}, {100 * study.confidence:g} % interval"
        )
    shown = [{**row, "difference": _interval(row.get("difference"), len(study.seeds))} for row in rows]
    return format_table(shown, headings, percent=list(scores), style=style)


def _interval(difference: Mapping[str, Any] | None, seeds: int) -> str | None:
    """The seeds that both rows have are told where some of the study's are lacking."""
    if difference is None:
        return None
    mean = f"{100 * difference['mean']:+.1f}"
    if difference["low"] is None:
        return f"{mean} [one seed]"
    some = f" of {difference['num_seeds']} seeds" * (difference["num_seeds"] < seeds)
    return f"{mean} [{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]{some}"


def write_table(study: Study, rows: Sequence[Mapping[str, Any]]) -> None:
    """table.md (percent), table.csv and table.json (fractions) in the study's folder."""
    folder = Path(study.output)
    with atomic_path(folder / "table.md") as temporary:
        temporary.write_text(render(study, rows, "markdown") + "\n", encoding="utf-8")
    flat = [_flat(row) | _published(study, row["name"]) for row in rows]
    with atomic_path(folder / "table.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in flat for key in row)))
        writer.writeheader()
        writer.writerows(flat)
    write_json(folder / "table.json", {"study": asdict(study), "rows": rows})


def _published(study: Study, name: str) -> dict[str, Any]:
    """What the source says of a row, beside which one; empty where it does not."""
    published = study.published
    if published is None or published.against is None:
        return {}
    scores = published.scores(study.metric)
    found = {f"published_{score}_difference": published.difference(name, score) for score in scores}
    return {"published_against": published.against, **found}


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key == "difference":
            flat |= {f"difference_{name}": part for name, part in value.items()}
        elif key == "by_seed":
            continue
        elif isinstance(value, tuple):
            flat |= {key: value[0], f"{key}_std": value[1]}
        else:
            flat[key] = value
    return flat
