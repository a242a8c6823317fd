"""Every YAML file in configs/ loads, and what it describes can be built without data or downloads."""

from __future__ import annotations

from pathlib import Path

import pytest

from reid_cckd import build
from reid_cckd.config import load_config
from reid_cckd.config.expansion import expand_study
from reid_cckd.config.study import load_study
from reid_cckd.data import LAYOUTS, build_augment, build_batched_augment

REPOSITORY = Path(__file__).parent.parent
STUDIES = sorted((REPOSITORY / "configs" / "studies").rglob("*.yaml"))
FILES = sorted(set((REPOSITORY / "configs").rglob("*.yaml")) - set(STUDIES))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_config_builds(path: Path) -> None:
    config = load_config(path)
    assert config.data.dataset in LAYOUTS
    if config.data.cache == "device":
        assert build_batched_augment(config.data.augment, config.data.image_size, config.seed)
    build_augment(config.data.augment, config.data.image_size)
    student = build.build_network(config, num_classes=7, pretrained=False)
    teacher = build.Loaded(student, config, list(range(7)), "") if config.teacher else None
    objective = build.build_objective(config, list(range(7)), student, teacher, num_images=70)
    assert list(objective.weights(0.5))
    assert path.parent.name in config.output
    assert path.stem in config.output


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_study_expands(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    runs = expand_study(load_study(path)[0], path)
    assert len({run.folder for run in runs}) == len(runs)
