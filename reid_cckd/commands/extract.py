"""`reid-cckd extract NETWORK --output FOLDER [key=value ...]`: embeddings of a data set, kept on disk."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from reid_cckd import build
from reid_cckd.assess import RetrievalJudge
from reid_cckd.commands.console import make_parser, run, take_overrides
from reid_cckd.commands.progress import progress, readable_bytes, readable_seconds
from reid_cckd.commands.roles import of_roles
from reid_cckd.commands.sameness import source_of
from reid_cckd.config import Config, config_from_dict, to_dict
from reid_cckd.data import ROLES, ImageDataset
from reid_cckd.engine import embed_batch, extract_to, pick_device
from reid_cckd.files import write_json
from reid_cckd.models import Embedder

EXAMPLES = """\
  reid-cckd extract runs/msmt17/cckd/last.pt --output features/cckd
  reid-cckd extract runs/msmt17/cckd/last.pt --output features/market data.dataset=market1501 data.root=/data/market
  reid-cckd extract resnet50 --output features/resnet50 --roles train query gallery data.root=/data/msmt17
  reid-cckd extract resnet50 --output features/half --dtype float16 model.pretrained=r50.pth data.root=/data/msmt17"""

USUAL = ("query", "gallery")  # roles
_TRIAL = 16  # images timed before the work starts


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    text = "Keep a network's embeddings of a data set in a folder. Interrupted, the same command goes on where it was."
    parser = make_parser("extract", text, EXAMPLES)
    parser.add_argument("network", help="a run's folder, last.pt or best.pt; or the name of a timm model")
    take_overrides(parser, "data.*, evaluation.on, evaluation.flip, ...")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument(
        "--roles",
        nargs="+",
        choices=ROLES,
        metavar="ROLE",
        help=f"which of {', '.join(ROLES)} (default query gallery, or that of them which there is)",
    )
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16"), help="of what is kept")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was made to this file")
    return run(_command, parser, argv)


def _command(arguments: argparse.Namespace) -> None:
    loaded = find_network(arguments.network, arguments.overrides)
    config = loaded.config
    device = pick_device(config.train.device)
    manifest = of_roles(build.read_manifest(config.data), arguments.roles, USUAL)
    dataset = build.image_dataset(manifest, manifest.labels, config.data)
    network = build.place(loaded.network, config, device).eval()
    judge = RetrievalJudge(manifest, config.evaluation, config.data, device, build.precision(config, device))
    settings = config.evaluation
    embed = partial(embed_batch, network, device=device, precision=judge.precision, on=settings.on, flip=settings.flip)
    index = judge.index(dataset.manifest, loaded.sha256)
    index = replace(index, about={**index.about, "dtype": arguments.dtype, "amp": config.train.amp})
    _announce(network, dataset, config, arguments, embed)
    with progress("embed", "images") as show:
        found = extract_to(
            arguments.output,
            embed,
            lambda start: build.plain_loader(dataset, settings.batch_size, config.data.workers, start),
            index,
            dtype=arguments.dtype,
            progress=show,
        )
    print(f"{arguments.output}: {len(found):,} embeddings of width {found.vectors.shape[1]:,}, {arguments.dtype}.")
    if arguments.json:
        write_json(arguments.json, {"rows": len(found), "width": found.vectors.shape[1], **found.about})


def find_network(name: str, overrides: Sequence[str]) -> build.Loaded:
    """The checkpoint of that name with its own configuration changed, or timm's model.

    Raises:
        ConfigError, CheckpointError: there is neither, or a key is wrong.
    """
    name = str(source_of(name))
    if not Path(name).is_file() and Path(name).suffix not in (".pt", ".pth") and "/" not in name:
        return build.timm_network(name, overrides)
    loaded = build.load_network(name)
    return replace(loaded, config=config_from_dict(to_dict(loaded.config), name, overrides))


def _announce(
    network: Embedder, dataset: ImageDataset, config: Config, arguments: argparse.Namespace, embed: Any
) -> None:
    """Print the size of what will be written and about how long it takes, from a trial of a few images."""
    count = len(dataset)
    size = count * network.width * (4 if arguments.dtype == "float32" else 2)
    trial = build.plain_loader(dataset, _TRIAL, 0)
    start = time.perf_counter()
    batch = next(iter(trial))
    decoding = (time.perf_counter() - start) / max(1, config.data.workers)
    embed(batch)  # the first one also warms up
    start = time.perf_counter()
    embed(batch)
    computing = time.perf_counter() - start
    each = (max(decoding, computing) if config.data.workers else decoding + computing) / len(batch.index)
    print(
        f"{count:,} images to embed: {readable_bytes(size)} in {arguments.output}, "
        f"about {readable_seconds(count * each)} on {pick_device(config.train.device)}.",
        flush=True,
    )
