"""Kill a run at random moments, also while it writes, until it ends; compare it with one that was left alone.

`python benchmarks/kills.py --kills 100` (minutes); `--quick` kills ten times.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from reid_cckd.batch import Batch
from reid_cckd.commands.train import main as train_main
from reid_cckd.data import write_pedestrians
from reid_cckd.engine import Trainer, load_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ten kills")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    kills = 10 if arguments.quick else arguments.kills
    with tempfile.TemporaryDirectory() as folder:
        result = compare(Path(folder), kills, random.Random(arguments.seed))
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps([result]))
    sys.exit(0 if result["equal"] else 1)


def compare(folder: Path, kills: int, chance: random.Random) -> dict[str, Any]:
    """Train twice, once with kills, and look for a difference in weights and log."""
    write_pedestrians(folder / "data", train_ids=8, test_ids=2, images_per_id=4, cameras=2, size=(32, 16), workers=1)
    whole, broken = (configure(folder, name, epochs=5 * kills) for name in ("whole", "broken"))
    start, done, lost, steps = time.perf_counter(), 0, 0, 0
    while done < kills:
        code = killed_after(chance.uniform(0, 0.15), broken)
        if code == 0:
            break
        if code != -signal.SIGKILL:
            raise SystemExit(f"A run that was to be killed ended with {code}.")
        done += 1
        before, steps = steps, saved_steps(folder / "broken" / "last.pt")
        lost += steps < before
    for config in (broken, whole):
        if train_main([str(config), "--resume"]):
            raise SystemExit(f"{config} did not end")
    one, other = (load_checkpoint(folder / name / "last.pt") for name in ("whole", "broken"))
    equal = all(torch.equal(one["model"][name], value) for name, value in other["model"].items())
    logs = [log_of(folder / name) for name in ("whole", "broken")]
    seconds = time.perf_counter() - start
    return {
        "name": "kills",
        "kills": done,
        "equal": equal and logs[0] == logs[1],
        "went_back": lost,
        "steps": int(one["position"]["step"]),
        "seconds": seconds,
    }


def killed_after(seconds: float, config: Path) -> int:
    """Resume in a fork, which spares loading Python, and kill it so long after its first step; its exit code."""
    ear, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            tell_of_steps(mouth)
            with Path(os.devnull).open("w") as silence, contextlib.redirect_stdout(silence):
                code = train_main([str(config), "--resume"])
        finally:
            os._exit(code)
    os.close(mouth)
    os.read(ear, 1)  # nothing comes from a run that ends before its first step
    os.close(ear)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def tell_of_steps(mouth: int) -> None:
    """Write a byte after the first step of this process."""
    step, told = Trainer._step, list[int]()

    def watched(trainer: Trainer, batch: Batch) -> None:
        step(trainer, batch)
        if not told:
            told.append(os.write(mouth, b"!"))

    Trainer._step = watched  # type: ignore[method-assign]


def log_of(folder: Path) -> list[str]:
    """The rows of a log but those of speed and memory."""
    return [line for line in (folder / "log.jsonl").read_text().splitlines() if '"system"' not in line]


def saved_steps(path: Path) -> int:
    """How far the last checkpoint is: it must always be readable, and never go back."""
    return int(load_checkpoint(path)["position"]["step"]) if path.exists() else 0


def configure(folder: Path, name: str, epochs: int) -> Path:
    values = {
        "output": str(folder / name),
        "data": {"root": str(folder / "data"), "image_size": [32, 16], "cache": "memory", "workers": 0},
        "model": {"backbone": "resnet10t", "options": {"channels": [8, 8, 16, 16], "stem_width": 8}, "embedding": 8},
        "sampler": {"classes_per_batch": 4, "samples_per_class": 4},
        "optim": {"schedule": "constant"},
        "train": {"epochs": epochs, "evaluate_every": 10 * epochs, "checkpoint_every": 1, "device": "cpu"},
        "evaluation": {"sheet_rows": 0},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


if __name__ == "__main__":
    main()
