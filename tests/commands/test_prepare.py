"""`reid-cckd prepare`: what it prints, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reid_cckd.commands.data import main as data_main
from reid_cckd.commands.prepare import main
from reid_cckd.data import LAYOUTS


def test_people_become_a_pack_that_can_be_checked(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = ["--dataset", "synthetic", "--root", str(pedestrians)], str(tmp_path / "out")
    arguments = ["recordio", *source, "--output", out, "--roles", "train", "--json", str(tmp_path / "made.json")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    train = LAYOUTS["synthetic"](pedestrians).select("train")
    assert f"{len(train):,} images, about 1 MB to write" in printed
    assert f"{len(train):,} images of 12 people or classes" in printed
    assert f"Read it with data.dataset=recordio data.root={out}" in printed
    assert json.loads((tmp_path / "made.json").read_text())["compared"] == len(train)
    assert data_main(["check", "--dataset", "recordio", "--root", out]) == 0
    assert LAYOUTS["recordio"](out).labels.tolist() == sorted(train.labels.tolist())


def test_packed_images_keep_all_roles(pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "set").symlink_to(pedestrians)
    out = str(tmp_path / "out")
    assert (
        main(["packed", "--dataset", "synthetic", "--root", f"{tmp_path}/set", "--output", out, "--size", "8", "4"])
        == 0
    )
    assert "data.dataset=packed" in capsys.readouterr().out
    assert LAYOUTS["packed"](out).counts() == LAYOUTS["synthetic"](pedestrians).counts()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["packed"], "give --size HEIGHT WIDTH"),
        (["recordio"], "holds images of the roles train, query, gallery, which recordio does not tell apart"),
        (["identities", "--im2rec"], "--im2rec goes with recordio"),
        (["identities", "--roles", "val"], "has no val images"),
        (["identities", "--workers", "-1"], "--workers -1: expected a number of threads from 1 up"),
        (["packed", "--size", "0", "4"], "expected numbers of pixels above 0"),
        (["identities", "--dataset", "synthetik"], "--dataset: no layout 'synthetik'. Did you mean 'synthetic'?"),
    ],
)
def test_what_does_not_belong_together(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    source = ["--dataset", "synthetic", "--root", str(pedestrians), "--output", str(tmp_path / "out")]
    assert main([arguments[0], *source, *arguments[1:]]) == 2
    assert part in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
