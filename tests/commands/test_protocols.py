"""What `test` refuses to measure, because the number would be that of something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reid_cckd.commands.__main__ import main
from reid_cckd.engine import Embeddings


def embedded(roles: list[str], labels: np.ndarray | None = None) -> Embeddings:
    """Twelve images of three people by three cameras."""
    vectors = np.random.default_rng(0).standard_normal((12, 6)).astype(np.float32)
    people, cameras = np.arange(12) % 3, np.arange(12) // 4
    paths = np.array([f"{number}.jpg" for number in range(12)])
    about = {"source": "x", "flip": True, "on": "neck"}
    return Embeddings(vectors, people if labels is None else labels, cameras, paths, np.array(roles), about)


REID = ["query"] * 6 + ["gallery"] * 6


def refusal(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: object) -> str:
    """What a command says that ends without a report."""
    assert main([*map(str, arguments), "--output", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("roles", "arguments"),
    [
        (REID, ()),
        (REID, ("--protocol", "single-shot")),
        (["test"] * 12, ("--protocol", "recall")),
    ],
)
def test_unlabelled_images_do_not_search_as_one_person(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], roles: list[str], arguments: tuple[str, ...]
) -> None:
    labels = np.array([-1, -1, 2, 0, 1, 2] * 2)
    embedded(roles, labels).save(tmp_path / "set")
    message = refusal(capsys, tmp_path, "test", tmp_path / "set", *arguments)
    assert "are unlabelled (label -1), and would count as images of one person" in message


def test_unlabelled_images_in_the_gallery_are_distractors(tmp_path: Path) -> None:
    embedded(REID, np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, -1, -1, -1])).save(tmp_path / "set")
    assert main(["test", str(tmp_path / "set"), "--output", str(tmp_path / "out")]) == 0
