"""Every format has a small twin, which its reader and the check accept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reid_cckd.data.check import check_manifest
from reid_cckd.data.ijb import read_ijb
from reid_cckd.data.layouts import LAYOUTS
from reid_cckd.data.megaface import read_noises, read_template_list
from reid_cckd.data.pairs import read_pairs
from reid_cckd.data.synthetic.twins import TWINS, Numbers, write_twin
from reid_cckd.errors import DataError

SMALL = Numbers(ids=4, images_per_id=5, size=(16, 16))
WITHOUT = {"msmt17", "synthetic", "packed", "image_list"}  # pedestrians; made of others by `prepare`


def test_every_layout_has_a_twin() -> None:
    assert set(TWINS) == set(LAYOUTS) - WITHOUT


@pytest.mark.parametrize("name", sorted(TWINS))
def test_a_twin_is_sound_and_repeatable(name: str, tmp_path: Path) -> None:
    manifest = write_twin(name, tmp_path / "a", SMALL)
    report = check_manifest(manifest, workers=1)
    assert report.ok
    assert report.bad == report.disguised == report.hopeless_queries == ()
    other = write_twin(name, tmp_path / "b", SMALL)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) > 1
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    assert list(other.paths) == list(manifest.paths)


def test_a_twin_that_is_there_is_left_and_a_stranger_is_not_touched(tmp_path: Path) -> None:
    write_twin("identities", tmp_path / "a", SMALL)
    victim = next((tmp_path / "a").rglob("*.jpg"))
    victim.write_bytes(b"changed")
    write_twin("identities", tmp_path / "a", SMALL)
    assert victim.read_bytes() == b"changed"
    with pytest.raises(DataError, match="nothing is written over it"):
        write_twin("identities", tmp_path / "a", Numbers(ids=5, size=(16, 16)))
    with pytest.raises(ValueError, match="at least 4 ids"):
        Numbers(ids=2)


def test_classes_look_alike_within_and_differ_between(tmp_path: Path) -> None:
    """Or nothing could be learned from a twin: half of the images are told by the nearest mean of the others."""
    manifest = write_twin("identities", tmp_path, Numbers(ids=4, images_per_id=20, size=(32, 32)))
    images = np.stack([manifest.read(row).astype(float).mean(axis=(0, 1)) for row in range(len(manifest))])
    means = np.stack([images[manifest.labels == label][::2].mean(axis=0) for label in range(4)])
    held_out = np.concatenate([np.flatnonzero(manifest.labels == label)[1::2] for label in range(4)])
    distances = np.linalg.norm(images[held_out, None] - means, axis=2)
    assert (distances.argmin(axis=1) == manifest.labels[held_out]).mean() > 0.6


def test_the_pack_has_split_records_and_face_pairs_beside_it(tmp_path: Path) -> None:
    manifest = write_twin("recordio", tmp_path, SMALL)
    content = (tmp_path / "train.rec").read_bytes()
    assert content.count(b"\x0a\x23\xd7\xce") > len(manifest) + SMALL.ids + 1
    assert read_pairs(tmp_path / "lfw.bin").same.sum() == 20


def test_the_meta_files_of_megaface_and_ijb_agree_with_their_images(tmp_path: Path) -> None:
    mega = write_twin("megaface", tmp_path / "mega", SMALL)
    assert read_noises(mega.root / "facescrub_noises.txt") <= {
        path.split("/")[-1] for path in mega.select("query").paths
    }
    noisy = {f"megaface/{path}" for path in read_noises(mega.root / "megaface_noises.txt")}
    assert noisy < set(mega.select("gallery").paths)
    listed = read_template_list(mega.root / "templatelists" / "facescrub_features_list.json")
    assert [f"facescrub/{path}" for path in listed.paths] == list(mega.select("query").paths)
    ijb = write_twin("ijb", tmp_path / "ijb", SMALL)
    meta = read_ijb(ijb.root / "meta")
    assert 0 < meta.pairs[2].mean() < 1
    assert meta.probes is not None
    assert set(meta.probes.templates.tolist()) <= set(ijb.labels.tolist())
    assert not set(meta.galleries[0].people.tolist()) & set(meta.galleries[1].people.tolist())
