"""A tiny data set and a tiny trained teacher, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from reid_cckd.commands.train import main as train_main
from reid_cckd.data import write_pedestrians

TINY = {"channels": [8, 8, 16, 16], "stem_width": 8}


@pytest.fixture(scope="session")
def pedestrians(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "pedestrians"
    write_pedestrians(root, train_ids=12, test_ids=6, images_per_id=8, cameras=3, size=(32, 16), workers=1)
    return root


def recipe(root: Path, output: Path, **sections: object) -> dict[str, object]:
    """A configuration that trains in a second."""
    values: dict[str, object] = {
        "output": str(output),
        "seed": 3,
        "data": {"root": str(root), "image_size": [32, 16], "cache": "memory", "workers": 0},
        "model": {"backbone": "resnet10t", "options": TINY, "embedding": 12},
        "sampler": {"classes_per_batch": 4, "samples_per_class": 4},
        "optim": {"lr": 0.003},
        "train": {"epochs": 2, "evaluate_every": 1, "checkpoint_every": 2, "device": "cpu"},
        "evaluation": {"sheet_rows": 3},
    }
    for name, section in sections.items():
        old = values.get(name)
        values[name] = {**old, **section} if isinstance(old, dict) and isinstance(section, dict) else section
    return values


def write_config(path: Path, values: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def teacher(pedestrians: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a trained teacher."""
    folder = tmp_path_factory.mktemp("teacher")
    config = write_config(folder / "teacher.yaml", recipe(pedestrians, folder / "run"))
    assert train_main([str(config)]) == 0
    return folder / "run" / "last.pt"
