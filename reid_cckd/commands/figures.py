"""`reid-cckd figures RUN ...`: what each student took over from its teacher, in pictures."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_cckd.assess import answer_of
from reid_cckd.build import load_network
from reid_cckd.commands.console import make_parser, run
from reid_cckd.commands.reporting import size
from reid_cckd.commands.runs import short_names
from reid_cckd.commands.sameness import REPORT, read_report
from reid_cckd.commands.subjects import embed_tested
from reid_cckd.engine import Embeddings, RunLog
from reid_cckd.errors import ConfigError, DataError
from reid_cckd.report import (
    Point,
    retention_plot,
    score_heading,
    similarity_histograms,
    similarity_maps,
    training_curves,
)

EXAMPLES = """\
  reid-cckd figures runs/omniglot/teacher runs/omniglot/student runs/omniglot/kd runs/omniglot/cckd --output figures
  reid-cckd figures teacher=runs/t student=runs/s0 'CCKD=runs/best/seed0' --output figures data.root=/data/omniglot"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    text = (
        "Draw similarity maps, histograms of similarities within and between classes, training curves, and what is "
        "kept of the first run's score, which is the teacher's, over parameters and MACs."
    )
    parser = make_parser("figures", text, EXAMPLES)
    parser.add_argument("runs", nargs="+", metavar="[NAME=]RUN", help="folders of finished runs, the teacher's first")
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures")
    parser.set_defaults(overrides=[])  # data.*=value, for all runs
    return run(_command, parser, argv)


def _command(arguments: argparse.Namespace) -> None:
    folders = named_folders(arguments.runs)
    for picture in draw_figures(folders, arguments.output, arguments.overrides):
        print(picture)


def named_folders(texts: Sequence[str]) -> dict[str, Path]:
    """Folders by the names they were given, or by as much of their paths as tells them apart.

    Raises:
        ConfigError: two have one name.
    """
    split = [("", text) if "=" not in text or Path(text).is_dir() else text.split("=", 1) for text in texts]
    plain = list(dict.fromkeys(Path(folder) for name, folder in split if not name))
    usual = dict(zip(plain, short_names(plain), strict=True))
    named: dict[str, Path] = {}
    for name, text in split:
        key = name or usual[Path(text)]
        if key in named:
            raise ConfigError(f"figures: two runs are called {key!r}; give NAME=FOLDER, or one of them once.")
        named[key] = Path(text)
    return named


def draw_figures(folders: Mapping[str, Path], output: Path, overrides: Sequence[str] = ()) -> list[Path]:
    """The pictures of runs by name, the teacher first; ``overrides`` of data keys are for all.

    Raises:
        DataError: a folder holds no finished run. ConfigError: fewer than two runs, or other data in one of them.
    """
    if len(folders) < 2:
        raise ConfigError("figures: give two runs or more, the teacher's first.")
    reports = {name: _report(folder) for name, folder in folders.items()}
    images = {name: embed_tested(folder / "last.pt", overrides) for name, folder in folders.items()}
    labels = _common_labels(images)
    vectors = {name: part.vectors for name, part in images.items()}
    pictures = [output / f"{name}.png" for name in ("similarity", "histograms", "curves", "retention")]
    similarity_maps(pictures[0], vectors, labels, "cosine similarity of test images, sorted by class")
    similarity_histograms(pictures[1], vectors, labels, "cosine similarity of pairs of test images")
    logs = {name: RunLog(folder / "log.jsonl").rows() for name, folder in folders.items()}
    training_curves(pictures[2], logs, "training")
    main = reports[next(iter(reports))].get("main", "mean_ap")
    teacher, *students = (_point(name, folder, reports[name], main) for name, folder in folders.items())
    retention_plot(pictures[3], teacher, students, f"{score_heading(main)} kept of the teacher's")
    return pictures


def _report(folder: Path) -> dict[str, Any]:
    path = folder / REPORT
    if not path.is_file():
        raise DataError(f"{folder} holds no finished run: there is no {path}, which `train` writes at its end.")
    report = read_report(path)
    if not report["scores"]:
        raise DataError(f"{folder} has no score to draw: it was trained without a test set (evaluation.task: none).")
    return report


def _common_labels(images: Mapping[str, Embeddings]) -> NDArray[np.int64]:
    (first, reference), *others = images.items()
    for name, part in others:
        if not np.array_equal(part.paths, reference.paths):
            raise ConfigError(f"figures: the run {name!r} was tested on other images than {first!r}.")
    return reference.labels


def _point(name: str, folder: Path, report: Mapping[str, Any], main: str) -> Point:
    """Counted anew: older reports count the class head in whatever the task."""
    if main not in report["scores"]:
        raise ConfigError(f"figures: the run {name!r} has no score {main}, which the first run is judged by.")
    loaded = load_network(folder / "last.pt")
    counted = size(loaded.network, answer_of(loaded.config.evaluation))
    return Point(name, counted["parameters"], counted["macs"], report["scores"][main])
