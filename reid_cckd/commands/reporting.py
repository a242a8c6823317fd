"""What `train`, `test` and `quickstart` leave behind: a JSON report, a table, a picture sheet, curves."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_cckd.assess import PLAIN, Refinement, RetrievalJudge, answer_of, protocol, scores
from reid_cckd.batch import Answer
from reid_cckd.commands.subjects import Subject, subject_of
from reid_cckd.config import Config
from reid_cckd.data import Manifest, Source
from reid_cckd.engine import (
    Embeddings,
    count,
    evaluating,
    milliseconds_per_image,
    rank,
)
from reid_cckd.evaluation import RecallResult, RetrievalResult, rank_gallery
from reid_cckd.files import atomic_path, write_json
from reid_cckd.models import Deployed, Embedder
from reid_cckd.report import (
    RankedRow,
    choose_rows,
    cmc_curves,
    format_table,
    provenance,
    ranked_sheet,
    score_heading,
)

SHEET_RANKS = 10
CURVE_RANKS = range(1, 51)
MILLIONS = {"parameters": 2, "macs": 1}  # digits behind the point


def counts(manifest: Manifest) -> dict[str, dict[str, int]]:
    """Images, ids and cameras by role."""
    return {role: part._asdict() for role, part in manifest.counts().items()}


def counts_table(manifest: Manifest) -> str:
    """The same, to print."""
    return format_table([{"role": role, **values} for role, values in counts(manifest).items()])


def print_balance(shares: Sequence[Mapping[str, Any]]) -> None:
    """Who pulls how hard on the student: what to look at when choosing a weight."""
    headings = {key: key.replace("_", " ") for key in shares[0]}
    print(format_table(shares, headings, percent=["loss_share", "gradient_share"]), flush=True)


def print_scores(name: str, values: Mapping[str, float]) -> None:
    """One line of an evaluation, in percent."""
    print(f"{name}: " + "  ".join(f"{key} {100 * value:.2f} %" for key, value in values.items()), flush=True)


def report_retrieval(
    network: Embedder, config: Config, judge: RetrievalJudge, folder: Path, sha256: str, teacher_sha256: str | None
) -> None:
    """Evaluate a network, and on rank 0 write report.json, queries.csv, cmc.png and ranks.png."""
    subject = subject_of(folder.name, network, config, judge, sha256, teacher_sha256)
    result = judge.evaluate(subject.query, subject.gallery)
    if rank() == 0:
        report_subject(subject, result, folder)


def report_subject(
    subject: Subject,
    result: RetrievalResult,
    folder: Path,
    refinement: Refinement = PLAIN,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Print a result's table and write report.json, queries.csv, cmc.png and, where images are known, ranks.png."""
    report: dict[str, Any] = {"main": RetrievalJudge.main, "scores": scores(result)}
    if subject.network is not None:
        report["cost"] = cost(subject.network, answer_of(subject.settings))
    report["protocol"] = protocol(subject.settings, result, refinement)
    if subject.manifest is not None:
        report["data"] = {"name": subject.manifest.name, "counts": counts(subject.manifest)}
    hashes = {"checkpoint_sha256": subject.query.source, "teacher_sha256": subject.teacher_sha256}
    report["provenance"] = provenance(config=subject.config, device=str(subject.device), **hashes)
    report |= more or {}
    write_json(folder / "report.json", report)
    write_queries(folder / "queries.csv", subject.query, result)
    cmc_curves(folder / "cmc.png", {subject.name: result.cmc_at(CURVE_RANKS)})
    if subject.settings.sheet_rows and subject.images is not None:
        draw_sheet(folder / "ranks.png", subject, result)
    print(score_table([{"name": subject.name, **report["scores"], **report.get("cost", {})}]))
    print(f"Report and pictures: {folder}")
    return report


def write_queries(path: Path, query: Embeddings | Manifest, result: RetrievalResult | RecallResult) -> None:
    """A line a query: image, id or name, camera, what its scores are means of, and the rank of its first match.

    Scores and rank are empty where nothing matches.
    """
    values = [getattr(result, name).tolist() for name in (*result.per_query, "first_rank")]
    people = [query.class_names.get(label, label) for label in query.labels.tolist()]
    columns = (query.paths, people, query.cameras.tolist(), result.valid.tolist(), *values)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "id", "camera", *result.per_query, "first_rank"])
        for image, person, camera, valid, *scores in zip(*columns, strict=True):
            writer.writerow([image, person, camera, *(scores if valid else [""] * len(scores))])


def cost(network: Embedder, answer: Answer) -> dict[str, Any]:
    """As `size`, and the time of one image in a batch of 32 on the network's device, in float32."""
    with evaluating(network):
        milliseconds = milliseconds_per_image(Deployed(network, answer), network.image_size)
    return {**size(network, answer), "ms_per_image": round(milliseconds, 4)}


def size(network: Embedder, answer: Answer) -> dict[str, Any]:
    """Parameters and MACs of what `export` writes: up to ``answer`` and no further, of an image without its mirror."""
    with evaluating(network):
        counted = count(Deployed(network, answer), network.image_size)
    return {"answer": answer, "parameters": counted.parameters, "macs": counted.macs}


def score_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """An aligned table of names, scores in percent and costs, where they are known."""
    shown = [{**row, **{key: f"{row[key] / 1e6:.{n}f} M" for key, n in MILLIONS.items() if key in row}} for row in rows]
    costs = {"answer": "cost up to", "parameters": "parameters", "macs": "MACs", "ms_per_image": "ms / image"}
    known = {key: title for key, title in costs.items() if key in rows[0]}
    titles = {key: score_heading(key) for key in rows[0] if key not in ("name", "mean_inp", *costs)}
    return format_table(shown, {"name": "name", **titles, **known}, percent=list(titles))


def draw_sheet(path: Path, subject: Subject, result: RetrievalResult) -> None:
    """A picture of some queries, the hardest among them, each with its first ten of the gallery."""
    assert subject.images is not None
    chosen = choose_rows(result.ap, subject.settings.sheet_rows)
    rows = ranked_rows(subject, chosen, subject.images, [f"AP {100 * ap:.0f} %" for ap in result.ap[chosen]])
    ranked_sheet(path, rows, f"{subject.name}: mAP {100 * result.mean_ap:.1f} %")


def ranked_rows(subject: Subject, numbers: NDArray[np.int64], images: Source, titles: Sequence[str]) -> list[RankedRow]:
    """Queries with their first ten of the gallery, junk left out, ranked by their embeddings alone."""
    query, gallery = subject.query.take(numbers), subject.gallery
    lists: dict[str, Any] = {"query_ids": query.labels, "gallery_ids": gallery.labels}
    lists |= {"query_cameras": query.cameras, "gallery_cameras": gallery.cameras}
    junk = lists if subject.settings.cameras == "exclude-same" else {}
    order, similarity = rank_gallery(query.vectors, gallery.vectors, SHEET_RANKS, **junk, device=subject.device)

    def row(number: int) -> RankedRow:
        found = order[number][order[number] >= 0]
        paths = [query.paths[number], *gallery.paths[found]]
        first, *others = (partial(images.image_or_reason, str(path)) for path in paths)
        matches = gallery.labels[found] == query.labels[number]
        scores = similarity[number, : len(found)].tolist()
        who = query.class_names.get(query.labels[number].item(), "")
        names = [gallery.class_names.get(label, "") for label in gallery.labels[found].tolist()]
        return RankedRow(first, others, matches.tolist(), scores, f"{titles[number]}   {who}".rstrip(), names)

    return [row(number) for number in range(len(numbers))]
