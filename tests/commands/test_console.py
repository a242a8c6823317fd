"""What a person sees of an error."""

from __future__ import annotations

import argparse
import errno
import os

import pytest

from reid_cckd.commands.console import make_parser, parse, run


def test_a_full_disk_is_one_paragraph(capsys: pytest.CaptureFixture[str]) -> None:
    def command(arguments: argparse.Namespace) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a/log.jsonl")

    assert run(command, make_parser("any", "", ""), []) == 2
    assert capsys.readouterr().err.strip() == (
        "error: No space left to write runs/a/log.jsonl. Free space and give the same command again."
    )


def test_other_errors_of_the_system_are_not_hidden() -> None:
    def command(arguments: argparse.Namespace) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output"):
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
