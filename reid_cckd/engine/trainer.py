"""The one training loop: teacher, plain student, KD student and CCKD student differ only in their objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim import Optimizer

from reid_cckd.batch import Batch, Output
from reid_cckd.engine.checkpoint import load_checkpoint, save_checkpoint
from reid_cckd.engine.interrupt import Interrupted, StopRequest
from reid_cckd.engine.teachers import TeacherSource
from reid_cckd.engine.tracking import Progress, RunLog, RunningMeans
from reid_cckd.errors import CheckpointError, UserError
from reid_cckd.files import write_json

LOG_EVERY = 20  # steps between rows of the log


class TrainingData(Protocol):
    """Batches as a pure function of the epoch, so that a run can continue in the middle of one."""

    def __len__(self) -> int:
        """Batches in an epoch."""

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from number ``start`` on."""

    def image_name(self, index: int) -> str:
        """The path of an image, for messages."""


class TrainingObjective(Protocol):
    """A module (`Objective`) that sums weighted terms and can say how much each one pulls."""

    def __call__(
        self, student: Output, labels: Tensor, teacher: Output | None, *, progress: float, index: Tensor
    ) -> dict[str, Tensor]: ...
    def balance(
        self, student: Output, labels: Tensor, teacher: Output | None, progress: float, index: Tensor
    ) -> Sequence[Any]: ...
    def train(self, mode: bool = True) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


@dataclass
class Position:
    """How far a run has come: ``batch`` of ``epoch`` is next, ``step`` updates are done."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float = -math.inf
    best_epoch: int = -1


@dataclass
class Trainer:
    """Everything one run needs; `fit` runs it, from the start or from ``folder``/last.pt.

    ``evaluate`` maps the network in use (the average if there is one) to fractions, ``main_score`` among them, by
    which the best checkpoint is chosen. ``meta`` is stored with every checkpoint: config, number of classes.
    """

    folder: Path
    student: nn.Module
    objective: TrainingObjective
    data: TrainingData
    optimizer: Optimizer
    schedule: Scheduler
    evaluate: Callable[[nn.Module], dict[str, float]]
    device: torch.device
    precision: Callable[[], AbstractContextManager[object]]
    epochs: int
    meta: dict[str, Any]
    teacher: TeacherSource | None = None
    average: ModelEmaV3 | None = None
    clip_norm: float | None = None
    evaluate_every: int = 1
    checkpoint_every: int = 500
    main_score: str = "mean_ap"
    show_balance: Callable[[list[dict[str, Any]]], None] | None = None
    position: Position = field(default_factory=Position)

    def __post_init__(self) -> None:
        self.log = RunLog(self.folder / "log.jsonl")
        self.means = RunningMeans()

    @property
    def network(self) -> nn.Module:
        """The weights that count: their moving average where one is kept."""
        return self.student if self.average is None else self.average.module

    def fit(self) -> Position:
        """Train to the last epoch; the run can be continued from whatever point it stops at.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the state is saved.
            UserError: the loss is not finite; the images of the batch are listed in a file.
        """
        progress = Progress(self.epochs * len(self.data), self.position.step, self.epochs)
        try:
            with StopRequest() as stop:
                while self.position.epoch < self.epochs:
                    means = self._run_epoch(progress, stop)
                    self._finish_epoch(progress, means)
        finally:
            progress.close()
        return self.position

    def resume(self, path: Path) -> None:
        """Take up the state that `fit` saved, to the sample."""
        state = load_checkpoint(path)
        if "optimizer" not in state:
            raise CheckpointError(f"{path} holds weights only; a run is resumed from its last.pt.")
        try:
            self.student.load_state_dict(state["model"])
            self.objective.load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.module.load_state_dict(state["average"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(f"{path} belongs to another model or objective: {reason}") from error
        self.means.load_state_dict(state["means"])
        self.position = Position(**state["position"])
        _restore_rng(state["rng"])
        self.log.cut_after(self.position.step)

    def _run_epoch(self, progress: Progress, stop: StopRequest) -> dict[str, float]:
        """Train to the end of the epoch; the means of what this process saw of it are for printing only."""
        seen = RunningMeans()
        self.student.train()
        self.objective.train()
        for batch in self.data.batches(self.position.epoch, self.position.batch):
            values = self._step(batch)
            self.means.add(values)
            seen.add(values)
            self.position.batch += 1
            self.position.step += 1
            progress.step(self.position.epoch, values)
            if self.position.step % LOG_EVERY == 0:
                self._log_means()
            if stop.signum is not None:
                self._save_last()
                text = f"Stopped at epoch {self.position.epoch + 1}, step {self.position.step}; continue with --resume."
                raise Interrupted(stop.signum, text)
            if self.position.step % self.checkpoint_every == 0:
                self._save_last()
        return seen.take()

    def _step(self, loaded: Batch) -> dict[str, float]:
        step, total = self.position.step, self.epochs * len(self.data)
        batch = loaded.to(self.device)
        teacher = None if self.teacher is None else self.teacher(loaded, batch.images, self.position.epoch)
        with self.precision():
            student = self.student(batch.images)
        terms = self._terms(student, teacher, batch, progress=step / total)
        if self.position.batch == 0:
            self._log_balance(student, teacher, batch, progress=step / total)
        loss = terms["loss"]
        values = {name: float(value.detach()) for name, value in terms.items()}
        if not all(math.isfinite(value) for value in values.values()):
            raise self._not_finite(values, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.student.parameters(), self.clip_norm)
        self.optimizer.step()
        self.schedule.step_update(step + 1)
        if self.average is not None:
            self.average.update(self.student, step + 1)
        return values

    def _terms(self, student: Output, teacher: Output | None, batch: Batch, progress: float) -> dict[str, Tensor]:
        try:
            terms: dict[str, Tensor] = self.objective(
                student, batch.labels, teacher, progress=progress, index=batch.index
            )
        except ValueError as error:  # losses refuse NaN and Inf in their input
            if bool(student.neck.isfinite().all()):
                raise
            raise self._not_finite({"embedding": math.nan}, batch) from error
        return terms

    def _log_balance(self, student: Output, teacher: Output | None, batch: Batch, progress: float) -> None:
        """Each term's share of the loss and of the gradient, on the first batch of every epoch."""
        shares = self.objective.balance(student, batch.labels, teacher, progress, batch.index)
        place = {"epoch": self.position.epoch + 1, "step": self.position.step + 1}
        self.log.append({**place, "balance": {share.term: asdict(share) for share in shares}})
        if self.show_balance is not None:
            self.show_balance([asdict(share) for share in shares])

    def _finish_epoch(self, progress: Progress, means: dict[str, float]) -> None:
        epoch = self.position.epoch
        is_last = epoch + 1 == self.epochs
        scores: dict[str, float] = {}
        if is_last or (epoch + 1) % self.evaluate_every == 0:
            scores = self.evaluate(self.network)
            self.log.append({"epoch": epoch + 1, "step": self.position.step, **scores})
        progress.epoch(epoch, {**means, **scores})
        if scores and scores[self.main_score] > self.position.best:
            self.position.best, self.position.best_epoch = scores[self.main_score], epoch + 1
            self._save_best(scores)
        self.position.epoch, self.position.batch = epoch + 1, 0
        self._save_last()

    def _log_means(self) -> None:
        place = {"epoch": self.position.epoch + 1, "step": self.position.step}
        self.log.append({**place, "lr": self.optimizer.param_groups[0]["lr"], **self.means.take()})

    def _save_best(self, scores: dict[str, float]) -> None:
        content = {**self.meta, "model": self.network.state_dict(), "scores": scores, "position": asdict(self.position)}
        save_checkpoint(self.folder / "best.pt", content)

    def _save_last(self) -> None:
        content = {
            **self.meta,
            "model": self.student.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "position": asdict(self.position),
            "means": self.means.state_dict(),
            "rng": _rng_state(),
        }
        save_checkpoint(self.folder / "last.pt", content)

    def _not_finite(self, values: dict[str, float], batch: Batch) -> UserError:
        names = [self.data.image_name(index) for index in batch.index.tolist()]
        culprits = ", ".join(f"{name} {value}" for name, value in values.items() if not math.isfinite(value))
        place = {"epoch": self.position.epoch + 1, "batch": self.position.batch, "step": self.position.step}
        listing = self.folder / "nonfinite_batch.json"
        write_json(listing, {**place, "terms": {k: str(v) for k, v in values.items()}, "images": names})
        return UserError(
            f"The loss is not finite ({culprits}) at epoch {place['epoch']}, batch {place['batch']}: {names[0]} and "
            f"{len(names) - 1} more images, listed in {listing}. The last checkpoint is from before it. Lower optim.lr "
            f"or the term's weight, or set train.clip_norm, and --resume."
        )


def _rng_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _restore_rng(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
