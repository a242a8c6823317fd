"""`reid-cckd quickstart`: from nothing to a table of a teacher and three students, on synthetic pedestrians."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reid_cckd.commands.console import make_parser, run, take_overrides
from reid_cckd.commands.reporting import score_table
from reid_cckd.commands.sameness import REPORT, read_report
from reid_cckd.commands.train import train
from reid_cckd.config import Config, load_config
from reid_cckd.data import ensure_pedestrians
from reid_cckd.engine import RunLog
from reid_cckd.errors import ConfigError
from reid_cckd.files import write_json
from reid_cckd.report import training_curves

RUNS = {"teacher": "teacher", "student alone": "student", "KD": "kd", "CCKD": "cckd"}
PEOPLE: dict[str, Any] = {
    "train_ids": 480,
    "test_ids": 100,
    "images_per_id": 10,
    "cameras": 6,
    "size": (64, 32),
    "seed": 0,
}

EXAMPLES = """\
  reid-cckd quickstart
  reid-cckd quickstart train.epochs=2        a quick look; any key=value goes to all four runs
  reid-cckd quickstart --configs configs/quickstart"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    text = "Draw synthetic pedestrians, train a teacher and three students, and compare them. Interrupted, it resumes."
    parser = make_parser("quickstart", text, EXAMPLES)
    take_overrides(parser, "applied to all four configurations")
    parser.add_argument(
        "--configs", type=Path, default=Path("configs/quickstart"), help="folder of the four YAML files"
    )
    return run(_command, parser, argv)


def _command(arguments: argparse.Namespace) -> None:
    if not arguments.configs.is_dir():
        raise ConfigError(f"There is no folder {arguments.configs}; run this in a clone, or give --configs.")
    configs = {
        name: load_config(arguments.configs / f"{file}.yaml", arguments.overrides) for name, file in RUNS.items()
    }
    folder = Path(configs["CCKD"].output).parent
    ensure_pedestrians(configs["teacher"].data.root, **PEOPLE)
    rows = []
    for name, config in configs.items():
        print(f"\n== {name} ==", flush=True)
        rows.append(_row(name, config))
    write_json(folder / "summary.json", rows)
    logs = {name: RunLog(Path(config.output) / "log.jsonl").rows() for name, config in configs.items()}
    training_curves(folder / "curves.png", logs, "quickstart")
    print(f"\n{score_table(rows)}\n")
    print(f"ranked lists: {Path(configs['CCKD'].output) / 'ranks.png'}\ncurves: {folder / 'curves.png'}")


def _row(name: str, config: Config) -> dict[str, Any]:
    report = read_report(train(config, resume=True) / REPORT)
    return {"name": name, **report["scores"], **report["cost"]}
