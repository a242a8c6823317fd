"""Embeddings of a whole data set: in memory, or to a folder that can be resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reid_cckd.batch import Answer, Batch, Output
from reid_cckd.engine.embeddings import Embeddings, create_vectors, part_of
from reid_cckd.engine.mode import evaluating
from reid_cckd.errors import DataError
from reid_cckd.files import write_json

Precision = Callable[[], AbstractContextManager[object]]


@torch.no_grad()
def extract(
    network: nn.Module,
    batches: Iterable[Batch],
    count: int,
    *,
    device: torch.device,
    precision: Precision,
    on: Answer = "neck",
    flip: bool = False,
) -> Tensor:
    """(count, D) float32 on the CPU, row i being the image whose index is i; the network's mode is kept.

    ``flip`` adds the embeddings of an image and its mirror as they come, neither normalised before, as evaluators of
    faces do: a view that the network is sure of, or an image, counts by its length.
    """
    vectors: Tensor | None = None
    with evaluating(network):
        for batch in batches:
            rows = embed_batch(network, batch, device=device, precision=precision, on=on, flip=flip)
            if vectors is None:
                vectors = torch.empty(count, rows.shape[1])
            vectors[batch.index] = rows
    if vectors is None:
        raise DataError("There are no images to embed: the data set is empty.")
    return vectors


@torch.no_grad()
def embed_batch(
    network: nn.Module, batch: Batch, *, device: torch.device, precision: Precision, on: Answer, flip: bool
) -> Tensor:
    """(N, D) float32 on the CPU of a network in eval mode."""
    images = batch.images.to(device, non_blocking=True)
    with precision():
        return _embed(network, images, on, flip).cpu()


def extract_to(
    folder: Path,
    embed: Callable[[Batch], Tensor],
    batches: Callable[[int], Iterable[Batch]],
    index: Embeddings,
    *,
    dtype: Literal["float32", "float16"] = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> Embeddings:
    """Embed the images of ``index`` (its own vectors are not looked at) into a folder, resuming after the last batch.

    ``batches(start)`` are the batches of rows ``start`` and up, in order. The folder appears when it is complete;
    until then its work lies in FOLDER.part. A complete folder with the same ``index.about`` is returned as it is.

    Raises:
        DataError: the folder or its unfinished part was made with other settings, another network or other images; an
            embedding is not finite; there are no images.
    """
    if not len(index.paths):
        raise DataError("There are no images to embed: the data set is empty.")
    if folder.exists():
        found = Embeddings.load(folder)
        _refuse_other(folder, found.about, index.about)
        return found
    part, total = part_of(folder), len(index.paths)
    done, vectors = _resume(part, index.about)
    for batch in batches(done) if done < total else ():
        with np.errstate(over="ignore"):  # what float16 cannot hold is refused below
            rows = embed(batch).numpy().astype(dtype, copy=False)
        _check_rows(rows, index.paths[done:])
        if vectors is None:
            vectors = create_vectors(part, dtype, (total, rows.shape[1]))
        vectors[done : done + len(rows)] = rows
        vectors.flush()
        done += len(rows)
        write_json(part / "progress.json", {"done": done, "about": dict(index.about)})
        if progress is not None:
            progress(done, total)
    assert vectors is not None
    assert done == total
    replace(index, vectors=vectors).finish(folder)
    (folder / "progress.json").unlink()
    return Embeddings.load(folder)


def _resume(part: Path, about: Mapping[str, Any]) -> tuple[int, np.memmap[Any, Any] | None]:
    """Rows that are done, and the map they lie in."""
    if not (part / "progress.json").exists():
        return 0, None
    state = json.loads((part / "progress.json").read_text(encoding="utf-8"))
    _refuse_other(part, state["about"], about)
    return int(state["done"]), np.lib.format.open_memmap(part / "vectors.npy", mode="r+")


def _refuse_other(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    changed = [key for key in sorted({*found, *wanted}) if found.get(key) != wanted.get(key)]
    if changed:
        lines = "".join(f"\n  {key}: {found.get(key)!r} there, {wanted.get(key)!r} now" for key in changed)
        raise DataError(f"{folder} holds embeddings made otherwise; delete it or choose another folder:{lines}")


def _check_rows(rows: NDArray[Any], paths: NDArray[np.str_]) -> None:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise DataError(f"The embedding of {paths[bad[0]]} is not finite; the network's weights or precision are off.")


def _embed(network: nn.Module, images: Tensor, on: Answer, flip: bool) -> Tensor:
    def once(view: Tensor) -> Tensor:
        output: Output = network(view)
        rows: Tensor | None = getattr(output, on)
        if rows is None:
            raise DataError(f"The network has no {on} to look at: it was made without a class head.")
        return rows.float()

    return once(images) + once(images.flip(-1)) if flip else once(images)
