"""One process at a time works in a folder, and a dead one gives way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reid_cckd.engine import claim, claims, is_claimed

WORKER = """
import runpy, sys
from pathlib import Path
claim = runpy.run_path(sys.argv[3])["claim"]  # the file alone: torch takes seconds to import
folder, stale = Path(sys.argv[1]), float(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
with claim(folder, stale) as mine:
    print(mine, flush=True)
    sys.stdin.readline()
print("left", flush=True)
"""


def start(folder: Path, stale: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(folder), str(stale), claims.__file__]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
    assert process.stdout.readline() == "ready\n"
    return process


def say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_claim_holds_until_it_is_left_and_can_be_made_again(tmp_path: Path) -> None:
    for _ in range(3):
        with claim(tmp_path) as mine:
            assert mine
            assert is_claimed(tmp_path)
            with claim(tmp_path) as other:
                assert not other
            assert is_claimed(tmp_path)
        assert not is_claimed(tmp_path)


def test_an_error_inside_gives_the_claim_back(tmp_path: Path) -> None:
    with pytest.raises(KeyError), claim(tmp_path):
        raise KeyError
    assert not is_claimed(tmp_path)


def test_of_several_processes_one_wins_and_a_killed_one_is_succeeded(tmp_path: Path) -> None:
    workers = [start(tmp_path, 0.5) for _ in range(3)]
    for worker in workers:
        say(worker)
    answers = [worker.stdout.readline() == "True\n" for worker in workers]  # type: ignore[union-attr]
    assert sum(answers) == 1
    winner = workers[answers.index(True)]
    time.sleep(0.8)  # it beats, so it is not stale
    with claim(tmp_path, 0.5) as mine:
        assert not mine
    winner.kill()
    winner.wait()
    deadline = time.monotonic() + 10
    while is_claimed(tmp_path, 0.5) and time.monotonic() < deadline:
        time.sleep(0.05)
    with claim(tmp_path, 0.5) as mine:
        assert mine
    for worker in workers:
        worker.communicate("\n" if worker.poll() is None else None)


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_jumps_takes_no_claim_from_the_living(tmp_path: Path, jump: float) -> None:
    worker = start(tmp_path, 0.8)
    say(worker)
    assert worker.stdout.readline() == "True\n"  # type: ignore[union-attr]
    (mine,) = tmp_path.glob(".claim.*")
    os.utime(mine, (time.time() - jump,) * 2)  # as its last sign of life looks after the jump
    with claim(tmp_path, 0.8) as taken:
        assert not taken
    assert worker.poll() is None
    worker.communicate("\n")


def test_a_claim_of_the_future_whose_process_died_gives_way(tmp_path: Path) -> None:
    (tmp_path / ".claim.4").touch()
    os.utime(tmp_path / ".claim.4", (time.time() + 3600,) * 2)
    with claim(tmp_path, 0.4) as mine:
        assert mine
        assert (tmp_path / ".claim.5").exists()


def test_who_was_succeeded_while_asleep_ends_at_once(tmp_path: Path) -> None:
    sleeper = start(tmp_path, 0.4)
    say(sleeper)
    assert sleeper.stdout.readline() == "True\n"  # type: ignore[union-attr]
    sleeper.send_signal(signal.SIGSTOP)
    for claimed in tmp_path.glob(".claim.*"):
        os.utime(claimed, (0, 0))
    with claim(tmp_path, 0.4) as mine:
        assert mine
        sleeper.send_signal(signal.SIGCONT)
        assert sleeper.wait(timeout=10) == 75
        assert "taken over" in sleeper.stderr.read()  # type: ignore[union-attr]
