"""Training on an accelerator: the run of the CPU by whole commands, in steps that do not wait for the device."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_cckd.batch import Batch
from reid_cckd.commands.test import main as evaluate
from reid_cckd.commands.train import main as train
from reid_cckd.data import DeviceImages
from reid_cckd.engine import TeacherCache, Trainer, load_checkpoint
from tests.accelerator.device import NAME, WAITS
from tests.commands.conftest import pedestrians, recipe, teacher, write_config  # noqa: F401

TERMS = [{"name": "mimic", "loss": "cosine_mimic", "weight": 10.0, "on": "neck"}]
CCKD = {"alpha": 0.5, "beta": 100.0, "correlate": "neck", "terms": TERMS}
SUR = {"kind": "sur", "num_superclasses": 3, "superclasses_per_batch": 2, "samples_per_superclass": 8}
ON_DEVICE = {"cache": "device", "augment": ["HorizontalFlip", {"Erasing": {"fill": [120, 110, 100]}}]}
REPEATING = {"classes_per_batch": 4, "samples_per_class": 10}  # of eight images
KINDS: dict[str, dict[str, dict[str, object]]] = {
    "online": {"train": {"clip_norm": 1.0}, "objective": {**CCKD, "correlation": {"memory": 40}}},
    "recorded": {"train": {"cuda_graph": True}},
    "recorded, answers kept": {"train": {"cuda_graph": True}, "teacher": {"mode": "views", "views": 2}},
    "in chunks": {"train": {"chunk": 8}},
    "views": {"teacher": {"mode": "views", "views": 2}, "sampler": SUR},
    "clean": {"teacher": {"mode": "clean"}, "data": ON_DEVICE},
    "views on the device": {"teacher": {"mode": "views", "views": 2}, "data": ON_DEVICE, "sampler": REPEATING},
}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where the steps of a training waited for the device, and where the making of images on it did.

    But for the first two steps of an epoch: one reports the balance, one may be recorded.
    """
    found: list[str] = []
    plain, together = Trainer._step, DeviceImages._together

    def step(self: Trainer, loaded: Batch) -> None:
        WAITS.clear()
        plain(self, loaded)
        found.extend(WAITS if self.position.batch > 1 else [])

    def make(self: DeviceImages, parts: Sequence[Sequence[int]], epoch: int) -> Iterator[Batch]:
        WAITS.clear()
        batches = together(self, parts, epoch)
        found.extend(WAITS)
        return batches

    monkeypatch.setattr(Trainer, "_step", step)
    monkeypatch.setattr(DeviceImages, "_together", make)
    return found


def configure(root: Path, checkpoint: Path, output: Path, **sections: Any) -> str:
    settings = {"checkpoint": str(checkpoint), "cache": str(output / "answers"), "allow_weak": True}
    everything = {**sections, "teacher": {**settings, **sections.get("teacher", {})}}
    everything.setdefault("objective", CCKD)
    everything["optim"] = {"name": "sgd", "lr": 0.001}  # which does not make the rounding of small gradients large
    everything["train"] = {"channels_last": False, "amp": "off", **sections.get("train", {})}
    return str(write_config(output.parent / f"{output.name}.yaml", recipe(root, output, **everything)))


def logged_losses(folder: Path) -> list[float]:
    """The means of a run's log."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_that_of_the_cpu(
    kind: str,
    pedestrians: Path,  # noqa: F811
    teacher: Path,  # noqa: F811
    tmp_path: Path,
    waits: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if KINDS[kind].get("data", {}).get("cache") == "device":
        monkeypatch.delattr(TeacherCache, "look_up")  # answers lie on the device too
    for device in ("cpu", NAME):
        config = configure(pedestrians, teacher, tmp_path / device, **KINDS[kind])
        assert train([config, f"train.device={device}"]) == 0
    assert waits == []
    losses = [logged_losses(tmp_path / device) for device in ("cpu", NAME)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4 if NAME != "cuda" else 0.02)
    near, far = (load_checkpoint(tmp_path / device / "last.pt") for device in ("cpu", NAME))
    for name, weights in near["model"].items():
        torch.testing.assert_close(far["model"][name], weights, rtol=1e-3, atol=1e-4 if NAME != "cuda" else 1e-2)
    reports = [json.loads((tmp_path / device / "report.json").read_text())["scores"] for device in ("cpu", NAME)]
    assert reports[1] == pytest.approx(reports[0], abs=0.02 if NAME != "cuda" else 0.1)


def test_a_run_goes_on_and_is_tested(
    pedestrians: Path,  # noqa: F811
    teacher: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = configure(pedestrians, teacher, tmp_path / "run")

    def leave(self: Trainer) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_log_means", leave)  # not reached in the six steps of the first epoch
        patch.setattr("reid_cckd.engine.trainer.LOG_EVERY", 8)
        assert train([config, f"train.device={NAME}"]) != 0
    assert load_checkpoint(tmp_path / "run" / "last.pt")["position"]["epoch"] == 1
    assert train([config, f"train.device={NAME}", "--resume"]) == 0
    assert load_checkpoint(tmp_path / "run" / "last.pt")["position"]["epoch"] == 2
    report = str(tmp_path / "report")
    assert evaluate([str(tmp_path / "run" / "last.pt"), f"train.device={NAME}", "--output", report]) == 0
