"""The folder of embeddings: round trip, refusals, and an extraction that is killed and goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reid_cckd.batch import Batch
from reid_cckd.engine import Embeddings, extract_to
from reid_cckd.errors import DataError

ABOUT = {"source": "hash", "flip": True}


def some(count: int = 6, width: int = 3, **changes: Any) -> Embeddings:
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "vectors": rng.standard_normal((count, width)).astype(np.float32),
        "labels": np.arange(count) // 2,
        "cameras": np.arange(count) % 2,
        "paths": np.array([f"a/é{i}.jpg" for i in range(count)]),
        "roles": np.array(["query"] * 2 + ["gallery"] * (count - 2)),
        "about": ABOUT,
    }
    return Embeddings(**{**columns, **changes})


@pytest.mark.parametrize("labels", [np.arange(6), np.array(list("abcdef"))])
def test_round_trip(tmp_path: Path, labels: Any) -> None:
    rows = some(labels=labels)
    rows.save(tmp_path / "deep" / "set")
    again = Embeddings.load(tmp_path / "deep" / "set")
    for name in ("vectors", "labels", "cameras", "paths", "roles"):
        np.testing.assert_array_equal(getattr(again, name), getattr(rows, name))
        assert getattr(again, name).dtype.kind == getattr(rows, name).dtype.kind
    assert (dict(again.about), again.source, len(again)) == (ABOUT, "hash", 6)
    with pytest.raises(DataError, match="exists already"):
        rows.save(tmp_path / "deep" / "set")


def test_names_of_labels_are_kept_with_any_rows(tmp_path: Path) -> None:
    some().save(tmp_path / "nameless")
    assert not Embeddings.load(tmp_path / "nameless").class_names
    some(class_names={0: "anna", 1: "bob"}).save(tmp_path / "set")
    assert Embeddings.load(tmp_path / "set").select("gallery").class_names == {0: "anna", 1: "bob"}
    for damaged in ("[1]", "{", '{"anna": 0}'):
        (tmp_path / "set" / "names.json").write_text(damaged)
        with pytest.raises(DataError, match="Cannot read the embeddings"):
            Embeddings.load(tmp_path / "set")


def test_a_role_stays_on_disk_and_a_missing_one_is_named(tmp_path: Path) -> None:
    some().save(tmp_path / "set")
    rows = Embeddings.load(tmp_path / "set")
    assert isinstance(rows.select("gallery").vectors, np.memmap)
    assert rows.select("query").paths.tolist() == ["a/é0.jpg", "a/é1.jpg"]
    assert rows.take(np.array([4, 1])).paths.tolist() == ["a/é4.jpg", "a/é1.jpg"]
    with pytest.raises(DataError, match="no train rows; they hold 2 query, 4 gallery"):
        rows.select("train")
    assert rows.select("query").joined(rows.select("gallery")).paths.tolist() == rows.paths.tolist()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set.*Expected a folder"):
        Embeddings.load(tmp_path / "set")
    some().save(tmp_path / "set")
    whole = (tmp_path / "set" / "vectors.npy").read_bytes()
    (tmp_path / "set" / "vectors.npy").write_bytes(whole[:-8])
    with pytest.raises(DataError, match="Cannot read the embeddings"):
        Embeddings.load(tmp_path / "set")
    some(labels=np.arange(5)).save(tmp_path / "short")
    with pytest.raises(DataError, match="different lengths"):
        Embeddings.load(tmp_path / "short")
    np.save(tmp_path / "short" / "vectors.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="Cannot read"):
        Embeddings.load(tmp_path / "short")


def test_an_image_named_twice_is_refused_in_one_role_only(tmp_path: Path) -> None:
    paths = np.array(["x.jpg", "y.jpg", "x.jpg", "z.jpg", "u.jpg", "v.jpg"])
    some(paths=paths).save(tmp_path / "across")  # a query that lies in the gallery too, as some data sets have it
    assert len(Embeddings.load(tmp_path / "across")) == 6
    paths[5] = "z.jpg"
    some(paths=paths).save(tmp_path / "within")
    with pytest.raises(DataError, match=r"the gallery image z\.jpg twice"):
        Embeddings.load(tmp_path / "within")


class Killed(BaseException):
    """Stands for SIGKILL: nothing that would tidy up is run for it."""


def work(rows: Embeddings, calls: list[int], stop: int | None = None) -> dict[str, Any]:
    """Batches of two images, and a network that knows their vectors; killed at row ``stop``."""

    def batches(start: int) -> Iterator[Batch]:
        calls.append(start)
        for first in range(start, len(rows), 2):
            if first == stop:
                raise Killed
            index = torch.arange(first, min(first + 2, len(rows)))
            yield Batch(torch.zeros(len(index), 3, 1, 1, dtype=torch.uint8), index, index)

    def embed(batch: Batch) -> Tensor:
        return torch.from_numpy(rows.vectors)[batch.index]

    return {"embed": embed, "batches": batches}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_killed_extraction_goes_on_at_its_batch(tmp_path: Path, dtype: Any) -> None:
    rows, calls, seen = some(7), list[int](), list[tuple[int, int]]()
    index = replace(rows, vectors=np.empty((7, 0), np.float32))
    folder = tmp_path / "set"
    with pytest.raises(Killed):
        extract_to(folder, index=index, dtype=dtype, **work(rows, calls, stop=4))
    assert not folder.exists()
    with pytest.raises(DataError, match="unfinished"):
        Embeddings.load(folder)
    with pytest.raises(DataError, match=r"source: 'hash' there, 'other' now"):
        extract_to(folder, index=replace(index, about={**ABOUT, "source": "other"}), **work(rows, calls))
    extract_to(folder, index=index, dtype=dtype, progress=lambda *at: seen.append(at), **work(rows, calls))
    assert (calls, seen) == ([0, 4], [(6, 7), (7, 7)])
    found = Embeddings.load(folder)
    np.testing.assert_array_equal(found.vectors, rows.vectors.astype(dtype))
    assert {entry.name for entry in folder.iterdir()} == {"vectors.npy", "index.npz", "about.json"}
    again = extract_to(folder, index=index, dtype=dtype, **work(rows, calls))
    assert calls == [0, 4]
    np.testing.assert_array_equal(again.vectors, found.vectors)
    with pytest.raises(DataError, match="flip: True there, False now"):
        extract_to(folder, index=replace(index, about={**ABOUT, "flip": False}), **work(rows, calls))


def test_killed_between_the_last_batch_and_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, calls = some(), list[int]()

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Embeddings, "finish", killed)
        with pytest.raises(Killed):
            extract_to(tmp_path / "set", index=rows, **work(rows, calls))
    found = extract_to(tmp_path / "set", index=rows, **work(rows, calls))
    assert calls == [0]
    np.testing.assert_array_equal(found.vectors, rows.vectors)


def test_embeddings_that_are_not_finite_and_empty_sets_are_refused(tmp_path: Path) -> None:
    rows = some()
    rows.vectors[3] = np.nan
    with pytest.raises(DataError, match=r"a/é3\.jpg is not finite"):
        extract_to(tmp_path / "set", index=rows, **work(rows, []))
    large = some(vectors=np.full((6, 3), 1e6, np.float32))
    with pytest.raises(DataError, match="not finite"):
        extract_to(tmp_path / "half", index=large, dtype="float16", **work(large, []))
    with pytest.raises(DataError, match="no images"):
        extract_to(tmp_path / "none", index=some(0, roles=np.array([], np.str_)), **work(some(), []))
