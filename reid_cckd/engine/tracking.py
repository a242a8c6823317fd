"""What a run leaves to look at: a JSONL log, a progress bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from reid_cckd.engine.trackers import Tracker, flatten
from reid_cckd.files import atomic_path


class RunLog:
    """Rows of JSON, one a line, appended as the run goes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trackers: list[Tracker] = []

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row, and send it to the trackers; a row is one write, so a kill leaves whole lines."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        values = flatten(row)
        step = int(values.pop("step", 0))
        for tracker in tuple(self.trackers):
            try:
                tracker.log(values, step)
            except Exception as error:  # whatever a tracker's library raises, days of training go on
                print(f"{type(tracker).__name__} is left out from here on: {error}", file=sys.stderr)
                self.trackers.remove(tracker)

    def rows(self) -> list[dict[str, Any]]:
        """All rows; a last line that a full disk cut short is left out."""
        rows = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def keep(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Forget the other rows: a resumed run will write them again."""
        kept = [row for row in self.rows() if wanted(row)]
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")


class RunningMeans:
    """Means of named values since the last `take`; kept as sums so that a checkpoint can carry them."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.count = 0

    def add(self, values: Mapping[str, float]) -> None:
        """Count one step."""
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def take(self) -> dict[str, float]:
        """The means, and start anew."""
        means = {name: total / max(self.count, 1) for name, total in self.sums.items()}
        self.sums, self.count = {}, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """Sums and count."""
        return {"sums": dict(self.sums), "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from saved sums."""
        self.sums, self.count = dict(state["sums"]), int(state["count"])


class Progress:
    """One bar over the whole run with its ETA; where there is no terminal, a line per epoch instead."""

    def __init__(self, total: int, done: int, epochs: int, silent: bool = False) -> None:
        self.epochs = epochs
        off = silent or not sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=done, unit="step", dynamic_ncols=True, disable=off)
        self.bar._time = time.monotonic  # the time of day, tqdm's own choice, may jump
        self.bar.start_t = self.bar.last_print_t = time.monotonic()

    def step(self, epoch: int, values: Mapping[str, float]) -> None:
        """Advance by one step and show every loss term."""
        self.bar.set_description(f"epoch {epoch + 1}/{self.epochs}", refresh=False)
        self.bar.set_postfix({name: f"{value:.3g}" for name, value in values.items()}, refresh=False)
        self.bar.update()

    def epoch(self, epoch: int, losses: Mapping[str, float], scores: Mapping[str, float]) -> None:
        """Print a finished epoch above the bar, scores in percent."""
        shown = [f"{name} {value:.4g}" for name, value in losses.items()]
        shown += [f"{name} {100 * value:.2f} %" for name, value in scores.items()]
        self.say(f"epoch {epoch + 1:>3}/{self.epochs}  {'  '.join(shown)}")

    def say(self, text: str) -> None:
        """Print without tearing the bar."""
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.bar.close()
