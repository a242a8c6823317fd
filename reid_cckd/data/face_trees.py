"""Images of face benchmarks: MegaFace's probes and distractors, and the crops of IJB's templates."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from reid_cckd.data.folders import Listing, Tree, describe, find_tree, images_below
from reid_cckd.data.ijb import read_ijb
from reid_cckd.data.lists import check_present
from reid_cckd.data.manifest import UNLABELLED, Manifest, concatenate
from reid_cckd.data.megaface import folder_of, read_lst
from reid_cckd.errors import DataError

PROBES, DISTRACTORS = "facescrub", "megaface"


def read_megaface_images(root: str | os.PathLike[str]) -> Manifest:
    """FaceScrub's people are of role "query", the distractors, whom nobody knows, of role "gallery" with label -1.

    ``root`` holds ``facescrub/NAME/*`` and ``megaface/A/B/*``, or folders of these names with ``_images``. With
    ``facescrub_lst`` and ``megaface_lst`` (a relative path a line) it is their images, in their order; without, all.
    A person is a folder of FaceScrub, numbered in order of name.

    Raises:
        DataError: a folder is missing or empty, or a listed image is not there.
    """
    trees = [Tree("MegaFace", (PROBES, DISTRACTORS)), Tree("MegaFace", (f"{PROBES}_images", f"{DISTRACTORS}_images"))]
    home, tree = find_tree(root, ("", "data"), trees, "MegaFace")
    files = Listing()
    probes, distractors = (
        _paths(home, folder, kind, files) for folder, kind in zip(tree.folders, (PROBES, DISTRACTORS), strict=True)
    )
    if loose := [path for path in probes if path.count("/") < 2]:
        raise DataError(f"{home / loose[0]} lies in no folder of a person. Sort FaceScrub into one folder a person.")
    people = {name: number for number, name in enumerate(sorted({folder_of(path) for path in probes}))}
    parts = [
        ("query", [(path, people[folder_of(path)], 0) for path in probes]),
        ("gallery", [(path, UNLABELLED, 0) for path in distractors]),
    ]
    names = {number: name.rpartition("/")[2] for name, number in people.items()}
    return replace(concatenate("MegaFace", home, parts), class_names=names)


def read_ijb_images(root: str | os.PathLike[str]) -> Manifest:
    """The faces of ``loose_crop/`` in the order of ``meta/ijb?_face_tid_mid.txt``, of role "test".

    A label is a template, a "camera" the medium (a still, or all frames of one video) that the face comes from: what
    pooling a template needs. Whom a template shows is in the lists of pairs, which ``reid-cckd verify`` reads.

    Raises:
        DataError: a file or an image is missing, or a meta file is damaged.
    """
    home, _ = find_tree(root, ("", "IJBC", "IJBB"), (Tree("IJB", ("loose_crop", "meta")),), "IJB-B or IJB-C")
    ijb = read_ijb(home / "meta")
    paths = [f"loose_crop/{name}" for name in ijb.faces.paths]
    check_present(home, paths, home / "meta" / f"{ijb.name}_face_tid_mid.txt", Listing())
    title, roles = {"ijbb": "IJB-B", "ijbc": "IJB-C"}[ijb.name], np.full(len(paths), "test")
    return Manifest(title, home, tuple(paths), ijb.faces.templates, ijb.faces.media, roles)


def _paths(home: Path, folder: str, kind: str, files: Listing) -> list[str]:
    listed = home / f"{kind}_lst"
    if listed.is_file():
        paths = [f"{folder}/{line.removeprefix(f'{folder}/')}" for line in read_lst(listed).paths]
        check_present(home, paths, listed, files)
        return paths
    if paths := images_below(home / folder, folder, files):
        return paths
    raise DataError(f"No image in {describe(home / folder)}. Unpack the archive again.")
