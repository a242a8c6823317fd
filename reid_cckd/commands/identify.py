"""`reid-cckd identify PROBES DISTRACTORS`: the MegaFace protocol, for its lists or for any two sets of embeddings."""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_cckd.commands.console import make_parser, run
from reid_cckd.commands.making import refuse_other_making
from reid_cckd.commands.progress import progress, readable_bytes, readable_seconds
from reid_cckd.data import refuse_unlabelled
from reid_cckd.data.megaface import (
    distractor_list,
    named_in,
    read_template_list,
    rows_of,
    write_result,
)
from reid_cckd.engine import Embeddings, pick_device
from reid_cckd.errors import ConfigError, UserError
from reid_cckd.evaluation import (
    IdentificationResult,
    clean_probes,
    evaluate_identification,
    predict_identification,
    product_rate,
)
from reid_cckd.files import write_json
from reid_cckd.report import cmc_curves, format_table, provenance, roc_curves

EXAMPLES = """\
  reid-cckd identify features/fs features/mf --probe-list devkit/templatelists/facescrub_features_list.json \\
      --distractor-lists devkit/templatelists/megaface_features_list.json --sets 1 2 3 \\
      --probe-noises facescrub_noises.txt --distractor-noises megaface_noises.txt --output runs/megaface
  reid-cckd identify features/staff features/crowd --scales 1000 1000000 --output runs/crowd"""

SCALES = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
CURVE_RANKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)
CURVE_FPRS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3)


@dataclass(frozen=True)
class Probes:
    """Photos and their people; ``cleaned`` is what stands in for them when noise is taken out."""

    vectors: NDArray[Any]
    people: NDArray[Any]
    cleaned: NDArray[np.float32] | None
    num_noisy: int


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the command."""
    text = "Find each photo of a person by each other photo of that person among the first N distractors."
    parser = make_parser("identify", text, EXAMPLES)
    parser.add_argument("probes", type=Path, help="embeddings of the photos (its queries, if it has any)")
    parser.add_argument("distractors", type=Path, help="embeddings of the distractors (its gallery, if it has one)")
    parser.add_argument("--probe-list", type=Path, help="the devkit's list of probes; by default all")
    parser.add_argument("--distractor-lists", type=Path, help="LISTS of the devkit's LISTS_SCALE_SET; by default all")
    parser.add_argument("--sets", type=int, nargs="+", default=[1], help="which sets of the lists (default 1)")
    parser.add_argument("--scales", type=int, nargs="+", help="numbers of distractors (default 10 ... 1000000)")
    parser.add_argument("--probe-noises", type=Path, help="names of probes that show somebody else")
    parser.add_argument("--distractor-noises", type=Path, help="paths of distractors that show a probe's person")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--devkit-name", metavar="NAME", help="also write cmc_facescrub_megaface_NAME_SCALE_SET.json")
    parser.add_argument("--output", type=Path, required=True, help="where report.json, cmc.png and roc.png go")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to this file too")
    return run(_command, parser, argv)


def _command(arguments: argparse.Namespace) -> None:
    if len(arguments.sets) > 1 and arguments.distractor_lists is None:
        raise ConfigError("--sets goes with --distractor-lists: one folder of distractors is one set.")
    arguments.sets = list(dict.fromkeys(arguments.sets))
    photos, others = Embeddings.load(arguments.probes), Embeddings.load(arguments.distractors)
    if photos.source and others.source and photos.source != others.source:
        raise UserError(f"{arguments.probes} and {arguments.distractors} come from different checkpoints.")
    refuse_other_making(photos, arguments.probes, others, arguments.distractors)
    photos, others = _of(photos, "query"), _of(others, "gallery")
    probes = _probes(arguments, photos)
    ignored = _ignored(arguments, others)
    scales = _scales(arguments, len(others))
    kinds: dict[str, tuple[NDArray[Any], NDArray[np.bool_] | None]] = {"raw": (probes.vectors, None)}
    if probes.cleaned is not None or ignored is not None:
        kinds["cleaned"] = (probes.vectors if probes.cleaned is None else probes.cleaned, ignored)
    _announce(arguments, len(probes.vectors), others, scales, len(kinds))
    results: dict[str, dict[int, IdentificationResult]] = {kind: {} for kind in kinds}
    for number in arguments.sets:
        for chain, order in _orders(arguments, others, scales, number):
            for kind, (rows, wrong) in kinds.items():
                found = _evaluate(arguments, rows, probes.people, others, chain, order, wrong)
                results[kind][number] = _merged(results[kind].get(number), found)
    made = {"probes": dict(photos.about), "distractors": dict(others.about)}
    _report(arguments, probes, made, results)


def _of(rows: Embeddings, role: str) -> Embeddings:
    """The images of a role where a folder holds such; features of the devkit know none, and all of them count."""
    return rows.select(role) if (rows.roles == role).any() else rows


def _probes(arguments: argparse.Namespace, photos: Embeddings) -> Probes:
    people: NDArray[Any] = photos.labels
    names: list[str] = photos.paths.tolist()
    vectors: NDArray[Any] = photos.vectors
    if arguments.probe_list is not None:
        listed = read_template_list(arguments.probe_list)
        photos = photos.take(rows_of(listed.paths, names, str(arguments.probe_list)))
        vectors, names = photos.vectors, list(listed.paths)
        people = np.array(listed.ids) if listed.ids else photos.labels
    refuse_unlabelled(people, f"probes of {arguments.probes}")
    if arguments.probe_noises is None:
        return Probes(vectors, people, None, 0)
    noisy = named_in(arguments.probe_noises, names)
    try:
        return Probes(vectors, people, clean_probes(vectors, people, noisy), int(noisy.sum()))
    except ValueError as error:
        raise UserError(f"{arguments.probe_noises}: {error}") from error


def _ignored(arguments: argparse.Namespace, others: Embeddings) -> NDArray[np.bool_] | None:
    if arguments.distractor_noises is None:
        return None
    return named_in(arguments.distractor_noises, others.paths.tolist())


def _scales(arguments: argparse.Namespace, held: int) -> list[int]:
    if arguments.scales:
        return sorted(set(arguments.scales))
    if arguments.distractor_lists is None:
        return sorted({*(scale for scale in SCALES if scale < held), held})
    lists = arguments.distractor_lists
    return [scale for scale in SCALES if all(distractor_list(lists, scale, n).exists() for n in arguments.sets)]


def _orders(
    arguments: argparse.Namespace, others: Embeddings, scales: Sequence[int], number: int
) -> list[tuple[list[int], NDArray[np.int64] | None]]:
    """Scales that one pass serves, and the rows it takes: all scales where each list begins the next."""
    if arguments.distractor_lists is None:
        return [(list(scales), None)]
    if not scales:
        raise UserError(f"{arguments.distractor_lists}_SCALE_{number}: no such list; give --scales, or check the path.")
    lists = {}
    for scale in scales:
        path = distractor_list(arguments.distractor_lists, scale, number)
        rows = rows_of(read_template_list(path).paths, others.paths.tolist(), str(path))
        if len(rows) != scale:
            raise UserError(f"{path} names {len(rows):,} images; expected {scale:,}.")
        lists[scale] = rows
    if all(np.array_equal(lists[a], lists[b][:a]) for a, b in itertools.pairwise(scales)):
        return [(list(scales), lists[scales[-1]])]
    return [([scale], rows) for scale, rows in lists.items()]


def _evaluate(
    arguments: argparse.Namespace,
    vectors: NDArray[Any],
    people: NDArray[Any],
    others: Embeddings,
    scales: Sequence[int],
    order: NDArray[np.int64] | None,
    ignored: NDArray[np.bool_] | None,
) -> IdentificationResult:
    options: dict[str, Any] = {"ignored": ignored, "order": order, "device": pick_device(arguments.device)}
    try:
        with progress("identify", "distractors") as show:
            return evaluate_identification(
                vectors, people, others.vectors, scales, CURVE_RANKS, CURVE_FPRS, progress=show, **options
            )
    except (ValueError, TypeError) as error:
        raise UserError(f"{arguments.probes} among {arguments.distractors}: {error}") from error


def _merged(one: IdentificationResult | None, other: IdentificationResult) -> IdentificationResult:
    """Results of different scales of one set."""
    if one is None:
        return other
    scaled = {name: getattr(one, name) | getattr(other, name) for name in ("rate", "tpr", "above", "num_ignored")}
    return IdentificationResult(num_probes=one.num_probes, num_pairs=one.num_pairs, **scaled)


def _announce(
    arguments: argparse.Namespace, probes: int, others: Embeddings, scales: Sequence[int], kinds: int
) -> None:
    if not scales:
        return
    width, converted = others.vectors.shape[1], others.vectors.dtype != np.float32
    need = predict_identification(probes, scales[-1], width, max(CURVE_FPRS), converted=converted)
    seconds = kinds * len(arguments.sets) * need.seconds(product_rate(width, pick_device(arguments.device)))
    print(
        f"{probes:,} probes among {scales[-1]:,} distractors, width {width:,}, {len(arguments.sets)} set(s): "
        f"{readable_bytes(need.memory)} beyond the inputs, about {readable_seconds(seconds)}",
        flush=True,
    )


def _report(
    arguments: argparse.Namespace,
    probes: Probes,
    made: dict[str, dict[str, Any]],
    results: dict[str, dict[int, IdentificationResult]],
) -> None:
    rows = [_row(kind, found, scale) for kind, found in results.items() for scale in next(iter(found.values())).rate]
    shown = [key for key in rows[0] if key in ("rank1", "rank10", "tpr@1e-06", "tpr@1e-05")]
    print(format_table(rows, ["features", "distractors", *shown, "ignored"], percent=shown))
    report = {
        "rows": rows,
        "protocol": {
            "sets": arguments.sets,
            "probes": len(probes.vectors),
            "noisy_probes": probes.num_noisy,
            "ties": "count as hits",
            "spread": "sample standard deviation over sets",
        },
        "provenance": provenance(
            checkpoint_sha256=str(made["distractors"].get("source", "")), device=arguments.device, embeddings=made
        ),
    }
    write_json(arguments.output / "report.json", report)
    first = {kind: found[arguments.sets[0]] for kind, found in results.items()}
    cmc = {f"{kind}, among {scale:,}": rates for kind, found in first.items() for scale, rates in found.rate.items()}
    roc = {f"{kind}, among {scale:,}": rates for kind, found in first.items() for scale, rates in found.tpr.items()}
    cmc_curves(arguments.output / "cmc.png", cmc, "Identification")
    roc_curves(arguments.output / "roc.png", roc, "Verification")
    if arguments.devkit_name:
        _write_devkit(arguments, results)
    if arguments.json:
        write_json(arguments.json, report)
    print(f"Report and pictures: {arguments.output}")


def _row(kind: str, results: dict[int, IdentificationResult], scale: int) -> dict[str, Any]:
    """Means over the sets, with standard deviations where there are several."""
    per_set = [next(row for row in result.summary() if row["distractors"] == scale) for result in results.values()]
    row: dict[str, Any] = {"features": kind, "distractors": scale}
    for key in per_set[0]:
        if key not in row:
            values = [each[key] for each in per_set]
            row[key] = values[0] if len(values) == 1 else [statistics.fmean(values), statistics.stdev(values)]
    return row


def _write_devkit(arguments: argparse.Namespace, results: dict[str, dict[int, IdentificationResult]]) -> None:
    for kind, found in results.items():
        name = f"cmc_facescrub_megaface_{arguments.devkit_name}{'' if kind == 'raw' else '_cleaned'}"
        for number, result in found.items():
            for scale in result.rate:
                write_result(arguments.output / f"{name}_{scale}_{number}.json", result.rate[scale], result.tpr[scale])
