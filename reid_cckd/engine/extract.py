"""Embeddings of a whole data set, and the file that keeps them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reid_cckd.batch import Batch, Output
from reid_cckd.errors import DataError
from reid_cckd.files import atomic_path


@dataclass(frozen=True)
class Embeddings:
    """N images in an embedding space.

    ``vectors``: (N, D) float32, not normalised. ``labels``, ``cameras``: (N,) int64. ``paths``: (N,) text, relative
    to the data set's root. ``source``: the SHA-256 of the checkpoint they come from.
    """

    vectors: NDArray[np.float32]
    labels: NDArray[np.int64]
    cameras: NDArray[np.int64]
    paths: NDArray[np.str_]
    source: str = ""

    def save(self, path: str | Path) -> None:
        """Write an .npz file, atomically."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                vectors=self.vectors,
                labels=self.labels,
                cameras=self.cameras,
                paths=self.paths,
                source=np.asarray(self.source),
            )

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Read what `save` wrote; nothing in the file is executed.

        Raises:
            DataError: the file is missing, damaged, or its columns differ in length.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                columns = [file[name] for name in ("vectors", "labels", "cameras", "paths")]
                source = str(file["source"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            wanted = "an .npz file with vectors, labels, cameras, paths and source"
            raise DataError(f"Cannot read the embeddings {path}: {error}. Expected {wanted}.") from error
        lengths = {len(column) for column in columns}
        if len(lengths) > 1:
            raise DataError(f"{path}: vectors, labels, cameras and paths have different lengths {sorted(lengths)}.")
        vectors, labels, cameras, paths = columns
        return cls(vectors, labels, cameras, paths, source)


@torch.no_grad()
def extract(
    network: nn.Module,
    batches: Iterable[Batch],
    count: int,
    *,
    device: torch.device,
    precision: Callable[[], AbstractContextManager[object]],
    on: Literal["embedding", "neck"] = "neck",
    flip: bool = False,
) -> Tensor:
    """(count, D) float32 on the CPU, row i being the image whose index is i; the network's mode is kept.

    ``flip`` averages the L2-normalised embeddings of an image and its mirror.
    """
    was_training = network.training
    network.eval()
    vectors: Tensor | None = None
    try:
        for batch in batches:
            images = batch.images.to(device, non_blocking=True)
            with precision():
                rows = _embed(network, images, on, flip)
            if vectors is None:
                vectors = torch.empty(count, rows.shape[1])
            vectors[batch.index] = rows.cpu()
    finally:
        network.train(was_training)
    if vectors is None:
        raise DataError("There are no images to embed: the data set is empty.")
    return vectors


def _embed(network: nn.Module, images: Tensor, on: Literal["embedding", "neck"], flip: bool) -> Tensor:
    def once(view: Tensor) -> Tensor:
        output: Output = network(view)
        return (output.neck if on == "neck" else output.embedding).float()

    if not flip:
        return once(images)
    both = torch.nn.functional.normalize(torch.stack([once(images), once(images.flip(-1))]), dim=-1)
    return both.mean(dim=0)
