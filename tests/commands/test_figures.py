"""Pictures of a teacher and its student, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from reid_cckd.commands.__main__ import main
from reid_cckd.commands.figures import named_folders
from reid_cckd.errors import ConfigError
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


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("t", "KD/seed0", "CC_beta=2/seed0"):
        Path(name).mkdir(parents=True)
    found = named_folders(["t", "KD/seed0", "CC_beta=2/seed0"])
    assert {name: str(folder) for name, folder in found.items()} == {
        "t": "t",
        "KD/seed0": "KD/seed0",
        "CC_beta=2/seed0": "CC_beta=2/seed0",
    }
    assert named_folders(["t", "my=CC_beta=2/seed0"]) == {"t": Path("t"), "my": Path("CC_beta=2/seed0")}
    with pytest.raises(ConfigError, match="two runs are called 't'"):
        named_folders(["t", "t"])
