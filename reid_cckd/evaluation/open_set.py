"""Search in a gallery of enrolled people by probes, some of whom are not in it (1:N of IJB-B and IJB-C)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reid_cckd.evaluation.options import check_chunk, check_counts, check_rates
from reid_cckd.evaluation.products import product_chunks
from reid_cckd.evaluation.rows import Embeddings, Ids, exact_float32, same_length, shared_codes, two_sets
from reid_cckd.evaluation.verification import threshold_at


@dataclass(frozen=True)
class OpenSetResult:
    """Fractions in [0, 1]; ``tpir`` is empty where every probe's person is enrolled."""

    cmc: dict[int, float]
    tpir: dict[float, float]
    num_mated: int  # probes whose person is in the gallery
    num_nonmated: int
    num_gallery: int
    ranks: NDArray[np.int64]  # of the mate of each probe from 1 up, 0 where there is none

    def summary(self) -> dict[str, Any]:
        """The numbers without the array, ready for JSON."""
        rates = {f"rank{k}": v for k, v in self.cmc.items()} | {f"tpir@{f:g}": v for f, v in self.tpir.items()}
        return {**rates, **{name: getattr(self, name) for name in ("num_mated", "num_nonmated", "num_gallery")}}


def evaluate_open_set(
    probes: Embeddings,
    gallery: Embeddings,
    probe_ids: Ids,
    gallery_ids: Ids,
    ranks: Sequence[int] = (1, 5, 10),
    fpirs: Sequence[float] = (0.01, 0.1),
    *,
    device: torch.device | str | None = None,
    chunk: int | None = None,
) -> OpenSetResult:
    """Search each probe (P, D) among one template a person (G, D).

    Closed set: ``cmc[k]``, the share of mated probes (their person is enrolled) whose mate is among the k most similar;
    equal similarities keep the gallery's order. Open set: ``tpir[f]``, the share of mated probes whose mate scores
    above the threshold at which a share f of the non-mated probes finds anybody, whatever the mate's rank: the
    highest floor(f x non-mated) of their best scores are accepted. (Public ArcFace evaluators take all impostor
    pairs of mated probes instead; their numbers are not comparable.)

    Raises:
        ValueError: a person enrolled twice, no mated probe, different lengths or widths, ranks or chunk below 1, rates
            outside (0, 1), a row that is zero or not finite. TypeError: embeddings or ids of a wrong type.

    Source: Grother and Ngan, FRVT, NIST IR 8009, 2014; Maze et al., IARPA Janus Benchmark-C, ICB 2018.
    """
    check_counts(ranks, "ranks")
    check_rates(fpirs, "fpirs")
    check_chunk(chunk)
    queries, items = two_sets(probes, gallery, device, ("probes", "gallery"))
    same_length(probes=queries, probe_ids=probe_ids)
    same_length(gallery=items, gallery_ids=gallery_ids)
    wanted, enrolled = shared_codes(probe_ids, gallery_ids, ("probe_ids", "gallery_ids"))
    if len(np.unique(enrolled)) < len(enrolled):
        raise ValueError("gallery_ids: a person is enrolled twice; pool the person's images to one template")
    order = np.argsort(enrolled)
    place = np.minimum(np.searchsorted(enrolled[order], wanted), len(enrolled) - 1)
    mates = np.where(enrolled[order][place] == wanted, order[place], -1)
    mated = mates >= 0
    if not mated.any():
        raise ValueError("no probe's person is in the gallery: probe_ids and gallery_ids share no id")
    places, scores = _search(queries, items, mates, chunk)
    return OpenSetResult(
        cmc={int(k): float(np.mean(places[mated] < k)) for k in ranks},
        tpir={f: float(np.mean(scores[mated] > threshold_at(scores[~mated], f))) for f in fpirs if not mated.all()},
        num_mated=int(mated.sum()),
        num_nonmated=int((~mated).sum()),
        num_gallery=len(items),
        ranks=np.where(mated, places + 1, 0),
    )


def _search(
    queries: Any, items: Any, mates: NDArray[np.int64], chunk: int | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """0-based place of each probe's mate, and its score; without mate -1 and the best score of all."""
    places, found = [], []
    with exact_float32(queries.device):
        for rows, products in product_chunks(queries, items, chunk):
            scores = products().div_(items.lengths)
            own = torch.from_numpy(mates[rows.start : rows.stop]).to(scores.device)
            mate = scores.gather(1, own.clamp(min=0)[:, None])
            earlier = torch.arange(len(items), device=scores.device) < own[:, None]
            ahead = ((scores > mate) | ((scores == mate) & earlier)).sum(dim=1)
            places.append(torch.where(own >= 0, ahead, -1).cpu().numpy())
            found.append(torch.where(own >= 0, mate[:, 0], scores.amax(dim=1)).cpu().numpy())
    return np.concatenate(places), np.concatenate(found)
