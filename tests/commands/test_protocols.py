"""What `test` refuses to measure, because the number would be that of something else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reid_cckd.commands.__main__ import main
from reid_cckd.engine import Embeddings
from reid_cckd.evaluation import evaluate_recall


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


def test_recall_takes_the_ranks_it_is_given_and_no_key_that_it_would_ignore(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = embedded(["test"] * 12)
    rows.save(tmp_path / "set")
    arguments = ["test", str(tmp_path / "set"), "--protocol", "recall"]
    message = refusal(capsys, tmp_path, *arguments, "evaluation.flip=false")
    assert "evaluation.flip=false: this changes evaluation.ranks, train.device only" in message
    assert main([*arguments, "evaluation.ranks=[1, 10]", "--output", str(tmp_path / "out")]) == 0
    scores = json.loads((tmp_path / "out" / "report.json").read_text())["scores"]
    assert scores == evaluate_recall(rows.vectors, rows.labels, (1, 10)).summary()


def test_a_checkpoint_is_not_measured_by_another_protocol_than_its_own(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(capsys, tmp_path, "test", teacher, "--protocol", "recall")
    assert "evaluation.task=recall lets search" in message
    message = refusal(capsys, tmp_path, "test", teacher, "evaluation.task=recall", "--protocol", "single-shot")
    assert "--protocol single-shot is of retrieval or embeddings" in message


def test_single_query_is_not_called_multi_query(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = embedded(REID)
    replace(rows, cameras=np.arange(12)).save(tmp_path / "alone")
    message = refusal(capsys, tmp_path, "test", tmp_path / "alone", "--protocol", "multi-query")
    assert "no person has two queries at one camera" in message
    replace(rows, cameras=rows.cameras // 2).save(tmp_path / "several")
    assert (
        main(["test", str(tmp_path / "several"), "--protocol", "multi-query", "--output", str(tmp_path / "out")]) == 0
    )
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["queries"]["images"], report["protocol"]["queries"]) == (6, 3)


@pytest.mark.parametrize(("key", "value"), [("flip", False), ("on", "embedding")])
def test_query_and_gallery_are_extracted_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, value: object
) -> None:
    rows = embedded(REID)
    rows.save(tmp_path / "set")
    replace(rows, about={**rows.about, key: value}).save(tmp_path / "other")
    message = refusal(capsys, tmp_path, "test", tmp_path / "set", "--gallery", tmp_path / "other")
    assert f"set was extracted with evaluation.{key}=" in message


@pytest.mark.parametrize("column", ["labels", "cameras"])
def test_a_paired_test_needs_the_same_labels_and_cameras(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str
) -> None:
    rows = embedded(REID)
    rows.save(tmp_path / "set")
    replace(rows, **{column: getattr(rows, column)[::-1]}).save(tmp_path / "other")
    for arguments in (["test", tmp_path / "set", "--compare"], ["compare", tmp_path / "set"]):
        message = refusal(capsys, tmp_path, *arguments, tmp_path / "other")
        assert "give the same query images other labels or cameras" in message


def test_agreement_is_said_of_the_neighbours_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embedded(REID).save(tmp_path / "set")
    arguments = ["compare", *[str(tmp_path / "set")] * 2, "-k", "50", "--rows", "0", "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert "The 6 nearest of a query agree by 100.0 %" in capsys.readouterr().out


def test_a_paired_test_says_that_the_order_may_be_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = embedded(REID)
    rows.save(tmp_path / "set")
    rows.take(np.array([1, 0, *range(2, 12)])).save(tmp_path / "turned")
    message = refusal(capsys, tmp_path, "test", tmp_path / "set", "--compare", tmp_path / "turned")
    assert "different query images (6 and 6), or the same in another order" in message
