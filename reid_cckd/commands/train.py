"""`reid-cckd train CONFIG [key=value ...]`: a teacher, a plain student, a KD or CCKD student."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from reid_cckd import build
from reid_cckd.assess import (
    GUESSES,
    Judge,
    RetrievalJudge,
    asks_for_scores,
    best_guess,
    build_judge,
    head_judge,
)
from reid_cckd.commands.console import make_parser, run, take_overrides
from reid_cckd.commands.judged import report_judged
from reid_cckd.commands.reporting import counts_table, print_balance, print_scores, report_retrieval
from reid_cckd.commands.sameness import FREE, REPORT, check_same, settings_of, source_of
from reid_cckd.config import Config, dump_config, load_config, to_dict
from reid_cckd.config import Teacher as TeacherSettings
from reid_cckd.data import Manifest
from reid_cckd.engine import (
    RunLog,
    Trainer,
    check_alike,
    check_trackers,
    file_hash,
    load_checkpoint,
    local_device,
    on_rank_zero,
    pick_device,
    processes,
    rank,
    trackers,
)
from reid_cckd.errors import ConfigError
from reid_cckd.files import atomic_path, remove_unfinished, undisturbed
from reid_cckd.models import Embedder, Teacher
from reid_cckd.report import training_curves

EXAMPLES = """\
  reid-cckd train configs/omniglot/teacher.yaml data.root=/data/omniglot
  reid-cckd train configs/msmt17/cckd.yaml objective.beta=100 seed=1 output=runs/beta100
  reid-cckd train configs/msmt17/cckd.yaml --resume"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    parser = make_parser("train", "Train what a YAML file describes; key=value arguments win over the file.", EXAMPLES)
    parser.add_argument("config", type=Path, help="a YAML file, such as those in configs/")
    take_overrides(parser, "for example optim.lr=1e-3")
    parser.add_argument(
        "--balance", action="store_true", help="print each term's share of loss and gradient, every epoch"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the run's last checkpoint, if it has one")
    return run(_command, parser, argv, together=True)


def _command(arguments: argparse.Namespace) -> None:
    train(load_config(arguments.config, arguments.overrides), resume=arguments.resume, balance=arguments.balance)


def train(config: Config, resume: bool = False, balance: bool = False) -> Path:
    """Run a configuration to its end and return its folder, with checkpoints, log, curves and report in it.

    Raises:
        UserError: something in the configuration, the data or a checkpoint that the user can mend.
    """
    folder, config = Path(config.output), _with_teacher_file(config)
    last = folder / "last.pt"
    check_trackers(config.train.track)
    if last.exists() and not resume:
        raise ConfigError(f"{folder} already holds a run. Continue it with --resume, or choose another output=FOLDER.")
    check_same(config)
    device = local_device(pick_device(config.train.device))
    with processes(device), undisturbed(folder) if rank() == 0 else contextlib.nullcontext():
        speaks = rank() == 0
        check_alike({key: repr(value) for key, value in settings_of(to_dict(config)).items() if key not in FREE})
        if speaks:
            _tidy(folder)
            _write_config(config, folder)
        trainer, judge = _prepare(config, device, load_checkpoint(last, lazy=True) if last.exists() else {})
        trainer.show_balance = print_balance if balance else None
        if last.exists():
            trainer.resume(last)
            print(_resumed(last, trainer))
        with trackers(config.train.track if speaks else (), folder, to_dict(config), trainer.position.step) as opened:
            trainer.log.trackers = opened
            trainer.fit()
        _report(config, trainer, judge)
    return folder


def _with_teacher_file(config: Config) -> Config:
    """The folder of a run stands for its last.pt, as it does in other commands."""
    if config.teacher is None or not config.teacher.checkpoint:
        return config
    return replace(config, teacher=replace(config.teacher, checkpoint=str(source_of(config.teacher.checkpoint))))


def _resumed(last: Path, trainer: Trainer) -> str:
    if trainer.position.epoch == trainer.epochs:
        return f"{last} has all of its {trainer.epochs} epochs behind it; its report is made anew."
    return f"Resumed {last} at epoch {trainer.position.epoch + 1}, step {trainer.position.step}."


def _report(config: Config, trainer: Trainer, judge: Judge) -> None:
    """Evaluate the finished network, and on rank 0 write its report and pictures beside its checkpoints."""
    folder, network = Path(config.output), trainer.network
    assert isinstance(network, Embedder)
    hashes = on_rank_zero(lambda: file_hash(folder / "last.pt")), trainer.meta["teacher_sha256"]
    if isinstance(judge, RetrievalJudge):
        report_retrieval(network, config, judge, folder, *hashes)
    else:
        report_judged(network, config, judge, folder, *hashes)
    if rank() == 0:
        training_curves(folder / "curves.png", {folder.name: RunLog(folder / "log.jsonl").rows()})


def _prepare(config: Config, device: torch.device, kept: Mapping[str, Any]) -> tuple[Trainer, Judge]:
    """Everything a run needs; ``kept``: the checkpoint that it goes on from, or nothing."""
    torch.manual_seed(config.seed)
    manifest = build.read_manifest(config.data)
    check_alike({"The data": f"{manifest.name} of {len(manifest):,} images, {build.fingerprint(manifest)[:16]}"})
    print(f"{manifest.name} at {manifest.root}\n{counts_table(manifest)}")
    if (warm := config.optim.warmup_epochs) > config.train.epochs:
        print(f"The learning rate still rises at the end: of {warm} optim.warmup_epochs {config.train.epochs} are run.")
    judge, train_part = build_judge(config, manifest, device), manifest.select("train")
    teacher = None
    if config.teacher is not None:
        teacher = build.load_teacher(config).on(train_part)
        _check_teacher(config.teacher, teacher, kept)
        build.place(teacher.network, config, device)
        build.rehearse(config, train_part, teacher)
        _judge_teacher(config.teacher, teacher, judge.for_teacher(teacher.classes))
        if asks_for_scores(config.objective) and config.evaluation.task != "classification":
            _judge_head(config, teacher, train_part, device)
    began = build.Numbering.kept(kept)
    return build.build_trainer(config, train_part, teacher, device, judge, began), judge


def _check_teacher(settings: TeacherSettings, teacher: build.Loaded, kept: Mapping[str, Any]) -> None:
    """All processes learn from the teacher that the run began with; older checkpoints do not know which that was."""
    check_alike({"The teacher": f"{settings.name} of SHA-256 {teacher.sha256}"})
    before = kept.get("teacher_sha256") or teacher.sha256
    if before != teacher.sha256:
        raise ConfigError(
            f"teacher: {settings.name} is not the one that this run began with (SHA-256 {before[:16]}... then, "
            f"{teacher.sha256[:16]}... now). Name that one, or choose another output=FOLDER and begin anew."
        )


def _judge_teacher(settings: TeacherSettings, teacher: build.Loaded, judge: Judge) -> None:
    """Print what the teacher scores, and refuse one that cannot be told from a network that guesses."""
    scores = judge(Teacher(teacher.network))
    if not scores:
        print(f"teacher {settings.name}: not judged, as no image here tells what it knows")
        return
    print_scores(f"teacher {settings.name}", scores)
    if settings.allow_weak:
        return
    score = scores[judge.main]
    chance = best_guess(judge, len(teacher.classes), score)
    if score <= chance:
        raise ConfigError(
            f"teacher: {settings.name} scores {judge.main} {100 * score:.2f} % on this data, and one of {GUESSES} "
            f"networks that guess scores {100 * chance:.2f} %. Is it a checkpoint of other data or of an untrained "
            f"network, or are the images too few to tell? To learn from it all the same set teacher.allow_weak: true."
        )


def _judge_head(config: Config, teacher: build.Loaded, train: Manifest, device: torch.device) -> None:
    """Refuse to learn from class scores that name training images as one does who guesses."""
    judge = head_judge(config, train, teacher.classes, device)
    if config.teacher is None or config.teacher.allow_weak or judge is None:
        return
    right = judge(Teacher(teacher.network))[judge.main]
    if right <= best_guess(judge, len(teacher.classes), right):
        raise ConfigError(
            f"teacher: the head of {config.teacher.name} names {100 * right:.1f} % of {len(judge.manifest)} training "
            f"images right, no more than a network that guesses. Are its identities others, under the same ids? Learn "
            f"from its embeddings (objective.alpha: 1, beta, a mimic term), or set teacher.allow_weak: true."
        )


def _tidy(folder: Path) -> None:
    """Remove what a process left that was killed: half a file, and everything of a run without a checkpoint."""
    remove_unfinished(folder)
    if not (folder / "last.pt").exists():
        for left in (folder / "log.jsonl", folder / REPORT, *folder.glob("superclasses_*.npz")):
            left.unlink(missing_ok=True)


def _write_config(config: Config, folder: Path) -> None:
    with atomic_path(folder / "config.yaml") as temporary:
        temporary.write_text(dump_config(config), encoding="utf-8")
