"""Weights of other programs: whatever stands before the names, and whatever else the file holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from reid_cckd.errors import CheckpointError
from reid_cckd.models import Embedder, PublishedClassifier, Teacher

TINY: dict[str, Any] = {"channels": (8, 8, 8, 8), "stem_width": 8}
SIZE = (32, 32)


def tensors(classes: int = 7) -> dict[str, Tensor]:
    return dict(timm.create_model("resnet10t", num_classes=classes, **TINY).state_dict())


def below(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights.items()}


def student(path: Path) -> dict[str, Tensor]:
    return dict(Embedder("resnet10t", image_size=SIZE, pretrained=str(path), options=TINY).backbone.state_dict())


def wrapped(weights: dict[str, Tensor]) -> dict[str, Any]:
    torchreid = {"state_dict": below("module.", weights), "epoch": 3, "rank1": np.float64(0.5), "optimizer": {}}
    heads = {"heads.weight": torch.zeros(7, 8), "pixel_mean": torch.zeros(1, 3, 1, 1)}
    worse = {name: value + 1 for name, value in weights.items()}
    return {
        "DataParallel": below("module.", weights),
        "torchreid": torchreid,
        "fast-reid": {"model": {**below("backbone.", weights), **heads}, "iteration": 5},
        "timm": {"state_dict": worse, "state_dict_ema": weights, "args": argparse.Namespace(lr=1.0)},
        "this toolkit": {"model": below("backbone.", worse), "average": below("backbone.", weights)},
    }


@pytest.mark.parametrize("program", wrapped({}))
def test_weights_of_every_program_are_found(program: str, tmp_path: Path) -> None:
    weights = tensors()
    torch.save(wrapped(weights)[program], tmp_path / "weights.pth")
    assert all(torch.equal(value, weights[name]) for name, value in student(tmp_path / "weights.pth").items())


def test_safetensors_are_read(tmp_path: Path) -> None:
    weights = tensors()
    save_file(weights, tmp_path / "weights.safetensors")
    found = student(tmp_path / "weights.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in found.items())


def test_a_choice_between_two_networks_is_the_users(tmp_path: Path) -> None:
    both = {"state_dict": below("student.", tensors()) | below("teacher.", tensors())}
    torch.save(both, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"more than one such network, below student\. and teacher\."):
        student(tmp_path / "weights.pth")


def test_a_pickled_network_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet10t", **TINY), tmp_path / "whole.pth")
    with pytest.raises(CheckpointError, match=r"whole network.*torch\.save\(torch\.load\('whole\.pth'"):
        student(tmp_path / "whole.pth")


def test_a_teacher_needs_no_head_that_its_file_lacks(tmp_path: Path) -> None:
    weights = tensors()
    torch.save({name: value for name, value in weights.items() if not name.startswith("fc.")}, tmp_path / "none.pth")
    torch.save(weights, tmp_path / "seven.pth")
    options: dict[str, Any] = {"image_size": SIZE, "options": TINY}
    with pytest.raises(CheckpointError, match=r"head does not fit: set options: \{num_classes: 7\}\."):
        PublishedClassifier("resnet10t", pretrained=str(tmp_path / "seven.pth"), **options)
    with pytest.raises(CheckpointError, match=r"num_classes: 0\}, and learn from its embeddings"):
        PublishedClassifier("resnet10t", pretrained=str(tmp_path / "none.pth"), **options)
    options["options"] = {**TINY, "num_classes": 0}
    network = PublishedClassifier("resnet10t", pretrained=str(tmp_path / "none.pth"), **options)
    output = Teacher(network)(torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8))
    assert network.head is None
    assert output.logits is None
    assert output.embedding.shape == (2, network.width)
