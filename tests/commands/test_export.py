"""A trained network as a file: what it answers, its size, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

import reid_cckd
from reid_cckd.commands import export
from reid_cckd.commands.export import FORMATS, main
from reid_cckd.commands.extract import main as extract


def images(count: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 32, 16), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("answer", ["neck", "embedding", "logits"])
def test_the_file_answers_as_the_network_does(suffix: str, answer: str, teacher: Path, tmp_path: Path) -> None:
    path = tmp_path / f"student{suffix}"
    assert main([str(teacher), "--output", str(path), "--answer", answer]) == 0
    network = reid_cckd.load_network(teacher).network
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


def described(path: Path) -> dict[str, str]:
    """What a file says of itself, read without this package."""
    if path.suffix == ".onnx":
        import onnx

        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    extra = {"about.json": ""}
    torch.export.load(path, extra_files=extra)
    found: dict[str, str] = json.loads(extra["about.json"])
    return found


@pytest.mark.parametrize("suffix", FORMATS)
def test_who_has_the_file_alone_makes_of_a_photograph_what_extract_keeps(
    suffix: str, teacher: Path, pedestrians: Path, tmp_path: Path
) -> None:
    path, kept = tmp_path / f"student{suffix}", tmp_path / "kept"
    assert main([str(teacher), "--output", str(path), "--flip"]) == 0
    about = described(path)
    assert about["images"].startswith("(N, 3, 32, 16) uint8, RGB, 0 to 255")
    assert "height 32 and width 16" in about["preparation"]
    assert about["rows"].startswith("(N, 12) float32, at length 1")
    assert "mirrored" in about["flip"]
    odd = tmp_path / "odd"
    odd.mkdir()
    for number, size in enumerate([(45, 91), (16, 32), (7, 5)]):
        noise = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(noise).save(odd / f"{number}.png")
    (odd / "list.csv").write_text("path,label,split\n" + "".join(f"{n}.png,{n},query\n" for n in range(3)))
    data = ["data.dataset=csv", f"data.root={odd}"]
    assert extract([str(teacher), "--output", str(kept), "--roles", "query", *data]) == 0
    wanted = functional.normalize(torch.from_numpy(np.load(kept / "vectors.npy")))
    photographs = [
        Image.open(odd / f"{n}.png").convert("RGB").resize((16, 32), Image.Resampling.BILINEAR) for n in range(3)
    ]
    prepared = torch.from_numpy(np.stack([np.array(image) for image in photographs])).permute(0, 3, 1, 2).contiguous()
    answer = FORMATS[suffix][1](path)
    torch.testing.assert_close(answer(prepared), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(answer(prepared[:1]), wanted[:1], rtol=1e-4, atol=1e-5)


def test_class_scores_come_with_their_classes(teacher: Path, tmp_path: Path) -> None:
    path = tmp_path / "student.pt2"
    assert main([str(teacher), "--output", str(path), "--answer", "logits"]) == 0
    assert json.loads(described(path)["classes"]) == reid_cckd.load_network(teacher).classes


def test_a_file_without_the_mirror_that_tests_add_says_so(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(teacher), "--output", str(tmp_path / "student.pt2")]) == 0
    assert "--flip puts that into it" in capsys.readouterr().out


def test_a_loaded_network_answers_as_it_is_tested(teacher: Path) -> None:
    assert not reid_cckd.load_network(teacher).network.training


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
