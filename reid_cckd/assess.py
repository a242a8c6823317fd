"""How good a network is on a data set: extraction, exact evaluation, and the report that says how it was done."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from reid_cckd import config as configuration
from reid_cckd.build import image_dataset, plain_loader
from reid_cckd.data import ImageDataset, Manifest
from reid_cckd.engine import Embeddings, extract
from reid_cckd.errors import DataError
from reid_cckd.evaluation import RetrievalResult, evaluate_retrieval


@dataclass
class Judge:
    """Query and gallery of one data set under one protocol; images are decoded once if ``cache`` says so."""

    manifest: Manifest
    settings: configuration.Evaluation
    data: configuration.Data
    device: torch.device
    precision: Callable[[], AbstractContextManager[object]]
    _datasets: dict[str, ImageDataset] = field(default_factory=dict, repr=False)

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """Fractions by name, for the training log."""
        return scores(self.evaluate(*self.embed(network)))

    def embed(self, network: nn.Module, source: str = "") -> tuple[Embeddings, Embeddings]:
        """Embeddings of query and gallery."""
        return self._embed_role(network, "query", source), self._embed_role(network, "gallery", source)

    def evaluate(self, query: Embeddings, gallery: Embeddings) -> RetrievalResult:
        """mAP, CMC and mINP of the configured protocol."""
        return evaluate_embeddings(query, gallery, self.settings)

    def _embed_role(self, network: nn.Module, role: str, source: str) -> Embeddings:
        dataset = self._dataset(role)
        batches = plain_loader(dataset, self.settings.batch_size, self.data.workers)
        options: dict[str, Any] = {"on": self.settings.on, "flip": self.settings.flip}
        vectors = extract(network, batches, len(dataset), device=self.device, precision=self.precision, **options)
        part = dataset.manifest
        return Embeddings(vectors.numpy(), part.labels, part.cameras, np.asarray(part.paths), source)

    def _dataset(self, role: str) -> ImageDataset:
        if role not in self._datasets:
            part = self.manifest.select(role)
            if not len(part):
                raise DataError(f"{self.manifest.name} at {self.manifest.root} has no {role} images to evaluate on.")
            self._datasets[role] = image_dataset(part, part.labels, self.data)
        return self._datasets[role]


def evaluate_embeddings(query: Embeddings, gallery: Embeddings, settings: configuration.Evaluation) -> RetrievalResult:
    """The exact metrics of saved or fresh embeddings."""
    return evaluate_retrieval(
        query.vectors,
        gallery.vectors,
        query.labels,
        gallery.labels,
        query.cameras,
        gallery.cameras,
        ranks=settings.ranks,
        convention=settings.convention,
        cameras=settings.cameras,
    )


def scores(result: RetrievalResult) -> dict[str, float]:
    """The numbers of a result by the names used in logs and tables."""
    cmc = {f"rank{rank}": value for rank, value in result.cmc.items()}
    return {"mean_ap": result.mean_ap, "mean_inp": result.mean_inp, **cmc}


def protocol(settings: configuration.Evaluation, result: RetrievalResult) -> dict[str, Any]:
    """What must be known to compare a result with another."""
    return {
        "convention": settings.convention,
        "cameras": settings.cameras,
        "flip": settings.flip,
        "embedding": settings.on,
        "re_ranking": "none",
        "valid_queries": result.num_valid_queries,
        "queries": result.num_queries,
        "gallery": result.num_gallery,
    }
