"""What a person sees of an error."""

from __future__ import annotations

import argparse
import errno
import os

import pytest

from reid_cckd.commands.console import make_parser, run


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
