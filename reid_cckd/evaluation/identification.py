"""Identification among distractors: the MegaFace protocol in one pass over the distractors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_cckd.evaluation.distractors import Highest, MatePairs, Pass, tiles_of
from reid_cckd.evaluation.options import accepted, check_counts, check_rates
from reid_cckd.evaluation.products import workers
from reid_cckd.evaluation.ranking import Progress
from reid_cckd.evaluation.rows import (
    Embeddings,
    Ids,
    Rows,
    choose_device,
    codes_of,
    exact_float32,
    flags,
    row_numbers,
    same_length,
)

# Float32 products of unit rows differ by up to 1e-6 with the way they are summed, even those of the same two rows.
_TIE = np.float32(2**-19)


@dataclass(frozen=True)
class IdentificationResult:
    """``rate[scale][rank]`` and ``tpr[scale][fpr]`` are fractions; ``above[scale]`` has an entry per ordered pair."""

    rate: dict[int, dict[int, float]]
    tpr: dict[int, dict[float, float]]
    above: dict[int, NDArray[np.int64]]  # distractors that score above the mate, counted up to the highest rank
    num_probes: int
    num_pairs: int
    num_ignored: dict[int, int]  # distractors of each scale that were ignored

    def summary(self) -> list[dict[str, Any]]:
        """One row per scale, ready for a table or JSON."""
        return [
            {
                "distractors": scale,
                **{f"rank{rank}": value for rank, value in self.rate[scale].items()},
                **{f"tpr@{fpr:g}": value for fpr, value in self.tpr[scale].items()},
                "ignored": self.num_ignored[scale],
            }
            for scale in self.rate
        ]


def evaluate_identification(
    probes: Embeddings,
    probe_ids: Ids,
    distractors: Embeddings,
    scales: Sequence[int] = (10, 100, 1_000),
    ranks: Sequence[int] = (1, 10),
    fprs: Sequence[float] = (1e-6, 1e-5, 1e-4),
    *,
    ignored: NDArray[np.bool_] | Tensor | None = None,
    order: NDArray[np.int64] | Tensor | None = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> IdentificationResult:
    """Find each photo (P, D) of a person by each other photo of that person among the first N distractors (M, D).

    For every ordered pair of photos of one person, one is the probe and the other joins the N distractors. It is a hit
    at rank r when fewer than r distractors score above the mate; a tie is a hit, as in public evaluators. ``tpr`` is
    the share of pairs whose score exceeds every impostor score but the highest floor(fpr x P x N); impostors are all
    probes against the N distractors. Scores within 2e-6, which float32 does not tell apart, are a tie.

    ``ignored``: (M,) true for distractors known to be wrong; they count in N and never score above anything.
    ``order``: the rows of ``distractors`` that count, in the order in which they do; by default all, as they come.

    The distractors are read once, in order, for all scales, ranks and rates; 96 MiB of scores are held by up to four
    threads, and 8 bytes per impostor score above the highest of ``fprs``. ``progress(done, total)`` counts distractors.

    Raises:
        ValueError: no person with two photos, fewer distractors than a scale, different widths or lengths, a row that
            is zero or not finite (with its number), ranks or scales below 1, rates outside (0, 1).
        TypeError: a wrong type.

    Source: Kemelmacher-Shlizerman et al., The MegaFace Benchmark, CVPR 2016.
    """
    place = choose_device(device, distractors, probes)
    photos, others = Rows(probes, "probes", place), Rows(distractors, "distractors", place, measure=False)
    ignored = None if ignored is None else flags(ignored, "ignored")
    order = None if order is None else row_numbers(order, "order", len(others))
    _check(photos, others, probe_ids, scales, ranks, fprs, ignored, order)
    scales = sorted({int(scale) for scale in scales})
    with exact_float32(place), workers() as pool:
        pairs = _mates(photos, codes_of(probe_ids, "probe_ids"))
        highest = Highest(accepted(max(fprs, default=0), len(photos) * scales[-1]) + 1)
        run = Pass(photos, others, ignored, order, replace(pairs, scores=pairs.scores + _TIE), max(ranks), highest)
        above, tpr = {}, {}
        for stop in run.over(tiles_of(scales), pool):
            if progress is not None:
                progress(stop, scales[-1])
            if stop in scales:
                above[stop] = np.minimum(run.above, max(ranks))
                least = {fpr: highest.place(accepted(fpr, len(photos) * stop)) for fpr in fprs}
                tpr[stop] = {fpr: float(np.mean(pairs.scores > score + _TIE)) for fpr, score in least.items()}
    counted = np.arange(scales[-1]) if order is None else order
    skipped = np.zeros(len(counted)) if ignored is None else np.cumsum(ignored[counted])
    return IdentificationResult(
        rate={scale: {int(r): float(np.mean(above[scale] < r)) for r in ranks} for scale in scales},
        tpr=tpr,
        above=above,
        num_probes=len(photos),
        num_pairs=len(pairs.scores),
        num_ignored={scale: int(skipped[scale - 1]) for scale in scales},
    )


def _mates(photos: Rows, ids: NDArray[np.int64]) -> MatePairs:
    """Similarities of all ordered pairs of one person."""
    mates: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(ids)
    order = np.argsort(ids, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(ids[order])) + 1):
        rows, lengths = photos.gather(group), photos.lengths[torch.from_numpy(group).to(photos.device)]
        scores = ((rows / lengths[:, None]) @ rows.T / lengths).cpu().numpy()
        for row, probe in enumerate(group):
            mates[probe] = np.delete(scores[row], row)
    counts = np.array([len(values) for values in mates])
    if not counts.any():
        raise ValueError("probe_ids: no person has two photos, so there is no pair to find")
    bounds = np.concatenate([[0], np.cumsum(counts)])
    return MatePairs(np.concatenate(mates), bounds)


def _check(
    photos: Rows,
    others: Rows,
    probe_ids: Ids,
    scales: Sequence[int],
    ranks: Sequence[int],
    fprs: Sequence[float],
    ignored: NDArray[np.bool_] | None,
    order: NDArray[np.int64] | None,
) -> None:
    same_length(probes=photos, probe_ids=probe_ids)
    same_length(distractors=others, ignored=ignored)
    if photos.width != others.width:
        raise ValueError(f"probes has {photos.width} columns and distractors has {others.width}")
    if len(photos) == 0:
        raise ValueError("probes is empty")
    check_counts(scales, "scales")
    count = len(others) if order is None else len(order)
    if max(scales) > count:
        raise ValueError(f"scales: {max(scales)} distractors are wanted and there are {count}")
    check_counts(ranks, "ranks")
    check_rates(fprs, "fprs")
