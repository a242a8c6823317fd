"""Training end to end: every kind of run, interruption and exact resumption, and a user's mistakes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_cckd.commands.train import main as train_main
from reid_cckd.config import load_config
from reid_cckd.engine import Trainer, load_checkpoint, save_checkpoint
from reid_cckd.engine.tracking import Progress
from tests.commands.conftest import recipe, write_config

CCKD = {"alpha": 0.5, "beta": 10.0, "terms": [{"name": "mimic", "loss": "cosine_mimic", "weight": 0.5}]}
TRIPLET = {"name": "triplet", "loss": "TripletMarginLoss", "miner": "BatchHardMiner", "options": {"margin": 0.3}}


def state(path: Path) -> dict[str, torch.Tensor]:
    content = load_checkpoint(path)
    flat = {**content["model"], **{f"average.{key}": value for key, value in (content["average"] or {}).items()}}
    flat["rng"] = content["rng_of_ranks"][0]["cpu"]
    objective = {name: value for name, value in content["objective"].items() if isinstance(value, torch.Tensor)}
    return {**flat, **{f"objective.{name}": value for name, value in objective.items()}}


def assert_same_state(one: Path, other: Path) -> None:
    left, right = state(one), state(other)
    assert left.keys() == right.keys()
    assert not [name for name in left if not torch.equal(left[name], right[name])]


def without_place(path: Path) -> list[dict[str, object]]:
    """The log's rows but those of speed and memory, which no two runs have in common."""
    return [row for row in map(json.loads, path.read_text().splitlines()) if "system" not in row]


def test_teacher_leaves_checkpoints_log_report_and_pictures(teacher: Path) -> None:
    folder = teacher.parent
    known = {"answers", ".lock"}  # answers: of students that other tests train
    found = {entry.name for entry in folder.iterdir()} - known
    assert found == {
        "config.yaml",
        "log.jsonl",
        "last.pt",
        "best.pt",
        "report.json",
        "queries.csv",
        "ranks.png",
        "curves.png",
        "cmc.png",
    }
    report = json.loads((folder / "report.json").read_text())
    assert 0 < report["scores"]["mean_ap"] <= report["scores"]["rank10"] <= 1
    assert report["protocol"]["convention"] == "torchreid"
    assert load_config(folder / "config.yaml").seed == 3


@pytest.mark.parametrize(
    "sections",
    [
        pytest.param({"objective": {"terms": [TRIPLET]}, "train": {"ema": 0.9, "clip_norm": 1.0}}, id="student"),
        pytest.param({"objective": {"alpha": 0.5}, "sampler": {"kind": "uniform", "batch_size": 16}}, id="kd"),
        pytest.param({"objective": CCKD}, id="cckd-gaussian"),
        pytest.param({"objective": {**CCKD, "kernel": {"name": "bilinear"}}}, id="cckd-bilinear"),
        pytest.param({"objective": {**CCKD, "kernel": {"name": "mmd"}, "correlate": "embedding"}}, id="cckd-mmd"),
        pytest.param(
            {
                "objective": {"beta": {"start": 0, "stop": 10}},
                "sampler": {
                    "kind": "sur",
                    "num_superclasses": 4,
                    "superclasses_per_batch": 2,
                    "samples_per_superclass": 4,
                },
            },
            id="sur",
        ),
    ],
)
def test_every_kind_of_run_trains(
    pedestrians: Path, teacher: Path, tmp_path: Path, sections: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    needs_teacher = "terms" not in sections["objective"] or sections["objective"] != {"terms": [TRIPLET]}  # type: ignore[operator]
    extra = {"teacher": {"checkpoint": str(teacher), "allow_weak": True}} if needs_teacher else {}
    values = recipe(pedestrians, tmp_path / "run", **sections, **extra)
    assert train_main([str(write_config(tmp_path / "run.yaml", values))]) == 0
    printed = capsys.readouterr().out
    assert ("teacher" in printed) == needs_teacher
    rows = without_place(tmp_path / "run" / "log.jsonl")
    assert any("mean_ap" in row for row in rows)
    assert (tmp_path / "run" / "superclasses_0000.npz").exists() == (sections.get("sampler", {}).get("kind") == "sur")  # type: ignore[attr-defined]


REMEMBERING = {  # a queue of pairs, banks of all images, centres of classes, and weights that train
    **CCKD,
    "correlation": {"memory": 40, "memory_age": 4, "project": True},
    "terms": [{"name": name, "loss": name, "weight": 0.1} for name in ("crd", "adadistill", "adaface", "CosFaceLoss")],
}
LONG = {"train": {"epochs": 6, "ema": 0.9, "checkpoint_every": 3}, "data": {"workers": 1}, "objective": REMEMBERING}


def start(config: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "reid_cckd.commands", "train", str(config), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def stop_in_mid_epoch(process: subprocess.Popen[str], folder: Path, signum: int) -> int:
    """Send a signal as soon as a checkpoint inside an epoch exists."""
    while process.poll() is None:
        if (folder / "last.pt").exists() and load_checkpoint(folder / "last.pt")["position"]["step"] >= 3:
            process.send_signal(signum)
            break
        time.sleep(0.01)
    return process.wait(timeout=60)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    pedestrians: Path, teacher: Path, tmp_path: Path, signum: int
) -> None:
    extra = {"teacher": {"checkpoint": str(teacher), "allow_weak": True}}
    whole = write_config(tmp_path / "whole.yaml", recipe(pedestrians, tmp_path / "whole", **LONG, **extra))
    broken = write_config(tmp_path / "broken.yaml", recipe(pedestrians, tmp_path / "broken", **LONG, **extra))
    assert train_main([str(whole)]) == 0
    code = stop_in_mid_epoch(start(broken), tmp_path / "broken", signum)
    assert code == (-signal.SIGKILL if signum == signal.SIGKILL else 128 + signum)
    assert load_checkpoint(tmp_path / "broken" / "last.pt")["position"]["epoch"] < 6
    assert train_main([str(broken), "--resume"]) == 0
    assert_same_state(tmp_path / "whole" / "last.pt", tmp_path / "broken" / "last.pt")
    assert without_place(tmp_path / "whole" / "log.jsonl") == without_place(tmp_path / "broken" / "log.jsonl")


def test_the_epoch_is_kept_when_nobody_reads_what_is_printed(
    pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(Progress, "epoch", fail)
    config = write_config(
        tmp_path / "run.yaml", recipe(pedestrians, tmp_path / "run", train={"checkpoint_every": 1000})
    )
    with pytest.raises(BrokenPipeError):
        train_main([str(config)])
    assert load_checkpoint(tmp_path / "run" / "last.pt")["position"]["epoch"] == 1


def die_in_second_evaluation(patch: pytest.MonkeyPatch, before: bool) -> None:
    """Before its scores are in the log, or right after."""
    write = Trainer._write

    def written(self: Trainer, row: dict[str, Any]) -> None:
        dies = "mean_ap" in row and row["epoch"] == 2
        if not (dies and before):
            write(self, row)
        if dies:
            raise KeyboardInterrupt

    patch.setattr(Trainer, "_write", written)


@pytest.mark.parametrize("when", ["in mid-evaluation", "before its end was saved"])
def test_a_run_killed_while_an_epoch_is_evaluated_ends_as_an_uninterrupted_one(
    pedestrians: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    extra = {
        **LONG,
        "teacher": {"checkpoint": str(teacher), "allow_weak": True},
        "train": {**LONG["train"], "checkpoint_every": 1000},
    }
    whole, broken = (
        write_config(tmp_path / f"{name}.yaml", recipe(pedestrians, tmp_path / name, **extra))
        for name in ("whole", "broken")
    )
    assert train_main([str(whole)]) == 0
    with monkeypatch.context() as patch:
        die_in_second_evaluation(patch, before=when == "in mid-evaluation")
        assert train_main([str(broken)]) == 130
    position = load_checkpoint(tmp_path / "broken" / "last.pt")["position"]
    assert (position["epoch"], position["batch"], position["step"]) == (1, 6, 12)
    assert train_main([str(broken), "--resume"]) == 0
    assert_same_state(tmp_path / "whole" / "last.pt", tmp_path / "broken" / "last.pt")
    assert without_place(tmp_path / "whole" / "log.jsonl") == without_place(tmp_path / "broken" / "log.jsonl")
    best = [load_checkpoint(tmp_path / name / "best.pt") for name in ("whole", "broken")]
    assert best[0]["position"] == best[1]["position"]


def test_a_finished_run_resumes_to_itself_and_is_not_overwritten(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "run.yaml", recipe(pedestrians, tmp_path / "run"))
    assert train_main([str(config)]) == 0
    before = (tmp_path / "run" / "last.pt").read_bytes()
    assert train_main([str(config)]) == 2
    assert train_main([str(config), "--resume"]) == 0
    assert "has all of its 2 epochs behind it" in capsys.readouterr().out
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def test_a_quick_look_may_end_before_the_warm_up_does(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "run.yaml", recipe(pedestrians, tmp_path / "run"))
    assert train_main([str(config), "train.epochs=1", "optim.warmup_epochs=10"]) == 0
    assert "still rises at the end: of 10 optim.warmup_epochs 1 are run" in capsys.readouterr().out


def test_a_run_of_a_version_that_kept_one_state_of_chance_is_continued(pedestrians: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "run.yaml", recipe(pedestrians, tmp_path / "run"))
    assert train_main([str(config)]) == 0
    last = tmp_path / "run" / "last.pt"
    content = load_checkpoint(last)
    (content["rng"],) = content.pop("rng_of_ranks")
    save_checkpoint(last, content)
    assert train_main([str(config), "--resume"]) == 0


def test_nonfinite_loss_names_the_batch(pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path / "run.yaml", recipe(pedestrians, tmp_path / "run"))
    arguments = ["optim.name=sgd", "optim.lr=1e18", "optim.warmup_epochs=0", "model.neck=none"]
    assert train_main([str(config), *arguments]) == 2
    message = capsys.readouterr().err
    listing = json.loads((tmp_path / "run" / "nonfinite_batch.json").read_text())
    assert "not finite" in message
    assert listing["images"][0] in message
    assert len(listing["images"]) == 16


class Diverged(torch.optim.SGD):
    """Whose weights are not finite from its n-th step on."""

    def __init__(self, parameters: Any, number: int) -> None:
        super().__init__(parameters, lr=0.001)
        self.left = number

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        self.left -= 1
        for group in self.param_groups if self.left == 0 else ():
            for parameter in group["params"]:
                parameter.data.fill_(torch.nan)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["embeddings are not finite", "18 of 18 images", "optim.lr"]),
        (["train.evaluate_every=2"], ["loss is not finite", "epoch 2, batch 0", "nonfinite_batch.json"]),
        (["train.evaluate_every=2", "train.chunk=8"], ["loss is not finite", "epoch 2, batch 0"]),
    ],
    ids=["evaluated", "balance", "balance of a chunk"],
)
def test_a_run_that_diverged_says_so_wherever_it_is_found(
    pedestrians: Path,
    teacher: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    words: list[str],
) -> None:
    make = "reid_cckd.build.trainer.create_optimizer"
    monkeypatch.setattr(make, lambda parts, *_: Diverged([w for part in parts for w in part.parameters()], 6))
    learning = {"teacher": {"checkpoint": str(teacher), "allow_weak": True}, "objective": {"beta": 10.0}}
    config = write_config(tmp_path / "run.yaml", recipe(pedestrians, tmp_path / "run", **learning))
    assert train_main([str(config), *options]) == 2
    message = capsys.readouterr().err
    assert not [word for word in words if word not in message]


def _damage(root: Path, name: str = "train/0000") -> Path:
    victim = sorted((root / "MSMT17_V1" if (root / "MSMT17_V1").exists() else root).joinpath(name).iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:100])
    return victim


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.root=nowhere"], ["nowhere"]),
        (["data.dataset=msmt71"], ["data.dataset", "msmt17"]),
        (["sampler.classes_per_batch=13"], ["13", "12"]),
        (["sampler.samples_per_class=1"], ["sampler.samples_per_class"]),
        (["model.backbone=resnet10q"], ["resnet10t"]),
        (["teacher.checkpoint=gone.pt", "objective.beta=1"], ["gone.pt"]),
        (["objective.terms=[{name: t, loss: TripletMarginLos}]"], ["TripletMarginLoss"]),
        (["objective.terms=[{name: t, loss: TripletMarginLoss, options: {marign: 1}}]"], ["marign"]),
        (["objective.terms=[{name: t, loss: TripletMarginLoss, miner: BatchHardMinr}]"], ["BatchHardMiner"]),
        (["data.augment=[{HorizontalFlop: {p: 0.5}}]"], ["HorizontalFlip"]),
        (["train.device=tpu9"], ["train.device"]),
        (["optim.name=addam"], ["addam"]),
    ],
)
def test_a_users_mistake_is_one_paragraph_and_starts_nothing(
    pedestrians: Path, tmp_path: Path, overrides: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "run.yaml", recipe(pedestrians, tmp_path / "run"))
    assert train_main([str(config), *overrides]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert all(word in message for word in words), message
    assert not (tmp_path / "run" / "last.pt").exists()


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("sampler.classes_per_batch=13", "classes"),
        ("model.backbone=resnet10q", "resnet10t"),
        ("optim.name=addam", "addam"),
        ("objective.terms=[{name: t, loss: TripletMarginLos}]", "TripletMarginLoss"),
    ],
)
def test_a_mistake_shows_before_the_teacher_is_judged(
    pedestrians: Path, teacher: Path, tmp_path: Path, override: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    values = recipe(
        pedestrians, tmp_path / "run", objective={"beta": 1.0}, teacher={"checkpoint": str(teacher), "allow_weak": True}
    )
    assert train_main([str(write_config(tmp_path / "run.yaml", values)), override]) == 2
    printed = capsys.readouterr()
    assert word in printed.err
    assert "mean_ap" not in printed.out


def test_a_teacher_of_other_identities_is_refused(
    pedestrians: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = recipe(
        pedestrians,
        tmp_path / "run",
        objective={"alpha": 0.5},
        teacher={"checkpoint": str(teacher), "allow_weak": True},
    )
    config = write_config(tmp_path / "run.yaml", values)
    content = load_checkpoint(teacher)
    content["classes"] = [*content["classes"][:-1], 999]
    torch.save(content, tmp_path / "other.pt")
    assert train_main([str(config), f"teacher.checkpoint={tmp_path / 'other.pt'}"]) == 2
    assert "11 in common" in capsys.readouterr().err


def test_a_checkpoint_of_another_architecture_is_refused(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "run.yaml", recipe(pedestrians, tmp_path / "run"))
    assert train_main([str(config)]) == 0
    assert train_main([str(config), "--resume", "model.embedding=7"]) == 2
    assert "model.embedding" in capsys.readouterr().err
    (tmp_path / "run" / "config.yaml").unlink()
    assert train_main([str(config), "--resume", "model.embedding=7"]) == 2
    assert "another model or objective" in capsys.readouterr().err


def test_a_run_that_never_began_can_be_mended_and_leaves_no_log(pedestrians: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "run.yaml", recipe(pedestrians, tmp_path / "run"))
    assert train_main([str(config), "model.backbone=resnet10q"]) == 2
    (tmp_path / "run" / "log.jsonl").write_text('{"epoch": 1, "step": 1, "loss": 99.0}\n')  # killed before a checkpoint
    assert train_main([str(config), "--resume"]) == 0
    assert "99.0" not in (tmp_path / "run" / "log.jsonl").read_text()


def test_the_report_of_a_run_whose_checkpoint_is_gone_does_not_outlive_it(pedestrians: Path, tmp_path: Path) -> None:
    config, report = (
        write_config(tmp_path / "run.yaml", recipe(pedestrians, tmp_path / "run")),
        tmp_path / "run/report.json",
    )
    report.parent.mkdir()
    report.write_text("{}")
    diverging = ["optim.name=sgd", "optim.lr=1e18", "optim.warmup_epochs=0", "model.neck=none"]
    assert train_main([str(config), *diverging]) == 2
    assert not report.exists()


def test_two_processes_do_not_train_in_one_folder(
    pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "run.yaml", recipe(pedestrians, tmp_path / "run"))
    code = "import sys, pathlib; from reid_cckd.files import undisturbed\n"
    code += "with undisturbed(pathlib.Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    held = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        assert train_main([str(config)]) == 2
        assert "Another process works in" in capsys.readouterr().err
        assert not (tmp_path / "run" / "config.yaml").exists()
        other.kill()
    assert train_main([str(config)]) == 0
