"""Approximate search says how much of the exact answer it found."""

import numpy as np
import pytest

from reid_cckd.evaluation import rank_gallery, search_approximately

pytest.importorskip("faiss")


def crowd(count=3000, width=16):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((count, width), dtype=np.float32)
    queries = rows[:50] + 0.3 * rng.standard_normal((50, width), dtype=np.float32)
    return queries, rows * rng.uniform(0.1, 10, (count, 1)).astype(np.float32)


@pytest.mark.parametrize("index", ["ivf", "hnsw", "Flat", "IVF16,Flat"])
def test_recall_is_what_a_comparison_with_the_exact_answer_gives(index):
    queries, rows = crowd()
    exact, scores = rank_gallery(queries, rows, 5)
    results = [search_approximately(queries, rows, 5, index=index, effort=effort) for effort in (1, 400)]
    for result in results:
        shares = [len(set(a) & set(b)) / 5 for a, b in zip(exact.tolist(), result.indices.tolist(), strict=True)]
        assert result.recall == pytest.approx(np.mean(shares))
        assert result.num_checked == 50
    assert results[1].recall > 0.99
    np.testing.assert_allclose(results[1].scores[:, 0], scores[:, 0], atol=1e-5)
    if index in ("ivf", "IVF16,Flat"):
        assert results[0].recall < 0.9  # one list of many; the number is measured, not assumed


@pytest.mark.parametrize("index", ["PCA16,IVF16,Flat", "PCA16,HNSW4", "IVF16,SQ8,RFlat"])
def test_effort_reaches_what_lies_inside_another_index(index):
    queries, rows = crowd()
    least, most = (search_approximately(queries, rows, 5, index=index, effort=effort).recall for effort in (1, 400))
    assert most > least + 0.05


def test_only_some_queries_are_checked():
    queries, rows = crowd()
    results = [search_approximately(queries, rows, 5, index="ivf", effort=4, check=10, seed=seed) for seed in (0, 0, 1)]
    assert results[0].num_checked == 10
    assert results[0].recall == results[1].recall


@pytest.mark.parametrize(
    ("options", "message"),
    [({"index": "IVFoo"}, "faiss knows no 'IVFoo'"), ({"k": 0}, "at least 1"), ({"k": 3001}, "at most 3000")],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        search_approximately(*crowd(), **options)
