"""What `train`, `test` and `quickstart` leave behind: a JSON report, a table, a picture sheet, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reid_cckd.assess import Judge, protocol, scores
from reid_cckd.config import Config, to_dict
from reid_cckd.data import Manifest
from reid_cckd.engine import (
    Embeddings,
    RunLog,
    Trainer,
    count_macs,
    count_parameters,
    file_hash,
    milliseconds_per_image,
)
from reid_cckd.evaluation import RetrievalResult, rank_gallery
from reid_cckd.files import write_json
from reid_cckd.models import Embedder
from reid_cckd.report import RankedRow, choose_rows, format_table, provenance, ranked_sheet, training_curves

SHEET_RANKS = 10


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


def report_run(config: Config, trainer: Trainer, judge: Judge) -> dict[str, Any]:
    """Evaluate the finished network and write report.json, ranks.png and curves.png beside its checkpoints."""
    folder = Path(config.output)
    network = trainer.network
    assert isinstance(network, Embedder)
    report = report_network(network, config, judge, file_hash(folder / "last.pt"), folder)
    training_curves(folder / "curves.png", {folder.name: RunLog(folder / "log.jsonl").rows()})
    return report


def report_network(network: Embedder, config: Config, judge: Judge, sha256: str, folder: Path) -> dict[str, Any]:
    """Evaluate a network, print its table, and write report.json and ranks.png into ``folder``."""
    query, gallery = judge.embed(network, sha256)
    result = judge.evaluate(query, gallery)
    report = {
        "scores": scores(result),
        "cost": cost(network),
        "protocol": protocol(judge.settings, result),
        "data": {"name": judge.manifest.name, "counts": counts(judge.manifest)},
        "provenance": provenance(config=to_dict(config), checkpoint_sha256=sha256, device=str(judge.device)),
    }
    write_json(folder / "report.json", report)
    if judge.settings.sheet_rows:
        draw_sheet(folder / "ranks.png", query, gallery, result, judge)
    print(score_table([{"name": folder.name, **report["scores"], **report["cost"]}]))
    print(f"Report, checkpoints and pictures: {folder}")
    return report


def cost(network: Embedder) -> dict[str, float]:
    """Parameters, MACs per image, and the time of one image in a batch of 32 on the network's device."""
    return {
        "parameters": count_parameters(network),
        "macs": count_macs(network, network.image_size),
        "ms_per_image": round(milliseconds_per_image(network, network.image_size), 4),
    }


def score_table(rows: Sequence[Mapping[str, Any]], style: Literal["plain", "markdown"] = "plain") -> str:
    """An aligned table of names, scores in percent and costs."""
    ranks = [key for key in rows[0] if key.startswith("rank")]
    shown = [
        {**row, "parameters": f"{row['parameters'] / 1e6:.2f} M", "macs": f"{row['macs'] / 1e6:.1f} M"} for row in rows
    ]
    titles = {"name": "name", "mean_ap": "mAP", **{key: f"rank-{key[4:]}" for key in ranks}}
    costs = {"parameters": "parameters", "macs": "MACs", "ms_per_image": "ms / image"}
    return format_table(shown, {**titles, **costs}, percent=["mean_ap", *ranks], style=style)


def draw_sheet(path: Path, query: Embeddings, gallery: Embeddings, result: RetrievalResult, judge: Judge) -> None:
    """A picture of some queries, the hardest among them, each with its first ten of the gallery."""
    chosen = choose_rows(result.ap, judge.settings.sheet_rows)
    exclude = judge.settings.cameras == "exclude-same"
    root, rows = judge.manifest.root, []
    for number in chosen.tolist():
        same_id = gallery.labels == query.labels[number]
        junk = same_id & (gallery.cameras == query.cameras[number]) & exclude
        kept = np.flatnonzero(~junk)
        order, similarity = rank_gallery(query.vectors[number : number + 1], gallery.vectors[kept], SHEET_RANKS)
        ranked = kept[order[0]]
        rows.append(
            RankedRow(
                query=root / str(query.paths[number]),
                gallery=[root / str(gallery.paths[row]) for row in ranked],
                is_match=same_id[ranked].tolist(),
                scores=similarity[0].tolist(),
                title=f"AP {100 * result.ap[number]:.0f} %",
            )
        )
    ranked_sheet(path, rows, f"{judge.manifest.name}: mAP {100 * result.mean_ap:.1f} %")
