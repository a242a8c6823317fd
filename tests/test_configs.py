"""Every YAML file in configs/ loads, and what it describes can be built without data or downloads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reid_cckd import build
from reid_cckd.config import Config, load_config
from reid_cckd.config.expansion import expand_study
from reid_cckd.config.study import load_study
from reid_cckd.data import LAYOUTS, build_augment, build_batched_augment
from reid_cckd.models import Embedder

REPOSITORY = Path(__file__).parent.parent
STUDIES = sorted((REPOSITORY / "configs" / "studies").rglob("*.yaml"))
FILES = sorted(set((REPOSITORY / "configs").rglob("*.yaml")) - set(STUDIES))
CLASSES = list(range(7))
NETWORKS: dict[str, Embedder] = {}


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
def test_study_expands_and_every_row_builds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    study = load_study(path)[0]
    runs = expand_study(study, path)
    assert len({run.folder for run in runs}) == len(runs)
    teachers = {str(run.folder / "last.pt"): run.config for run in runs if run.is_teacher}
    for run in runs:
        if run.config.seed == study.seeds[0]:
            teacher = teacher_of(run.config, teachers)
            classes = CLASSES if teacher is None else teacher.classes
            assert build.build_objective(run.config, classes, network(run.config, len(classes)), teacher, 70), run.row


def teacher_of(config: Config, teachers: dict[str, Config]) -> build.Loaded | None:
    """The teacher of a run, as it is before any training."""
    settings = config.teacher
    if settings is None:
        return None
    if settings.backbone:
        return build.load_teacher(replace(config, teacher=replace(settings, pretrained=False)))
    trained = teachers[settings.checkpoint]
    return build.Loaded(network(trained, len(CLASSES)), trained, CLASSES, "")


def network(config: Config, num_classes: int) -> Embedder:
    """Made once for all runs that have the same."""
    scores = config.objective.cross_entropy or config.objective.alpha < 1
    key = repr((config.model, config.data.image_size, scores, num_classes))
    if key not in NETWORKS:
        NETWORKS[key] = build.build_network(config, num_classes, pretrained=False)
    return NETWORKS[key]
