"""Where else the rows of a run's log go: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from reid_cckd.errors import ConfigError

TrackerName = Literal["tensorboard", "wandb", "mlflow"]


class Tracker(Protocol):
    """Takes numbers by name at a step of the run in a folder."""

    def __init__(self, folder: Path, config: Mapping[str, Any], step: int) -> None: ...

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send one row."""

    def close(self) -> None:
        """Send what is left."""


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Be sure that what was asked for is installed.

    Raises:
        ConfigError: names what is not, and how to install it.
    """
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    if absent:
        raise ConfigError(
            f"train.track: {' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} asked for but not installed. "
            f"Run `pip install {' '.join(absent)}`, or leave it out; log.jsonl is always written."
        )


@contextlib.contextmanager
def trackers(
    names: Sequence[TrackerName], folder: Path, config: Mapping[str, Any], step: int
) -> Iterator[list[Tracker]]:
    """Open trackers of the run in ``folder``, which goes on after ``step``, and close them on leaving.

    Raises:
        ConfigError: one of them refuses to start, for want of a login or of its server.
    """
    opened: list[Tracker] = []
    try:
        for name in names:
            opened.append(_open(name, folder, config, step))
        yield opened
    finally:
        for tracker in opened:
            with contextlib.suppress(Exception):  # what is trained is kept, whether or not a server hears of its end
                tracker.close()


def _open(name: TrackerName, folder: Path, config: Mapping[str, Any], step: int) -> Tracker:
    makers: dict[TrackerName, type[Tracker]] = {"tensorboard": _TensorBoard, "wandb": _WandB, "mlflow": _MLflow}
    try:
        return makers[name](folder, config, step)
    except Exception as error:  # of as many kinds as there are libraries
        raise ConfigError(f"train.track: {name} cannot be started: {error}") from error


def flatten(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a row of the log: ``{"system": {"memory_mb": 1}}`` is ``{"system/memory_mb": 1.0}``."""
    flat: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[f"{prefix}{key}"] = float(value)
    return flat


class _TensorBoard:
    def __init__(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What an interrupted run had written beyond its checkpoint is written again.
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """Project, entity and mode are those of the environment: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE."""

    def __init__(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        import wandb

        known = _remembered(folder / "wandb_run.txt")
        run = wandb.init(dir=str(folder), name=_run_name(folder), config=dict(config), id=known, resume="allow")
        (folder / "wandb_run.txt").write_text(run.id, encoding="utf-8")
        run.define_metric("*", step_metric="step")  # W&B's own steps may not go back, those of a resumed run do
        self._run = run

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({**values, "step": step})

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    """Server and experiment are those of the environment: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME."""

    def __init__(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        import mlflow

        known = _remembered(folder / "mlflow_run.txt")
        run = mlflow.start_run(run_id=known, run_name=None if known else _run_name(folder))
        (folder / "mlflow_run.txt").write_text(run.info.run_id, encoding="utf-8")
        if known is None:
            mlflow.log_dict(dict(config), "config.yaml")
        self._mlflow = mlflow

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._mlflow.end_run()


def _remembered(path: Path) -> str | None:
    return path.read_text(encoding="utf-8").strip() if path.exists() else None


def _run_name(folder: Path) -> str:
    return "/".join(folder.parts[-2:])
