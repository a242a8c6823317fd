"""What a person sees of an error."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reid_cckd import __version__
from reid_cckd.commands.__main__ import main
from reid_cckd.commands.console import make_parser, parse, run


def test_a_full_disk_is_one_paragraph(capsys: pytest.CaptureFixture[str]) -> None:
    def command(arguments: argparse.Namespace) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a/log.jsonl")

    assert run(command, make_parser("any", "", ""), []) == 2
    assert capsys.readouterr().err.strip() == (
        "error: No space left to write runs/a/log.jsonl. Free space and give the same command again."
    )


@pytest.mark.parametrize("length", [1, 10**6])  # written when the program ends, or while the command runs
def test_a_reader_that_has_seen_enough_is_no_fault(length: int) -> None:
    program = f"""
import sys
from reid_cckd.commands.console import make_parser, run
sys.exit(run(lambda _: print("x" * {length}), make_parser("a", "", ""), []))
"""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("code", [errno.EIO, errno.EPIPE])  # EPIPE is of a pipe other than stdout, to a worker say
def test_other_errors_of_the_system_are_not_hidden(code: int) -> None:
    def command(arguments: argparse.Namespace) -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(OSError, match=os.strerror(code)):
        run(command, make_parser("any", "", ""), [])


def test_keys_may_stand_anywhere_and_are_refused_where_there_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    parser = make_parser("x", "", "")
    parser.add_argument("source")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--roles", nargs="+")
    parser.add_argument("--output")
    found = parse(parser, ["run", "--roles", "query", "data.root=/d", "--output", "beta=5", "seed=1", "data.root=/e"])
    assert (found.source, found.roles, found.output) == ("run", ["query"], "beta=5")
    assert found.overrides == ["data.root=/d", "seed=1", "data.root=/e"]
    with pytest.raises(SystemExit):
        parse(make_parser("y", "", ""), ["data.root=/d"])
    assert "unrecognized arguments: data.root=/d" in capsys.readouterr().err


def test_a_mistyped_command_is_guessed_and_the_version_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "Did you mean 'train'?" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"reid-cckd {__version__}\n"


def test_only_what_is_missing_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train"])
    assert "required: config\n" in capsys.readouterr().err


def test_a_study_and_a_run_are_not_taken_for_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    configs = Path(__file__).parents[2] / "configs"
    assert main(["train", str(configs / "studies" / "table3.yaml")]) == 2
    assert "give it to reid-cckd sweep" in capsys.readouterr().err
    assert main(["sweep", str(configs / "quickstart" / "kd.yaml")]) == 2
    assert "give it to reid-cckd train" in capsys.readouterr().err
    assert main(["train", str(configs / "quickstart")]) == 2
    assert "cckd.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["runs", "verify", "identify", "features"])
def test_what_only_training_needs_is_not_waited_for(command: str) -> None:
    code = f"import reid_cckd.commands.{command}, sys; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ctrl_c_while_a_command_is_imported_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.import_module", interrupt)
    assert main(["train", "run.yaml"]) == 130
    assert capsys.readouterr().err == "\nInterrupted.\n"
