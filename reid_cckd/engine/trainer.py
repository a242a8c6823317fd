"""The one training loop: teacher, plain student, KD student and CCKD student differ only in their objective."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from reid_cckd.batch import Batch, Output
from reid_cckd.engine.checkpoint import load_checkpoint, save_checkpoint
from reid_cckd.engine.distributed import (
    any_process,
    average_gradients,
    is_distributed,
    rank,
    share_buffers,
)
from reid_cckd.engine.gradient import (
    ALL_STAGES,
    backward_in_chunks,
    show_stages,
    untouched_statistics,
)
from reid_cckd.engine.interrupt import Interrupted, StopRequest
from reid_cckd.engine.meter import Meter
from reid_cckd.engine.optim import take_up
from reid_cckd.engine.position import Position
from reid_cckd.engine.protocols import TrainingData, TrainingObjective
from reid_cckd.engine.randomness import random_state, restore_state_of_run, set_random_state, states_of_run
from reid_cckd.engine.recording import RecordedStep, beside
from reid_cckd.engine.shards import own_states, whole_states
from reid_cckd.engine.teachers import OnlineTeacher, TeacherSource
from reid_cckd.engine.tracking import Progress, RunLog, RunningMeans
from reid_cckd.engine.watch import Seen, Watch, not_finite
from reid_cckd.errors import CheckpointError

if TYPE_CHECKING:  # as in optim.py
    from timm.scheduler.scheduler import Scheduler
    from timm.utils import ModelEmaV3

LOG_EVERY = 20  # steps between rows of the log


@dataclass
class Trainer:
    """Everything one run needs; `fit` runs it, from the start or from ``folder``/last.pt.

    ``evaluate`` maps the network in use (the average if there is one) to fractions, ``main_score`` among them, by
    which the best checkpoint is chosen, or to none, and there is no best; all processes call it and get the same.
    ``meta`` is stored with every checkpoint: config, number of classes. ``chunk``: images whose graph is held at once;
    None holds the batch's.
    ``recorded``: all steps but the first of an epoch are replays of a recording (CUDA, one process, no ``chunk``).
    ``look_every``: steps after which their losses are read from the device; a loss that is not finite is found then,
    before anything is saved.
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
    chunk: int | None = None
    compiled: bool = False
    recorded: bool = False
    look_every: int = 1
    show_balance: Callable[[list[dict[str, Any]]], None] | None = None
    position: Position = field(default_factory=Position)

    def __post_init__(self) -> None:
        self.log = RunLog(self.folder / "log.jsonl")
        self.means, self.seen = RunningMeans(), RunningMeans()
        self.watch = Watch(self.look_every)
        network: nn.Module = torch.compile(self.student) if self.compiled else self.student  # type: ignore[assignment]
        self.forward = show_stages(network, self.device)
        learning = nn.ModuleDict({"student": self.student, "objective": cast("nn.Module", self.objective)})
        self.recording = RecordedStep(self._losses, learning, self.device) if self.recorded else None
        self.meter = Meter(self.device)
        self.shards = self.objective.shards()
        self.log_every = min(LOG_EVERY, self.epochs * len(self.data))  # a shorter run has a row of its end

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
        self.progress = Progress(self.epochs * len(self.data), self.position.step, self.epochs, silent=rank() != 0)
        try:
            with StopRequest() as stop:
                while self.position.epoch < self.epochs:
                    means = self._run_epoch(stop)
                    self._finish_epoch(means)
        finally:
            self.progress.close()
        return self.position

    def resume(self, path: Path) -> None:
        """Take up the state that `fit` saved, to the sample."""
        state = load_checkpoint(path, lazy=bool(self.shards))
        if "optimizer" not in state:
            raise CheckpointError(f"{path} holds weights only; a run is resumed from its last.pt.")
        try:
            self.student.load_state_dict(state["model"])
            own = own_states(self.objective, self.optimizer, state)
            self.objective.load_state_dict(own["objective"])
            take_up(self.optimizer, own["optimizer"])
            if self.average is not None:
                self.average.module.load_state_dict(state["average"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(f"{path} belongs to another model or objective: {reason}") from error
        self.means.load_state_dict(state["means"])
        self.position = Position(**state["position"])
        states = state["rng_of_ranks"] if "rng_of_ranks" in state else [state["rng"]]  # of older runs, of one process
        restore_state_of_run(states, self.position.step)
        if rank() == 0:
            self.log.keep(lambda row: self.position.is_past(row, self.main_score))

    def _run_epoch(self, stop: StopRequest) -> dict[str, float]:
        """Train to the end of the epoch; the means of what this process saw of it are for printing only."""
        self.student.train()
        self.objective.train()
        self.meter.start()
        for batch in self.data.batches(self.position.epoch, self.position.batch):
            self._step(batch)
            self.meter.count(len(batch.labels))
            self.position.batch += 1
            self.position.step += 1
            step = self.position.step
            if step % self.log_every == 0:
                self._look()
                self._log_means()
            if step % self.look_every == 0 and any_process(stop.signum is not None):
                self._save_last()
                text = f"Stopped at epoch {self.position.epoch + 1}, step {step}; continue with --resume."
                raise Interrupted(stop.signum or signal.SIGTERM, text)
            if step % self.checkpoint_every == 0:
                self._save_last()
        self._look()
        return self.seen.take()

    def _step(self, loaded: Batch) -> None:
        """One update; nothing in it waits for the device, except to look at the losses."""
        step, batch = self.position.step, loaded.to(self.device)
        if self.recording is not None and self.position.batch > 0 and self.recording.fits(batch):
            self._note(loaded, self.recording(batch, self._kept_answers(loaded, batch)))
        else:
            self._differentiate(loaded, batch)
        average_gradients(parameter for parameter in self.objective.parameters() if parameter not in self.shards)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.student.parameters(), self.clip_norm)
        self.optimizer.step()
        self.schedule.step_update(step + 1)
        if self.average is not None:
            self.average.update(self.student, step + 1)

    def _differentiate(self, loaded: Batch, batch: Batch) -> None:
        """The gradient of a batch on the device."""
        progress = self._progress()
        teacher = None if self.teacher is None else self.teacher(loaded, batch.images, self.position.epoch)

        def loss_of(student: Output) -> Tensor:
            terms = self._terms(student, teacher, batch, progress)
            self._note(loaded, terms)
            return terms["loss"]

        self.optimizer.zero_grad(set_to_none=True)
        if self.chunk is None or len(batch.images) <= self.chunk:
            self._backward(batch, teacher, progress, loss_of)
        else:
            self._apart_balance(batch, teacher, progress)
            stages = self.objective.stages(progress)
            backward_in_chunks(self.forward, batch.images, self.chunk, stages, loss_of, self.precision)

    def _kept_answers(self, loaded: Batch, batch: Batch) -> Output | None:
        """What a teacher says that is not asked in the recording itself."""
        if self.teacher is None or isinstance(self.teacher, OnlineTeacher):
            return None
        return self.teacher(loaded, batch.images, self.position.epoch)

    def _losses(self, batch: Batch, answers: Output | None) -> dict[str, Tensor]:
        """The terms of a batch, as they are recorded: the teacher looks at the images while the student does."""
        with beside(self.device) as join:
            if isinstance(self.teacher, OnlineTeacher):
                answers = self.teacher.answer(batch.images)
        with self.precision():
            student = self.forward(batch.images, ALL_STAGES)
        join()
        return self._terms(student, answers, batch, self._progress())

    def _progress(self) -> float:
        """The fraction of the training that is done."""
        return self.position.step / (self.epochs * len(self.data))

    def _note(self, loaded: Batch, terms: dict[str, Tensor]) -> None:
        """Remember the losses of this step; when it is time, look at them."""
        self.watch.add(Seen(self.position.epoch, self.position.batch, self.position.step, loaded.index, {}), terms)
        if self.watch.is_due:
            self._look()

    def _backward(
        self, batch: Batch, teacher: Output | None, progress: float, loss_of: Callable[[Output], Tensor]
    ) -> None:
        """The gradient of the batch in one piece."""
        apart = is_distributed() or self.compiled
        if apart:
            self._apart_balance(batch, teacher, progress)
        with self.precision():
            stages = self.objective.stages(progress) if is_distributed() else ALL_STAGES
            student = self.forward(batch.images, stages)
        if self.position.batch == 0 and not apart:
            self._log_balance(student, teacher, batch, progress)
        loss_of(student).backward()

    def _look(self) -> None:
        """Read the losses of the steps since the last look; the first that is not finite ends the run."""
        for seen in self.watch.look():
            if seen.culprits:
                raise not_finite(seen, self.folder, self.data.image_name)
            self.means.add(seen.values)
            self.seen.add(seen.values)
            self.progress.step(seen.epoch, seen.values)

    def _terms(self, student: Output, teacher: Output | None, batch: Batch, progress: float) -> dict[str, Tensor]:
        with self._naming(batch, student):
            return self.objective(student, batch.labels, teacher, progress=progress, index=batch.index)

    @contextmanager
    def _naming(self, batch: Batch, student: Output) -> Iterator[None]:
        """Losses refuse NaN and Inf in their input: name the batch instead of their argument."""
        try:
            yield
        except ValueError as error:
            self._look()
            rows = [stage for stage in student if stage is not None]
            if not any_process(not all(bool(stage.isfinite().all()) for stage in rows)):
                raise
            place = self.position.epoch, self.position.batch, self.position.step
            seen = Seen(*place, batch.index.cpu(), {"student": math.nan})
            raise not_finite(seen, self.folder, self.data.image_name) from error

    def _apart_balance(self, batch: Batch, teacher: Output | None, progress: float) -> None:
        """The balance where the graph of a batch is in pieces, or one that cannot be looked into, as a compiled one.

        By one chunk of it, leaving no trace.
        """
        if self.position.batch != 0:
            return
        size = self.chunk or len(batch.images)
        part = Batch(batch.images[:size], batch.labels[:size], batch.index[:size])
        answer = None if teacher is None else teacher.each(lambda rows: rows[:size])
        state = random_state(self.device)
        with untouched_statistics(self.student), self.precision():
            student = self.student(part.images)
        self._log_balance(student, answer, part, progress)
        set_random_state(self.device, state)

    def _log_balance(self, student: Output, teacher: Output | None, batch: Batch, progress: float) -> None:
        """Each term's share of the loss and of the gradient, on the first batch of every epoch."""
        with self._naming(batch, student):
            shares = self.objective.balance(student, batch.labels, teacher, progress, batch.index)
        place = {"epoch": self.position.epoch + 1, "step": self.position.step + 1}
        self._write({**place, "balance": {share.term: asdict(share) for share in shares}})
        if self.show_balance is not None:
            self.show_balance([asdict(share) for share in shares])

    def _write(self, row: dict[str, Any]) -> None:
        if rank() == 0:
            self.log.append(row)

    def _finish_epoch(self, means: dict[str, float]) -> None:
        epoch = self.position.epoch
        is_last = epoch + 1 == self.epochs
        scores: dict[str, float] = {}
        if is_last or (epoch + 1) % self.evaluate_every == 0:
            self._save_last()  # whatever evaluation may meet, the epoch is trained
            scores = self.evaluate(share_buffers(self.network))
        if scores:
            self._write({"epoch": epoch + 1, "step": self.position.step, **scores})
        if scores and scores[self.main_score] > self.position.best:
            self.position.best, self.position.best_epoch = scores[self.main_score], epoch + 1
            self._save_best(scores)
        self.position.epoch, self.position.batch = epoch + 1, 0
        self._save_last()
        self.progress.epoch(epoch, means, scores)  # at the end: if nobody reads what it prints, the run stops here

    def _log_means(self) -> None:
        place = {"epoch": self.position.epoch + 1, "step": self.position.step}
        self._write({**place, "lr": self.optimizer.param_groups[0]["lr"], **self.means.take()})
        self._write({**place, "system": self.meter.take()})

    def _save_best(self, scores: dict[str, float]) -> None:
        content = {**self.meta, "model": self.network.state_dict(), "scores": scores, "position": asdict(self.position)}
        if rank() == 0:
            save_checkpoint(self.folder / "best.pt", content)

    def _save_last(self) -> None:
        """The whole state, by rank 0, once every loss so far was looked at."""
        self._look()
        content = {
            **self.meta,
            "model": self.student.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            **whole_states(self.objective, self.optimizer),
            "position": asdict(self.position),
            "means": self.means.state_dict(),
            "rng_of_ranks": states_of_run(),
        }
        if rank() == 0:
            save_checkpoint(self.folder / "last.pt", content)
