"""Similarity pictures: the pairs they are made of, and that what is drawn follows the embeddings."""

import numpy as np
import pytest
from PIL import Image

from reid_cckd.report import Point, retention_plot, similarity_histograms, similarity_maps
from reid_cckd.report.congruence import pair_similarities

LABELS = np.repeat(np.arange(4), 5)


def embeddings(spread, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(4, 8))[LABELS] + spread * rng.normal(size=(20, 8))


def test_pairs_are_told_apart_by_class():
    within, between = pair_similarities(embeddings(1.0), LABELS)
    rows = embeddings(1.0)
    expected = {True: [], False: []}
    for i in range(20):
        for j in range(i + 1, 20):
            cosine = rows[i] @ rows[j] / np.linalg.norm(rows[i]) / np.linalg.norm(rows[j])
            expected[bool(LABELS[i] == LABELS[j])].append(cosine)
    np.testing.assert_allclose(within, expected[True])
    np.testing.assert_allclose(between, expected[False])


@pytest.mark.parametrize("draw", [similarity_maps, similarity_histograms])
def test_pictures_follow_the_embeddings(tmp_path, draw):
    options = {"classes": 3, "images": 4} if draw is similarity_maps else {}
    pixels = []
    for number, spread in enumerate((0.1, 3.0)):
        path = tmp_path / f"{number}.png"
        draw(path, {"teacher": embeddings(0.1), "student": embeddings(spread)}, LABELS, "title", **options)
        pixels.append(np.asarray(Image.open(path).convert("RGB").resize((400, 200))))
    assert (pixels[0] != pixels[1]).any()


def test_embeddings_of_other_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"20 images like labels, got {'student': 19}"):
        similarity_maps(tmp_path / "a.png", {"student": embeddings(1.0)[1:]}, LABELS)
    assert not list(tmp_path.iterdir())


def test_retention_is_drawn(tmp_path):
    teacher = Point("teacher", 10_000_000, 500_000_000, 0.8)
    retention_plot(tmp_path / "a.png", teacher, [Point("student", 1_000_000, 50_000_000, 0.6)], "kept")
    assert Image.open(tmp_path / "a.png").size > (500, 300)
