"""A trained network as a file: what it answers, its size, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

import reid_cckd
from reid_cckd.commands import export
from reid_cckd.commands.export import FORMATS, main


def images(count: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 32, 16), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("answer", ["neck", "embedding", "logits"])
def test_the_file_answers_as_the_network_does(suffix: str, answer: str, teacher: Path, tmp_path: Path) -> None:
    path = tmp_path / f"student{suffix}"
    assert main([str(teacher), "--output", str(path), "--answer", answer]) == 0
    network = reid_cckd.load_network(teacher).network.eval()
    with torch.no_grad():
        wanted = getattr(network(images()), answer)
    wanted = wanted if answer == "logits" else functional.normalize(wanted)
    torch.testing.assert_close(FORMATS[suffix][1](path)(images()), wanted, rtol=1e-4, atol=1e-5)


def test_what_the_test_compares_is_the_default_and_the_head_is_left_out(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "student.pt2"
    assert main([str(teacher.parent), "--output", str(path)]) == 0
    assert "(N, 3, 32, 16) uint8 RGB to (N, 12) embeddings at length 1" in capsys.readouterr().out
    assert not [name for name in torch.export.load(path).state_dict if "head" in name]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "student.pkl"], [".pt2 or .onnx", "student.pkl"]),
        (["--output", "student.pt2", "--answer", "logits"], ["no class head"]),
    ],
)
def test_what_cannot_be_written_is_refused(
    arguments: list[str],
    words: list[str],
    teacher: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    def headless(path: Path) -> Any:
        loaded = reid_cckd.load_network(path)
        loaded.network.head = None
        return loaded

    monkeypatch.setattr(export, "load_network", headless)
    assert main([str(teacher), *arguments]) == 2
    error = capsys.readouterr().err
    assert not [word for word in words if word not in error]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_answers_otherwise_is_not_left(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, read = FORMATS[".pt2"]
    monkeypatch.setitem(FORMATS, ".pt2", (write, lambda path: lambda found: 0.9 * read(path)(found)))
    assert main([str(teacher), "--output", str(tmp_path / "student.pt2")]) == 2
    assert "nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_onnx_without_its_packages_says_what_to_install(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: __import__("onnxscript"))
    assert main([str(teacher), "--output", str(tmp_path / "student.onnx")]) == 2
    assert "pip install onnx onnxscript" in capsys.readouterr().err
