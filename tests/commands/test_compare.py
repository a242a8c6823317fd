"""`compare`: the distillation report of two networks on the same images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reid_cckd.commands.__main__ import main
from reid_cckd.engine import Embeddings
from reid_cckd.evaluation import evaluate_distillation


@pytest.fixture(scope="module")
def kept(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A teacher's embeddings, and a student that blurs them."""
    folder = tmp_path_factory.mktemp("kept")
    assert main(["extract", str(teacher), "--output", str(folder / "teacher")]) == 0
    rows = Embeddings.load(folder / "teacher")
    noise = np.random.default_rng(0).standard_normal(rows.vectors.shape).astype(np.float32)
    blurred = rows.vectors + noise * np.linalg.norm(rows.vectors) / np.linalg.norm(noise)
    rest = (rows.labels, rows.cameras, rows.paths, rows.roles)
    Embeddings(blurred, *rest, {"source": "student"}).save(folder / "student")
    Embeddings(blurred[:, :7], *rest, {"source": "narrow"}).save(folder / "narrow")
    Embeddings(blurred, rows.labels + 1, *rest[1:], {"source": "other"}).save(folder / "relabelled")
    return folder / "teacher", folder / "student"


def test_the_report_is_the_librarys(
    kept: tuple[Path, Path], pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*map(str, kept), f"data.root={pedestrians}", "-k", "5", "--output", str(tmp_path)]
    assert main(["compare", *arguments]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    parts = [Embeddings.load(path).select(role) for path in kept for role in ("query", "gallery")]
    query, gallery = parts[:2]
    columns = (query.labels, gallery.labels, query.cameras, gallery.cameras)
    expected = evaluate_distillation(*(part.vectors for part in parts), *columns, k=5)
    assert report["retention"] == pytest.approx(expected.retention)
    assert report["retention_across"] == pytest.approx(expected.retention_across)
    assert report["agreement"] == pytest.approx(expected.agreement)
    assert report["num_worse"] == len(expected.worse) > 0
    worst = report["worse"][0]
    assert worst["query"] == query.paths[expected.worse[0]]
    assert worst["teacher_ap"] > worst["student_ap"]
    assert report["comparison"]["difference"] == pytest.approx(expected.student.mean_ap - expected.teacher.mean_ap)
    assert (tmp_path / "worse.png").stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "beyond the inputs" in printed
    assert "student in the teacher's gallery" in printed


def test_other_widths_leave_the_asymmetric_search_out(
    kept: tuple[Path, Path], teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow = str(kept[0].parent / "narrow")
    assert main(["compare", str(teacher), narrow, "--rows", "0", "--output", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "report.json").read_text())["retention_across"] is None
    assert "widths differ" in capsys.readouterr().out
    assert not (tmp_path / "worse.png").exists()


@pytest.mark.parametrize(
    ("student", "options", "words"),
    [("relabelled", [], "other labels"), ("student", ["-k", "0"], "-k"), ("gone", [], "does not exist")],
)
def test_what_cannot_be_compared_is_a_sentence(
    kept: tuple[Path, Path],
    student: str,
    options: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [str(kept[0]), str(kept[0].parent / student), *options, "--output", str(tmp_path)]
    assert main(["compare", *arguments]) == 2
    assert words in capsys.readouterr().err
