"""`reid-cckd sweep STUDY.yaml [key=value ...]`: methods, grids and seeds of a study, ending in a table."""

from __future__ import annotations

import argparse
import functools
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reid_cckd import build
from reid_cckd.commands.console import make_parser, run, take_overrides
from reid_cckd.commands.sameness import REPORT, check_finished
from reid_cckd.commands.study_table import render, tabulate
from reid_cckd.commands.train import train
from reid_cckd.config.expansion import StudyRun, expand_study
from reid_cckd.config.study import load_study
from reid_cckd.engine import STALE, Interrupted, claim, file_hash, is_claimed
from reid_cckd.errors import ConfigError, UserError
from reid_cckd.report import format_table

POLL = 1.0  # seconds between looks at what other processes do

EXAMPLES = """\
  reid-cckd sweep configs/studies/small/table3.yaml data.root=/data/omniglot --dry-run
  reid-cckd sweep configs/studies/small/table3.yaml data.root=/data/omniglot
  reid-cckd sweep configs/studies/small/table3.yaml seeds='[0, 1, 2, 3, 4]' baseline=kd --table
Interrupted or killed, the same line continues: finished runs are skipped, a broken one goes on at its last checkpoint.
The same line on several machines that share the folder, or several times on one machine, divides the runs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    text = "Train every run of a study and write table.md, table.csv and table.json: mean ± std over the seeds."
    parser = make_parser("sweep", text, EXAMPLES)
    parser.add_argument("study", type=Path, help="a YAML file, such as those in configs/studies/")
    take_overrides(parser, "of the study, or else of all its runs")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and how far each is, and train nothing")
    parser.add_argument("--table", action="store_true", help="write the table of what has finished, and train nothing")
    parser.add_argument(
        "--stale",
        type=float,
        default=STALE,
        metavar="SECONDS",
        help="take over a run whose process gave no sign of life for so long (default %(default)g)",
    )
    return run(_command, parser, argv)


def _command(arguments: argparse.Namespace) -> None:
    study, overrides = load_study(arguments.study, arguments.overrides)
    runs = expand_study(study, arguments.study, overrides)
    if arguments.dry_run:
        print(_listing(runs, arguments.stale))
        return
    sweep = Sweep(runs, arguments.stale)
    if not arguments.table:
        sweep.work()
    sweep.check()
    rows = tabulate(study, runs, arguments.study)
    print(f"\n{render(study, rows)}\n\nThe same as Markdown, CSV and JSON: {Path(study.output) / 'table.*'}")
    sweep.complain()


@dataclass
class Sweep:
    """The runs of a study, shared with every other process that works on the same folder."""

    runs: Sequence[StudyRun]
    stale: float = STALE
    _old_errors: dict[Path, int] = field(init=False)

    def __post_init__(self) -> None:
        self._old_errors = {run.folder: _error_stamp(run) for run in self.runs}  # of an earlier call: tried again

    def check(self) -> None:
        """Be sure that what has finished belongs into one table.

        Raises:
            UserError: a run has other settings by now, or learned from another teacher than there is now.
        """
        hash_of = functools.cache(file_hash)
        for one in self.runs:
            if one.needs is None or _has_finished(one.needs):
                check_finished(one.config, hash_of)

    def work(self) -> None:
        """Return when every run has finished or failed, here or elsewhere.

        Raises:
            UserError: a run was begun with other settings, or its data cannot be read; nothing is trained then.
        """
        self.check()
        for data in {(one.config.data.dataset, one.config.data.root): one.config.data for one in self.runs}.values():
            build.read_manifest(data)
        while open_runs := [run for run in self.runs if not self._is_over(run)]:
            if not any(self._try(run) for run in open_runs):
                time.sleep(POLL)

    def complain(self) -> None:
        """Say what has failed.

        Raises:
            UserError: something has.
        """
        failed = [run for run in self.runs if self._has_failed(run) and not _has_finished(run)]
        if failed:
            reasons = "".join(f"\n  {run}: {_reason(run)}" for run in failed)
            raise UserError(f"{len(failed)} of {len(self.runs)} runs failed; mend and call again:{reasons}")

    def _try(self, run: StudyRun) -> bool:
        """Whether the run was brought to its end, or to a failure, by this process."""
        if run.needs is not None and not _has_finished(run.needs):
            return False
        with claim(run.folder, self.stale) as is_mine:
            if not is_mine or self._is_over(run):
                return False
            over = sum(map(self._is_over, self.runs))
            print(f"\n== {run} ({over + 1} of {len(self.runs)}) ==", flush=True)
            _error_file(run).unlink(missing_ok=True)
            try:
                train(run.config, resume=True)
            except (Interrupted, BrokenPipeError):  # somebody wants the whole study to stop
                raise
            except Exception as error:  # whatever it is, the other runs are still worth their time
                run.folder.mkdir(parents=True, exist_ok=True)  # somebody may have deleted it, and so caused the error
                text = str(error) if isinstance(error, UserError) else _traced(error, _error_file(run))
                print(f"\nerror: {text}", file=sys.stderr, flush=True)
                _error_file(run).write_text(f"{text}\n", encoding="utf-8")
        return True

    def _is_over(self, run: StudyRun) -> bool:
        return _has_finished(run) or self._has_failed(run)

    def _has_failed(self, run: StudyRun) -> bool:
        here = _error_stamp(run) not in (0, self._old_errors[run.folder])
        return here or (run.needs is not None and not _has_finished(run.needs) and self._has_failed(run.needs))


def _has_finished(run: StudyRun) -> bool:
    return (run.folder / REPORT).exists()


def _error_file(run: StudyRun) -> Path:
    return run.folder / "error.txt"


def _error_stamp(run: StudyRun) -> int:
    return _error_file(run).stat().st_mtime_ns if _error_file(run).exists() else 0


def _traced(error: Exception, file: Path) -> str:
    """What a run died of that is no mistake of the user: a line, and below it the traceback."""
    line = " ".join(str(error).split())
    return f"{type(error).__name__}: {line} (traceback in {file})\n\n{''.join(traceback.format_exception(error))}"


def _reason(run: StudyRun) -> str:
    if _error_file(run).exists():
        return _error_file(run).read_text(encoding="utf-8").partition("\n\n")[0].strip()
    return f"{run.needs} failed"


def _listing(runs: Sequence[StudyRun], stale: float) -> str:
    hash_of = functools.cache(file_hash)
    rows = [{"run": str(run), "state": _state(run, hash_of, stale), "folder": str(run.folder)} for run in runs]
    return f"{format_table(rows)}\n{len(runs)} runs, {sum(map(_has_finished, runs))} finished"


def _state(run: StudyRun, hash_of: Callable[[Path], str], stale: float) -> str:
    try:
        check_finished(run.config, hash_of)
    except ConfigError:
        return "other settings or teacher"
    if _has_finished(run):
        return "finished"
    if run.folder.exists() and is_claimed(run.folder, stale):
        return "running"
    if _error_file(run).exists():
        return "failed"
    return "begun" if (run.folder / "last.pt").exists() else "to do"
