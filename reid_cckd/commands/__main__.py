"""`reid-cckd COMMAND ...`"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence

from reid_cckd import __version__
from reid_cckd.errors import did_you_mean

COMMANDS = {
    "train": "train a teacher or a student from a YAML file",
    "test": "evaluate a checkpoint, or saved embeddings",
    "extract": "keep a network's embeddings of a data set on disk",
    "export": "write a network into a file that runs without this package (torch.export, ONNX)",
    "compare": "what a student keeps of its teacher, and whether it can search its gallery",
    "features": "turn embeddings to MegaFace's devkit features and back",
    "identify": "find photos among up to millions of distractors (MegaFace)",
    "verify": "tell pairs of one person from others (LFW, pair lists, IJB-B, IJB-C)",
    "data": "check a data set on disk, or write a synthetic one",
    "prepare": "write a data set as a pack, as identity folders or as packed images",
    "sweep": "train the runs of a study over grids and seeds, with a table at the end",
    "reproduce": "a table of the paper, trained and set beside what was published",
    "figures": "draw what students took over from their teacher",
    "runs": "compare finished runs, seeds as mean ± std",
    "smoke": "two steps and an evaluation of every family of configurations, on synthetic twins",
    "quickstart": "teacher, student, KD and CCKD on synthetic pedestrians, with a table at the end",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its own --help says what it takes."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"reid-cckd {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        meant = did_you_mean(arguments[0], COMMANDS)
        print(f"reid-cckd: there is no command {arguments[0]!r}.{meant}\n\n{_usage()}", file=sys.stderr)
        return 2
    try:  # importing takes seconds, in which a traceback of torch is no answer either
        command: Callable[[list[str]], int] = importlib.import_module(f"reid_cckd.commands.{arguments[0]}").main
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    return command(arguments[1:])


def _usage() -> str:
    rows = "\n".join(f"  {name:<12}{text}" for name, text in COMMANDS.items())
    return (
        f"usage: reid-cckd COMMAND ...\n\n{rows}\n\nreid-cckd COMMAND --help shows a command's arguments with examples."
    )


if __name__ == "__main__":
    sys.exit(main())
