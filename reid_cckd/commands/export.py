"""`reid-cckd export NETWORK --output FILE`: a trained network as a file that runs without this package."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reid_cckd import __version__
from reid_cckd.assess import answer_of
from reid_cckd.build import Loaded, load_network
from reid_cckd.commands.console import make_parser, run
from reid_cckd.commands.progress import readable_bytes
from reid_cckd.commands.sameness import source_of
from reid_cckd.engine import count
from reid_cckd.errors import ConfigError, DataError
from reid_cckd.files import atomic_path
from reid_cckd.models import Deployed

EXAMPLES = """\
  reid-cckd export runs/msmt17/cckd/last.pt --output student.pt2      # torch.export.load("student.pt2").module()
  reid-cckd export runs/msmt17/cckd/last.pt --output student.onnx     # pip install onnx onnxscript
  reid-cckd export runs/msmt17/cckd --output student.onnx --flip        # answers as test and extract do by default
  reid-cckd export runs/cifar100/cckd --output student.pt2 --answer logits"""

ABOUT = "about.json"  # in a .pt2, what goes in and comes out; an .onnx says it in its metadata_props
TRIAL = 3  # images by which a file is compared with its network: another number than it was traced with
CLOSE = 1e-3  # of rows at length 1

Network = Callable[[Tensor], Tensor]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    text = (
        "Write a trained network into a file that runs without this package: uint8 RGB images of its size in, in "
        "batches of any number, embeddings at length 1 out. The file says how to prepare images; it is read again and "
        "compared with the network."
    )
    parser = make_parser("export", text, EXAMPLES)
    parser.add_argument("network", help="a run's folder, last.pt or best.pt")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help=".pt2 (torch.export) or .onnx")
    parser.add_argument(
        "--answer",
        choices=("neck", "embedding", "logits"),
        help="default: what its task is evaluated by, class scores (logits) or evaluation.on",
    )
    parser.add_argument(
        "--flip", action="store_true", help="add the mirrored image's, as evaluation.flip does: twice the work"
    )
    return run(_command, parser, argv)


def _command(arguments: argparse.Namespace) -> None:
    path: Path = arguments.output
    if path.suffix not in FORMATS:
        raise ConfigError(f"--output: expected a name that ends in {' or '.join(FORMATS)}, got {path.name!r}.")
    loaded = load_network(source_of(arguments.network))
    answer = arguments.answer or answer_of(loaded.config.evaluation)
    if answer == "logits" and loaded.network.head is None:
        raise ConfigError("--answer: this network has no class head; take neck or embedding.")
    if answer == "logits" and arguments.flip:
        raise ConfigError(
            "--flip is of embeddings (--answer neck); class scores are of an image as it is, in a test too."
        )
    network = Deployed(loaded.network, answer, arguments.flip).requires_grad_(False)
    height, width = loaded.config.data.image_size
    images = torch.randint(0, 256, (TRIAL, 3, height, width), dtype=torch.uint8)
    wanted = network(images)
    _drop_unread(network, (height, width))
    about = describe(loaded, network, wanted.shape[1])
    write, read = FORMATS[path.suffix]
    with atomic_path(path) as temporary:
        write(network, images[:2], temporary, about)
        off = _difference(read(temporary)(images), wanted)
    rows = "class scores" if answer == "logits" else "embeddings at length 1"
    print(
        f"{path}: {readable_bytes(path.stat().st_size)}, (N, 3, {height}, {width}) uint8 RGB to "
        f"(N, {wanted.shape[1]}) {rows}; off by {off:.1e} from the network on {TRIAL} images of noise."
    )
    if loaded.config.evaluation.flip and not network.flip and answer != "logits":
        print(
            "Scores of `test` add each image's mirror (evaluation.flip); this file does not. --flip puts that into it."
        )


def describe(loaded: Loaded, network: Deployed, width: int) -> dict[str, str]:
    """What somebody needs who has the file alone: how to prepare images, what comes out, where it is from."""
    height, across = loaded.config.data.image_size
    scores = network.answer == "logits"
    about = {
        "images": f"(N, 3, {height}, {across}) uint8, RGB, 0 to 255; the network normalises them by itself",
        "preparation": (
            f"turn upright by EXIF, convert to RGB, resize to height {height} and width {across} whatever its shape, "
            "by antialiased bilinear filtering, Pillow's BILINEAR (OpenCV's INTER_LINEAR does not antialias)"
        ),
        "rows": f"(N, {width}) float32, "
        + ("class scores" if scores else "at length 1: dot products are similarities"),
        "answer": network.answer,
        "flip": "embeddings of image and mirrored image added inside" if network.flip else "no",
        "backbone": loaded.config.model.backbone,
        "trained_on": loaded.config.data.dataset,
        "checkpoint_sha256": loaded.sha256,
        "reid_cckd": __version__,
    }
    return about | ({"classes": json.dumps(list(loaded.names) or loaded.classes)} if scores else {})


def _drop_unread(network: nn.Module, image_size: tuple[int, int]) -> None:
    """Parameters that no image meets: a .pt2 would carry them along."""
    read = count(network, image_size).read
    for name, _ in list(network.named_parameters()):
        if name not in read:
            owner, _, own = name.rpartition(".")
            network.get_submodule(owner).register_parameter(own, None)


def _difference(found: Tensor, wanted: Tensor) -> float:
    """How far the file's rows are from the network's at most.

    Raises:
        DataError: further than rounding takes them.
    """
    off = float((found - wanted).abs().max())
    if not off <= CLOSE * max(float(wanted.abs().max()), 1.0):
        raise DataError(f"The exported network is off by {off:.1e} from the one it was made of; nothing was written.")
    return off


def _write_torch(network: nn.Module, images: Tensor, path: Path, about: Mapping[str, str]) -> None:
    program = torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={ABOUT: json.dumps(about, indent=2)})


def _read_torch(path: Path) -> Network:
    with path.open("rb") as file:
        return torch.export.load(file).module()


def _write_onnx(network: nn.Module, images: Tensor, path: Path, about: Mapping[str, str]) -> None:
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["rows"]}
    shapes = ({0: torch.export.Dim("batch")},)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(network, (images,), dynamo=True, dynamic_shapes=shapes, verbose=False, **names)
    except ImportError as error:
        raise ConfigError(f"--output: .onnx needs two packages more ({error}): pip install onnx onnxscript.") from error
    assert program is not None
    program.model.metadata_props.update(about)
    program.save(path, external_data=False)


def _read_onnx(path: Path) -> Network:
    """By onnxruntime where it is installed, else by ONNX's own, slow reference."""
    try:
        from onnxruntime import InferenceSession

        session = InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    except ImportError:
        from onnx.reference import ReferenceEvaluator as InferenceSession

        session = InferenceSession(path.read_bytes())
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


Writer = Callable[[nn.Module, Tensor, Path, Mapping[str, str]], None]
FORMATS: dict[str, tuple[Writer, Callable[[Path], Network]]] = {
    ".pt2": (_write_torch, _read_torch),
    ".onnx": (_write_onnx, _read_onnx),
}
