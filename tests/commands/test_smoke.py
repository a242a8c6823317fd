"""`reid-cckd smoke`: one family for real, and that no family lacks a twin."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reid_cckd.commands.smoke import main
from reid_cckd.config import load_config
from reid_cckd.data import TWINS

CONFIGS = Path(__file__).parent.parent.parent / "configs"


def test_a_family_is_trained_and_evaluated_and_a_broken_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(CONFIGS / "quickstart", tmp_path / "quickstart")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "cckd.yaml").write_text("output: x\n")
    assert main(["--configs", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert "1 of 3 runs failed: broken/cckd" in printed.err
    rows = [line.split() for line in printed.out.splitlines() if line.startswith(("quickstart ", "broken "))]
    assert [row[:2] for row in rows] == [["broken", "cckd"], ["quickstart", "teacher"], ["quickstart", "cckd"]]
    assert all("mean_ap" in row for row in rows[1:])
    assert (tmp_path / "out" / "quickstart" / "cckd" / "report.json").exists()
    assert main(["quickstart", "--configs", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "out holds runs of quickstart already" in capsys.readouterr().err


def test_every_family_has_a_twin() -> None:
    files = list(CONFIGS.glob("*/cckd.yaml"))
    assert len(files) > 5
    assert {load_config(path).data.dataset for path in files} <= {*TWINS, "msmt17", "synthetic"}


def test_a_family_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nothing", "--configs", str(CONFIGS)]) == 2
    assert "There is no family nothing" in capsys.readouterr().err
