"""A process of several is killed: torchrun starts all of them again, and the run ends as if nothing had been."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from reid_cckd.engine import load_checkpoint
from tests.commands.conftest import recipe, write_config
from tests.commands.test_distributed import MODEL

# What torchrun starts: the command, whose rank 1 dies in the fifth step of the first attempt if DIES says so.
PROGRAM = """
import os, signal, sys
from reid_cckd.commands.train import main
from reid_cckd.engine import Trainer

plain = Trainer._step

def step(self, batch):
    attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
    if (os.environ["DIES"], os.environ["RANK"], attempt, self.position.step) == ("yes", "1", "0", 5):
        os.kill(os.getpid(), signal.SIGKILL)
    plain(self, batch)

Trainer._step = step
sys.exit(main(sys.argv[1:]))
"""


def run(program: Path, config: Path, dies: str) -> str:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    environment = {**os.environ, "DIES": dies, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [*launcher, str(program), str(config), "--resume"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_a_killed_process_costs_the_steps_since_the_last_checkpoint(pedestrians: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    states = []
    for dies in ("no", "yes"):
        values = recipe(pedestrians, tmp_path / dies, model=MODEL)
        printed = run(program, write_config(tmp_path / f"{dies}.yaml", values), dies)
        assert ("Resumed" in printed) == (dies == "yes")
        states.append(load_checkpoint(tmp_path / dies / "last.pt"))
    whole, restarted = states
    assert whole["position"] == restarted["position"]
    for name, weights in whole["model"].items():
        torch.testing.assert_close(restarted["model"][name], weights, rtol=0, atol=0)
