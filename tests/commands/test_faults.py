"""What may happen to a run from outside while it trains: an image is damaged, the clock jumps."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reid_cckd.batch import Batch
from reid_cckd.build import read_manifest
from reid_cckd.commands.__main__ import main
from reid_cckd.commands.train import main as train_main
from reid_cckd.config import load_config
from reid_cckd.engine import Trainer, file_hash, load_checkpoint
from tests.commands.conftest import recipe, write_config


def before_step(patch: pytest.MonkeyPatch, number: int, event: Callable[[], None]) -> None:
    step = Trainer._step

    def stepped(self: Trainer, batch: Any) -> None:
        if self.position.step == number:
            event()
        step(self, batch)

    patch.setattr(Trainer, "_step", stepped)


def record(patch: pytest.MonkeyPatch) -> list[Batch]:
    """The batches of the runs that follow, as they are trained on."""
    seen: list[Batch] = []
    step = Trainer._step

    def recorded(self: Trainer, batch: Batch) -> None:
        seen.append(batch)
        step(self, batch)

    patch.setattr(Trainer, "_step", recorded)
    return seen


def distilled(root: Path, teacher: Path, output: Path, cache: str) -> dict[str, object]:
    """A recipe in which much goes by the numbers of images: kept answers, CRD's banks, batches."""
    crd = {"name": "crd", "loss": "crd", "options": {"negatives": 8}}
    mode = {"mode": "views", "views": 2, "cache": str(output.parent / "answers")}
    asked = {"checkpoint": str(teacher), "allow_weak": True, **mode}
    parts = {"teacher": asked, "objective": {"alpha": 0.5, "terms": [crd]}, "train": {"checkpoint_every": 20}}
    return recipe(root, output, data={"cache": cache}, **parts)


def model(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_checkpoint(folder / "last.pt")["model"]
    return weights


def assert_same_weights(one: Path, other: Path) -> None:
    left, right = model(one), model(other)
    assert not [name for name in left if not torch.equal(left[name], right[name])]


@pytest.fixture
def copied(pedestrians: Path, tmp_path: Path) -> Path:
    """A data set of one's own, to damage."""
    shutil.copytree(pedestrians, tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_damaged_in_mid_run_stops_it_and_costs_nothing_once_restored(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    data = {"cache": "none", "workers": workers}
    config = str(write_config(tmp_path / "run.yaml", recipe(copied, tmp_path / "run", data=data)))
    assert train_main([config, f"output={tmp_path / 'whole'}"]) == 0
    images = {path: path.read_bytes() for path in (copied / "train").rglob("*.jpg")}

    def damage() -> None:
        for path, content in images.items():
            path.write_bytes(content[:100])

    with monkeypatch.context() as patch:
        before_step(patch, 4, damage)
        assert train_main([config]) == 2
    message = capsys.readouterr().err
    assert "cannot be decoded" in message
    assert "Traceback" not in message
    assert 0 < load_checkpoint(tmp_path / "run" / "last.pt")["position"]["step"] < 12
    for path, content in images.items():
        path.write_bytes(content)
    assert train_main([config, "--resume"]) == 0
    assert_same_weights(tmp_path / "whole", tmp_path / "run")


def test_an_image_damaged_in_mid_run_is_left_out_if_damaged_images_are_skipped(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = recipe(copied, tmp_path / "run", data={"cache": "none", "on_bad_image": "skip"})
    victims = sorted((copied / "train").rglob("*.jpg"))[::4]  # two of eight of every person
    before_step(monkeypatch, 2, lambda: [path.unlink() for path in victims] and None)
    assert train_main([str(write_config(tmp_path / "run.yaml", values))]) == 0
    told = capsys.readouterr().err
    assert [told.count(path.name) for path in victims] == [1] * len(victims)
    assert load_checkpoint(tmp_path / "run" / "last.pt")["position"]["step"] == 12


def test_a_damaged_query_costs_no_run(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = recipe(copied, tmp_path / "run", data={"cache": "none"}, train={"evaluate_every": 2})
    config = str(write_config(tmp_path / "run.yaml", values))
    assert train_main([config, f"output={tmp_path / 'whole'}"]) == 0
    query = (copied / "list_query.txt").read_text().partition(" ")[0]
    (copied / "test" / query).write_bytes(b"")
    assert train_main([config]) == 2  # at the end of the second epoch, the first that is evaluated
    assert "cannot be decoded" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "run" / "last.pt")["position"]["epoch"] == 1
    assert train_main([config, "--resume", "data.on_bad_image=skip"]) == 0
    assert f"skipped, damaged: {copied / 'test' / query}" in capsys.readouterr().out
    assert_same_weights(tmp_path / "whole", tmp_path / "run")


def test_a_clock_that_jumps_changes_nothing(pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = str(write_config(tmp_path / "run.yaml", recipe(pedestrians, tmp_path / "run", train={"epochs": 4})))
    assert train_main([config, f"output={tmp_path / 'whole'}"]) == 0
    jumps = itertools.cycle([0.0, 1e7, -1e9, 5e8])
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + next(jumps))
    assert train_main([config]) == 0
    assert_same_weights(tmp_path / "whole", tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    (speed,) = [row["system"]["images_per_second"] for row in rows if "system" in row]
    assert 1 < speed < 1e6


SKIP = "data.on_bad_image=skip"


def stop_at_step(number: int, config: str, *arguments: str) -> None:
    """Train until that many updates are done and saved."""
    with pytest.MonkeyPatch.context() as patch:
        before_step(patch, number - 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train_main([config, *arguments]) == 128 + signal.SIGTERM


def training_paths(config: str) -> Sequence[str]:
    return read_manifest(load_config(config).data).select("train").paths


@pytest.mark.parametrize("cache", ["none", "memory", "packed", "device"])
@pytest.mark.parametrize("skips", [False, True])
def test_what_happens_to_images_while_a_run_rests_moves_no_other(
    copied: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str, skips: bool
) -> None:
    config = str(write_config(tmp_path / "run.yaml", distilled(copied, teacher, tmp_path / "run", cache)))
    paths, arguments = training_paths(config), [SKIP] if skips else []
    first = (copied / paths[0]).read_bytes()
    if skips:
        (copied / paths[0]).write_bytes(b"")
    with monkeypatch.context() as patch:
        drawn = record(patch)
        assert train_main([config, *arguments, f"output={tmp_path / 'whole'}"]) == 0
    stop_at_step(11, config, *arguments)
    later = set((drawn[11].index + skips).tolist())
    victim = min(set(range(1, len(paths))) - later)  # everything behind it would move up
    (copied / paths[0]).write_bytes(first)  # and down, if it was left out
    (copied / paths[victim]).write_bytes(b"")
    assert train_main([config, "--resume", SKIP]) == 0
    for part in ("model", "objective"):  # the banks of CRD too
        left, right = (load_checkpoint(tmp_path / name / "last.pt")[part] for name in ("whole", "run"))
        assert [name for name in left if not torch.equal(left[name], right[name])] == []


@pytest.mark.parametrize("cache", ["none", "device"])
def test_the_next_of_its_class_is_shown_for_an_image_damaged_while_a_run_rested(
    copied: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    config = str(write_config(tmp_path / "run.yaml", distilled(copied, teacher, tmp_path / "run", cache)))
    with monkeypatch.context() as patch:
        whole = record(patch)
        assert train_main([config, f"output={tmp_path / 'whole'}"]) == 0
    stop_at_step(6, config)
    victim = int(whole[6].index[0])
    (copied / training_paths(config)[victim]).write_bytes(b"")
    drawn = record(monkeypatch)
    assert train_main([config, "--resume", SKIP]) == 0
    bank = load_checkpoint(tmp_path / "run" / "last.pt")["objective"]["modules_by_name.crd.teacher_bank"]
    assert len(bank) == len(training_paths(config))
    labels = read_manifest(load_config(config).data).select("train").labels
    kin = np.flatnonzero(labels == labels[victim]).tolist()
    stand_in = kin[(kin.index(victim) + 1) % len(kin)]
    for before, after in zip(whole[6:], drawn, strict=True):
        assert torch.equal(after.labels, before.labels)
        assert torch.equal(after.index, before.index.masked_fill(before.index == victim, stand_in))
        others = (before.index != victim) & (before.index != stand_in)
        assert torch.equal(after.images[others], before.images[others])


def test_superclasses_found_anew_after_an_image_was_damaged_have_it_beside_its_stand_in(
    copied: Path, teacher: Path, tmp_path: Path
) -> None:
    sampler = {"num_superclasses": 4, "superclasses_per_batch": 4, "samples_per_superclass": 4, "refresh_every": 1}
    values = distilled(copied, teacher, tmp_path / "run", "none")
    config = str(write_config(tmp_path / "run.yaml", {**values, "sampler": {"kind": "sur", **sampler}}))
    stop_at_step(3, config)
    (copied / training_paths(config)[10]).write_bytes(b"")
    assert train_main([config, "--resume", SKIP]) == 0
    first, second = (np.load(tmp_path / "run" / f"superclasses_000{turn}.npz")["assignments"] for turn in (0, 1))
    assert len(first) == len(second) == 96
    assert second[10] == second[11]


def spoil_a_person(root: Path, paths: Sequence[str], answers: Path) -> None:
    for path in paths:
        if "/0001/" in path:
            (root / path).write_bytes(b"")


def add_an_image(root: Path, paths: Sequence[str], answers: Path) -> None:
    listed = root / "list_train.txt"
    first = listed.read_text().splitlines()[0]
    other = first.replace("/0000_000_", "/0000_099_")
    shutil.copy(root / "train" / first.split()[0], root / "train" / other.split()[0])
    listed.write_text(f"{listed.read_text()}{other}\n")


def lose_the_answers(root: Path, paths: Sequence[str], answers: Path) -> None:
    shutil.rmtree(answers)
    (root / paths[5]).write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_a_person, ["so is every other image of its class", "Restore one"]),
        (add_an_image, ["not those that this run began with"]),
        (lose_the_answers, ["damaged since the run began", "answers", "Restore"]),
    ],
)
def test_what_a_rested_run_cannot_go_on_with_is_said_before_the_first_step(
    copied: Path,
    teacher: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path, Sequence[str], Path], None],
    words: list[str],
) -> None:
    config = str(write_config(tmp_path / "run.yaml", distilled(copied, teacher, tmp_path / "run", "none")))
    stop_at_step(2, config)
    spoil(copied, training_paths(config), tmp_path / "answers")
    drawn = record(monkeypatch)
    assert train_main([config, "--resume", SKIP]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert not drawn


def test_a_run_goes_on_with_its_own_teacher_wherever_that_lies(
    pedestrians: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(write_config(tmp_path / "run.yaml", distilled(pedestrians, teacher, tmp_path / "run", "memory")))
    online = ["teacher.mode=online", "train.epochs=1"]
    stop_at_step(4, config, *online)
    last, elsewhere, other = (tmp_path / name for name in ("run/last.pt", "moved.pt", "other.pt"))
    shutil.copy(teacher, elsewhere)
    content = load_checkpoint(teacher)
    torch.save({**content, "classes": content["classes"][::-1]}, other)
    assert train_main([config, *online, "--resume", f"teacher.checkpoint={other}"]) == 2
    message = capsys.readouterr().err
    assert "other.pt is not the one that this run began with" in message
    assert file_hash(other)[:16] in message
    assert file_hash(teacher)[:16] in message
    assert train_main([config, *online, "--resume", f"teacher.checkpoint={elsewhere}"]) == 0
    for report in (tmp_path / "run", tmp_path / "tested"):
        if report.name == "tested":
            assert main(["test", str(last), "--output", str(report)]) == 0
        found = json.loads((report / "report.json").read_text())["provenance"]
        assert found["teacher_sha256"] == file_hash(teacher)


def test_a_run_of_a_version_that_kept_no_teacher_goes_on(pedestrians: Path, teacher: Path, tmp_path: Path) -> None:
    config = str(write_config(tmp_path / "run.yaml", distilled(pedestrians, teacher, tmp_path / "run", "memory")))
    stop_at_step(4, config)
    last = tmp_path / "run" / "last.pt"
    torch.save({key: value for key, value in load_checkpoint(last).items() if key != "teacher_sha256"}, last)
    assert train_main([config, "--resume"]) == 0
    assert load_checkpoint(last)["teacher_sha256"] == file_hash(teacher)


def test_a_run_goes_on_with_another_cache_unless_that_draws_other_augmentations(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(write_config(tmp_path / "run.yaml", recipe(pedestrians, tmp_path / "run")))
    assert train_main([config, f"output={tmp_path / 'whole'}"]) == 0
    stop_at_step(4, config)
    assert train_main([config, "--resume", "data.cache=device"]) == 2
    assert "data.cache: 'none, memory or packed' -> 'device'" in capsys.readouterr().err
    assert train_main([config, "--resume", "data.cache=none"]) == 0
    assert_same_weights(tmp_path / "whole", tmp_path / "run")


def test_a_run_of_a_version_that_kept_no_numbering_goes_on(pedestrians: Path, tmp_path: Path) -> None:
    config = str(write_config(tmp_path / "run.yaml", recipe(pedestrians, tmp_path / "run")))
    stop_at_step(4, config)
    last = tmp_path / "run" / "last.pt"
    content = load_checkpoint(last)
    torch.save({key: value for key, value in content.items() if key != "numbering"}, last)
    assert train_main([config, "--resume"]) == 0
    assert load_checkpoint(last)["numbering"] == content["numbering"]
