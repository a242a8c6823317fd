"""`reid-cckd features from-devkit` and `to-devkit`: embeddings as the MegaFace devkit keeps them, a file an image."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reid_cckd.commands.console import make_parser, run, run_action
from reid_cckd.commands.progress import progress
from reid_cckd.data.megaface import TemplateList, folder_of, read_feature, read_lst, read_template_list, write_feature
from reid_cckd.engine import Embeddings
from reid_cckd.engine.embeddings import create_vectors, part_of
from reid_cckd.errors import DataError

FROM_EXAMPLES = """\
  reid-cckd features from-devkit facescrub --suffix _r100.bin --list facescrub_features_list.json --output features/fs
  reid-cckd features from-devkit megaface --suffix _r100.bin --output features/mf"""
TO_EXAMPLES = """\
  reid-cckd features to-devkit features/mf --suffix _r100.bin --output devkit/megaface"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    actions = {"from-devkit": _from_main, "to-devkit": _to_main}
    return run_action("features", actions, f"{FROM_EXAMPLES}\n{TO_EXAMPLES}", argv)


def _from_main(argv: Sequence[str]) -> int:
    text = "Gather devkit features (PATH + SUFFIX below a folder) into one folder of embeddings."
    parser = make_parser("features from-devkit", text, FROM_EXAMPLES)
    parser.add_argument("root", type=Path, help="the folder below which the paths begin")
    parser.add_argument("--suffix", required=True, help="what follows an image's path, for example _r100.bin")
    parser.add_argument("--list", type=Path, help="a devkit list (.json) or *_lst; by default every such file")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="a new folder of embeddings")
    return run(_from_devkit, parser, argv)


def _from_devkit(arguments: argparse.Namespace) -> None:
    listed = _listed(arguments.root, arguments.suffix, arguments.list)
    output, count = arguments.output, len(listed.paths)
    if output.exists():
        raise DataError(f"{output} exists already; choose another folder, or delete it.")
    width = len(read_feature(f"{arguments.root / listed.paths[0]}{arguments.suffix}"))
    vectors = create_vectors(part_of(output), np.float32, (count, width))
    with progress("gather", "files") as show:
        for row, path in enumerate(listed.paths):
            vector = read_feature(f"{arguments.root / path}{arguments.suffix}")
            if len(vector) != width:
                raise DataError(f"{path}{arguments.suffix} has {len(vector)} features and the first file {width}.")
            vectors[row] = vector
            show(row + 1, count)
    vectors.flush()
    people = np.array(listed.ids)
    paths, roles = np.array(listed.paths), np.full(count, "gallery")
    about = {"source": "", "devkit": str(arguments.root), "suffix": arguments.suffix}
    Embeddings(vectors, people, np.zeros(count, np.int64), paths, roles, about).finish(output)
    print(f"{output}: {count:,} embeddings of width {width:,} of {len(set(listed.ids)):,} people or folders.")


def _listed(root: Path, suffix: str, path: Path | None) -> TemplateList:
    if path is None:
        found = sorted(file.relative_to(root).as_posix() for file in root.rglob(f"*{suffix}"))
        if not found:
            raise DataError(f"No file below {root} ends in {suffix}; check the folder and --suffix.")
        names = tuple(name.removesuffix(suffix) for name in found)
        return TemplateList(names, tuple(map(folder_of, names)))
    listed = read_template_list(path) if ".json" in path.name else read_lst(path)
    return listed if listed.ids else TemplateList(listed.paths, tuple(map(folder_of, listed.paths)))


def _to_main(argv: Sequence[str]) -> int:
    text = "Write embeddings as devkit features, for tools that read these."
    parser = make_parser("features to-devkit", text, TO_EXAMPLES)
    parser.add_argument("embeddings", type=Path, help="a folder of embeddings")
    parser.add_argument("--suffix", required=True, help="what follows an image's path, for example _r100.bin")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="the folder to write below")
    return run(_to_devkit, parser, argv)


def _to_devkit(arguments: argparse.Namespace) -> None:
    rows = Embeddings.load(arguments.embeddings)
    with progress("write", "files") as show:
        for number, path in enumerate(rows.paths.tolist()):
            target = (arguments.output / f"{path}{arguments.suffix}").resolve()
            if not target.is_relative_to(arguments.output.resolve()):
                raise DataError(f"{arguments.embeddings} names {path}, which would be written outside the output.")
            write_feature(target, rows.vectors[number])
            show(number + 1, len(rows))
    print(f"{arguments.output}: {len(rows):,} files.")
