"""`reid-cckd smoke`: every family of configurations trained and evaluated, on small twins of its data."""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reid_cckd.commands.console import make_parser, run
from reid_cckd.commands.sameness import REPORT, read_report
from reid_cckd.commands.train import train
from reid_cckd.config import Config, load_config
from reid_cckd.data import TWINS, Numbers, ensure_pedestrians, write_twin
from reid_cckd.errors import ConfigError, UserError
from reid_cckd.report import format_table

TWIN = Numbers(ids=8, images_per_id=8, size=(32, 32))
PEDESTRIANS: dict[str, Any] = {
    "train_ids": 8,
    "test_ids": 4,
    "images_per_id": 6,
    "cameras": 2,
    "size": (64, 32),
    "seed": 0,
}
TINY = (
    "train.epochs=1",
    "train.evaluate_every=1",
    "train.device=cpu",
    "optim.warmup_epochs=0",
    "sampler.batches_per_epoch=2",
    "sampler.batch_size=8",
    "sampler.classes_per_batch=4",
    "sampler.samples_per_class=2",
    "data.workers=0",
    "model.pretrained=false",
    "evaluation.sheet_rows=2",
    "evaluation.flip=false",
)
SMALLER = {  # what would take minutes on a processor, or a download
    ("ms1m", "teacher"): ("model.backbone=iresnet18",),
    ("imagenet", "cckd"): ("teacher.pretrained=false", f"teacher.options={{num_classes: {TWIN.ids}}}"),
}

EXAMPLES = """\
  reid-cckd smoke
  reid-cckd smoke cifar10 msmt17
  reid-cckd smoke --output runs/smoke        keep what was trained"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    text = "Train every family of configs/ for two steps and evaluate it, on small synthetic twins of its data."
    parser = make_parser("smoke", text, EXAMPLES)
    parser.add_argument("families", nargs="*", help="folders of --configs (default all that hold a cckd.yaml)")
    parser.add_argument("--configs", type=Path, default=Path("configs"), help="folder of the families")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="keep runs and data there (default: nowhere)")
    return run(_command, parser, argv)


def _command(arguments: argparse.Namespace) -> None:
    known = sorted(path.parent.name for path in arguments.configs.glob("*/cckd.yaml"))
    if unknown := set(arguments.families or known) - set(known) or (not known and {"cckd.yaml"}):
        raise ConfigError(
            f"There is no family {', '.join(sorted(unknown))} in {arguments.configs}; it holds "
            f"{', '.join(known) or 'none'}. Run this in a clone, or give --configs."
        )
    names = arguments.families or known
    if arguments.output and (before := [name for name in names if (arguments.output / name).exists()]):
        raise ConfigError(f"{arguments.output} holds runs of {', '.join(before)} already: give another --output.")
    with contextlib.ExitStack() as stack:
        folder = arguments.output or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = [row for name in names for row in family(arguments.configs / name, folder)]
    print(f"\n{format_table(rows)}")
    if failed := [f"{row['family']}/{row['run']}" for row in rows if row["outcome"] != "ok"]:
        raise UserError(f"{len(failed)} of {len(rows)} runs failed: {', '.join(failed)}.")


def family(configs: Path, folder: Path) -> list[dict[str, Any]]:
    """A row for each run: the teacher, where one is trained, and the student that learns from it."""
    rows: list[dict[str, Any]] = []
    for name in [name for name in ("teacher", "cckd") if (configs / f"{name}.yaml").is_file()]:
        print(f"{configs.name}/{name} ...", flush=True)
        printed, start = io.StringIO(), time.monotonic()
        row = {"family": configs.name, "run": name, "data": "", "network": "", "score": "", "outcome": "ok"}
        try:
            with contextlib.redirect_stdout(printed):
                config = tiny(configs / f"{name}.yaml", folder)
                row |= {"data": config.data.dataset, "network": config.model.backbone}
                scores = read_report(train(config) / REPORT)["scores"]
            row["score"] = ", ".join(f"{key} {100 * value:.0f} %" for key, value in list(scores.items())[:1])
        except Exception as error:  # whatever it is, the other families are still worth trying
            known = isinstance(error, UserError)
            row["outcome"] = "failed"
            print(printed.getvalue(), error if known else traceback.format_exc(), sep="\n", flush=True)
        rows.append({**row, "seconds": round(time.monotonic() - start, 1)})
    return rows


def tiny(path: Path, folder: Path) -> Config:
    """The configuration at ``path`` with a twin of its data, made on the way, and with little to do."""
    name, run_name = path.parent.name, path.stem
    written, root = load_config(path), folder / "data" / path.parent.name
    overrides = [*TINY, *SMALLER.get((name, run_name), ()), f"data.root={root}", f"output={folder / name / run_name}"]
    if isinstance(written.data.augment, str) and max(written.data.image_size) > 64:
        overrides.append("data.image_size=[64, 32]")
    if written.teacher is not None:
        overrides.append("teacher.allow_weak=true")
        if written.teacher.checkpoint:
            overrides.append(f"teacher.checkpoint={folder / name / 'teacher' / 'last.pt'}")
    make_twin(written.data.dataset, root)
    if written.evaluation.pairs:
        overrides.append(f"evaluation.pairs={{lfw: {root / 'lfw.bin'}}}")
    return load_config(path, overrides)


def make_twin(dataset: str, root: Path) -> None:
    """A small set in the format of ``dataset``.

    Raises:
        ConfigError: there is no twin of it.
    """
    if dataset in TWINS:
        write_twin(dataset, root, TWIN)
    elif dataset in ("msmt17", "synthetic"):
        ensure_pedestrians(root, **PEDESTRIANS)
    else:
        raise ConfigError(f"There is no synthetic twin of {dataset}; there are {', '.join(TWINS)}.")
