"""Pictures of a teacher and its student, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from reid_cckd.commands.__main__ import main
from tests.commands.conftest import recipe, write_config


@pytest.fixture(scope="module")
def student(pedestrians: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    values = recipe(
        pedestrians,
        folder / "run",
        objective={"beta": 10.0},
        teacher={"checkpoint": str(teacher), "allow_weak": True},
        train={"epochs": 1},
    )
    assert main(["train", str(write_config(folder / "student.yaml", values))]) == 0
    return folder / "run"


def test_every_picture_is_drawn(
    teacher: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["figures", f"teacher={teacher.parent}", f"CC={student}", "--output", str(tmp_path)]) == 0
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == ["curves.png", "histograms.png", "retention.png", "similarity.png"]
    assert all(Image.open(path).width > 300 for path in tmp_path.iterdir())
    assert str(tmp_path / "retention.png") in capsys.readouterr().out


def test_runs_that_cannot_be_compared_are_refused(
    teacher: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["figures", str(teacher.parent), "--output", str(tmp_path)]) == 2
    assert "two runs" in capsys.readouterr().err
    assert main(["figures", str(teacher.parent), str(tmp_path / "nowhere"), "--output", str(tmp_path)]) == 2
    assert "report.json" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
