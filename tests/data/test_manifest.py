from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reid_cckd.data.manifest import UNLABELLED, Counts, Manifest
from reid_cckd.data.sources import Numbered


def make(labels: list[int], roles: list[str]) -> Manifest:
    n = len(labels)
    cameras = np.arange(n) % 2
    return Manifest(
        "toy", Path("root"), tuple(f"{i}.jpg" for i in range(n)), np.array(labels), cameras, np.array(roles)
    )


def test_select_keeps_order_and_joins_roles() -> None:
    manifest = make([5, 5, 9, 7], ["gallery", "train", "query", "gallery"])
    test = manifest.select("query", "gallery")
    assert test.paths == ("0.jpg", "2.jpg", "3.jpg")
    assert test.labels.tolist() == [5, 9, 7]
    assert len(manifest.select("query").select("train")) == 0


def test_contiguous_labels_can_be_undone() -> None:
    labels, classes = make([2**24 + 1, 3, 2**24, 3], ["train"] * 4).contiguous_labels()
    assert labels.dtype == classes.dtype == np.int64
    assert labels.tolist() == [2, 0, 1, 0]
    assert classes[labels].tolist() == [2**24 + 1, 3, 2**24, 3]


@pytest.mark.parametrize("bad", [0.5, float("nan"), float("inf")])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_labels_that_would_change_as_whole_numbers_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=rf"labels\[1\] is {bad}"):
        Manifest("toy", Path(), ("a", "b"), np.array([1.0, bad]), np.zeros(2), np.array(["train"] * 2))


def test_counts_name_every_role() -> None:
    manifest = make([1, 1, 2], ["train", "train", "query"])
    assert manifest.counts() == {"train": Counts(2, 1, 2), "query": Counts(1, 1, 1), "gallery": Counts(0, 0, 0)}


def test_nothing_can_be_changed() -> None:
    labels = np.array([1, 2])
    manifest = Manifest("toy", Path(), ("a", "b"), labels, labels, np.array(["train", "train"]))
    with pytest.raises(ValueError, match="read-only"):
        manifest.labels[0] = 3
    labels[0] = 9  # the caller's own array is neither frozen nor shared
    assert manifest.labels.tolist() == [1, 2]
    with pytest.raises(AttributeError):
        manifest.name = "other"  # type: ignore[misc]


def test_take_accepts_a_mask_or_indices() -> None:
    manifest = make([4, 5, 6], ["train"] * 3)
    assert manifest.take(np.array([2, 0])).labels.tolist() == [6, 4]
    assert manifest.take(np.array([True, False, True])).labels.tolist() == [4, 6]


def test_path_joins_the_root() -> None:
    assert make([1], ["train"]).path(0) == Path("root/0.jpg")


def test_columns_of_another_length_and_unknown_roles_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cameras has shape \(1,\), expected \(2,\)"):
        Manifest("toy", Path(), ("a", "b"), np.array([1, 2]), np.array([1]), np.array(["train", "train"]))
    with pytest.raises(ValueError, match="probe"):
        make([1], ["probe"])
    with pytest.raises(ValueError, match="probe"):
        make([1], ["train"]).select("probe")


def test_unlabelled_images_are_no_class() -> None:
    manifest = make([4, UNLABELLED, 9, UNLABELLED], ["train"] * 4)
    labels, classes = manifest.contiguous_labels()
    assert (labels.tolist(), classes.tolist()) == ([0, -1, 1, -1], [4, 9])
    assert manifest.counts()["train"] == Counts(4, 2, 2)


def test_roles_of_classification_are_counted_where_they_occur() -> None:
    manifest = make([1, 1, 2], ["train", "test", "val"])
    assert list(manifest.counts()) == ["train", "val", "test", "query", "gallery"]
    assert manifest.select("test").paths == ("1.jpg",)


def test_superclasses_travel_with_their_rows() -> None:
    labels, roles = np.array([1, 2, 3]), np.array(["train"] * 3)
    manifest = Manifest("toy", Path(), ("a", "b", "c"), labels, labels, roles, superclasses=np.array([7, 8, 9]))
    taken = manifest.take(np.array([2, 0])).superclasses
    assert taken is not None
    assert taken.tolist() == [9, 7]
    assert make([1], ["train"]).superclasses is None
    with pytest.raises(ValueError, match="superclasses has shape"):
        Manifest("toy", Path(), ("a",), np.array([1]), np.array([0]), np.array(["train"]), superclasses=labels)


def test_numbered_paths_are_paths() -> None:
    paths = Numbered("train.rec", np.array([5, 7, 2**40]))
    assert list(paths) == ["train.rec:5", "train.rec:7", f"train.rec:{2**40}"] == [paths[row] for row in range(3)]
    assert list(paths[1:]) == list(paths.take(np.array([1, 2])))
    assert np.asarray(paths).tolist() == list(paths)
    manifest = Manifest("toy", Path("root"), paths, np.arange(3), np.arange(3), np.array(["train"] * 3))
    assert manifest.take(np.array([1])).path(0) == Path("root/train.rec:7")
