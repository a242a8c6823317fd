"""Retrieval: the images of query look for their like in gallery."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from reid_cckd import config as configuration
from reid_cckd.assess.extraction import Extraction
from reid_cckd.assess.verdict import Verdict
from reid_cckd.data import Manifest, refuse_unlabelled
from reid_cckd.engine import Embeddings, world_size
from reid_cckd.errors import DataError
from reid_cckd.evaluation import (
    Reranking,
    RetrievalResult,
    evaluate_retrieval,
    evaluate_sharded,
    expand_queries,
    expand_sharded,
)


@dataclass(frozen=True)
class Refinement:
    """What is done to a ranking beyond comparing embeddings: k-reciprocal re-ranking, alpha query expansion (k, alpha).

    Expansion replaces queries and gallery before anything is ranked.
    """

    reranking: Reranking | None = None
    expansion: tuple[int, float] | None = None


PLAIN = Refinement()


@dataclass
class RetrievalJudge(Extraction):
    """Query and gallery of one data set under one protocol."""

    main: ClassVar[str] = "mean_ap"

    def check(self) -> None:
        """Raises DataError without query or gallery, with unlabelled queries, or where none has a match."""
        query, gallery = self.part("query"), self.part("gallery")
        refuse_unlabelled(query.labels, f"queries of {self.manifest.name}")
        if self.settings.cameras == "exclude-same":
            seen = set(zip(gallery.labels.tolist(), gallery.cameras.tolist(), strict=True))
            cameras = Counter(label for label, _ in seen)
            pairs = zip(query.labels.tolist(), query.cameras.tolist(), strict=True)
            found = any(cameras[label] > ((label, camera) in seen) for label, camera in pairs)
            advice = " in another camera. If the set knows no cameras, set evaluation.cameras: ignore."
        else:
            found, advice = bool(np.isin(query.labels, gallery.labels).any()), "."
        if not found:
            name = f"{self.manifest.name} at {self.manifest.root}"
            raise DataError(f"{name}: none of {len(query):,} queries has a true match in the gallery{advice}")

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """Fractions by name, for the training log."""
        return scores(self.evaluate(*self.embed(network)))

    def verdict(self, network: nn.Module) -> Verdict:
        """Scores and protocol."""
        result = self.evaluate(*self.embed(network))
        return Verdict(scores(result), protocol(self.settings, result))

    def embed(self, network: nn.Module, source: str = "") -> tuple[Embeddings, Embeddings]:
        """Embeddings of query and gallery."""
        return self.embed_role(network, "query", source), self.embed_role(network, "gallery", source)

    def evaluate(self, query: Embeddings, gallery: Embeddings) -> RetrievalResult:
        """mAP, CMC and mINP of the configured protocol."""
        return evaluate_embeddings(query, gallery, self.settings, device=self.device)

    def index(self, part: Manifest, source: str) -> Embeddings:
        """The rows of embeddings to be, and what these will depend on; the vectors are still empty."""
        text = json.dumps([list(part.paths), part.labels.tolist(), part.cameras.tolist(), part.roles.tolist()])
        about = {
            "source": source,
            "data": part.name,
            "images": hashlib.sha256(text.encode()).hexdigest(),
            "image_size": list(self.data.image_size),
            "on": self.settings.on,
            "flip": self.settings.flip,
        }
        empty = np.empty((len(part), 0), dtype=np.float32)
        paths = np.array(part.paths, dtype=np.str_)
        return Embeddings(empty, part.labels, part.cameras, paths, part.roles, about, part.class_names)

    def embed_role(self, network: nn.Module, role: str, source: str = "") -> Embeddings:
        """Embeddings of one role.

        Raises:
            DataError: there are no such images.
        """
        dataset = self.images(role)
        vectors = self.rows(network, dataset)
        return replace(self.index(dataset.manifest, source), vectors=vectors.numpy())


def evaluate_embeddings(
    query: Embeddings,
    gallery: Embeddings,
    settings: configuration.Evaluation,
    refinement: Refinement = PLAIN,
    device: torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RetrievalResult:
    """The exact metrics of saved or fresh embeddings, by all processes of a distributed run together."""
    alone = world_size() == 1
    evaluator: Callable[..., RetrievalResult] = evaluate_retrieval if alone else evaluate_sharded
    rows: tuple[Any, Any] = (query.vectors, gallery.vectors)
    if refinement.expansion is not None:
        k, alpha = refinement.expansion
        expand = partial(expand_queries if alone else expand_sharded, gallery=rows[1], k=k, alpha=alpha, device=device)
        rows = (expand(rows[0]), expand(rows[1]))
    return evaluator(
        *rows,
        query.labels,
        gallery.labels,
        query.cameras,
        gallery.cameras,
        ranks=settings.ranks,
        convention=settings.convention,
        cameras=settings.cameras,
        reranking=refinement.reranking,
        device=device,
        progress=progress,
    )


def scores(result: RetrievalResult) -> dict[str, float]:
    """The numbers of a result by the names used in logs and tables."""
    cmc = {f"rank{rank}": value for rank, value in result.cmc.items()}
    return {"mean_ap": result.mean_ap, "mean_inp": result.mean_inp, **cmc}


def protocol(
    settings: configuration.Evaluation, result: RetrievalResult, refinement: Refinement = PLAIN
) -> dict[str, Any]:
    """What must be known to compare a result with another."""
    return {
        "convention": settings.convention,
        "cameras": settings.cameras,
        "flip": settings.flip,
        "embedding": settings.on,
        "re_ranking": "none" if result.reranking is None else asdict(result.reranking),
        "query_expansion": "none" if refinement.expansion is None else list(refinement.expansion),
        "valid_queries": result.num_valid_queries,
        "queries": result.num_queries,
        "gallery": result.num_gallery,
    }
