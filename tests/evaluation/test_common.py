"""What every evaluator must do; a new one that is not listed here fails the first test."""

import subprocess
import sys

import numpy as np
import pytest

from reid_cckd import evaluation

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((24, 6)).astype(np.float32)
IDS = np.arange(24) % 4
SAME = np.arange(24) % 2 == 0

# name -> call with rows of embeddings in the place where bad ones are put
CALLS = {
    "evaluate_retrieval": lambda rows: evaluation.evaluate_retrieval(ROWS, rows, IDS, IDS),
    "evaluate_single_shot": lambda rows: evaluation.evaluate_single_shot(ROWS, rows, IDS, IDS),
    "evaluate_recall": lambda rows: evaluation.evaluate_recall(rows, IDS),
    "evaluate_distillation": lambda rows: evaluation.evaluate_distillation(ROWS, ROWS, ROWS, rows, IDS, IDS),
    "evaluate_identification": lambda rows: evaluation.evaluate_identification(ROWS, IDS, rows, scales=(24,)),
    "evaluate_verification": lambda rows: evaluation.evaluate_verification(ROWS, rows, SAME),
    "evaluate_classification": lambda rows: evaluation.evaluate_classification(rows, IDS),
    "evaluate_open_set": lambda rows: evaluation.evaluate_open_set(rows, ROWS[:4], IDS, IDS[:4]),
    "evaluate_pairs": lambda rows: evaluation.evaluate_pairs(rows, np.arange(24), (np.arange(24) + 1) % 24, SAME),
    "clean_probes": lambda rows: evaluation.clean_probes(rows, IDS, np.arange(24) > 9),
    "search_approximately": lambda rows: evaluation.search_approximately(ROWS, rows, 3, index="Flat"),
    "pool_templates": lambda rows: evaluation.pool_templates(rows, IDS, IDS),
    "rank_gallery": lambda rows: evaluation.rank_gallery(ROWS, rows, 3),
    "expand_queries": lambda rows: evaluation.expand_queries(ROWS, rows),
    "pool_queries": lambda rows: evaluation.pool_queries(rows, IDS, IDS),
}
RESULTS = [name for name in CALLS if name.startswith("evaluate_")]


RANKED = {
    "evaluate_retrieval": lambda **given: evaluation.evaluate_retrieval(ROWS, ROWS, IDS, IDS, **given),
    "evaluate_single_shot": lambda **given: evaluation.evaluate_single_shot(ROWS, ROWS, IDS, IDS, **given),
    "evaluate_distillation": lambda **given: evaluation.evaluate_distillation(*[ROWS] * 4, IDS, IDS, **given),
    "evaluate_recall": lambda **given: evaluation.evaluate_recall(ROWS, IDS, **given),
    "evaluate_open_set": lambda **given: evaluation.evaluate_open_set(ROWS, ROWS[:4], IDS, IDS[:4], **given),
    "evaluate_identification": lambda **given: evaluation.evaluate_identification(ROWS, IDS, ROWS, (24,), **given),
}


def bad_row(value):
    rows = ROWS.copy()
    rows[13] = value
    return rows


def test_none_is_left_out():
    predictions = {"predict_retrieval", "predict_identification", "predict_pairs", "product_rate", "pair_rate"}
    without_embeddings = {
        "bootstrap_interval",
        "compare",
        "compare_seeds",
        *predictions,
        "evaluate_sharded",
        "expand_sharded",
    }
    functions = {name for name in evaluation.__all__ if name.islower()}
    assert functions == set(CALLS) | without_embeddings


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_named(name, value):
    with pytest.raises(ValueError, match="row 13 is not finite"):
        CALLS[name](bad_row(value))


@pytest.mark.parametrize("name", [name for name in CALLS if name != "evaluate_classification"])
def test_a_row_without_direction_is_named(name):
    with pytest.raises(ValueError, match="row 13 is a zero vector"):
        CALLS[name](bad_row(0))


@pytest.mark.parametrize("name", CALLS)
def test_rows_without_columns_or_of_whole_numbers_are_refused(name):
    with pytest.raises(ValueError, match="at least one column"):
        CALLS[name](ROWS[:, :0])
    with pytest.raises(TypeError, match="floating point"):
        CALLS[name](ROWS.astype(int))


@pytest.mark.parametrize("name", CALLS)
def test_inputs_are_left_as_they_were(name):
    rows = ROWS.copy()
    rows.flags.writeable = False
    CALLS[name](rows)


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_frozen_and_repeatable(name):
    first, second = CALLS[name](ROWS), CALLS[name](ROWS)
    assert str(first) == str(second)
    with pytest.raises(AttributeError):
        first.anything = 1


@pytest.mark.parametrize("name", RANKED)
@pytest.mark.parametrize("ranks", [(), (0, 1), (1, 2.5)])
def test_ranks_are_whole_numbers_from_1_up(name, ranks):
    with pytest.raises(ValueError, match="ranks must be whole numbers from 1 up"):
        RANKED[name](ranks=ranks)


@pytest.mark.parametrize("name", [name for name in RANKED if name != "evaluate_identification"])
def test_a_chunk_is_at_least_one_row(name):
    with pytest.raises(ValueError, match="chunk must be at least 1, is -1"):
        RANKED[name](chunk=-1)


@pytest.mark.parametrize("name", ["evaluate_retrieval", "evaluate_single_shot", "evaluate_distillation"])
def test_an_unknown_rule_for_cameras_is_refused(name):
    with pytest.raises(ValueError, match="cameras must be one of"):
        RANKED[name](query_cameras=IDS, gallery_cameras=IDS, cameras="drop")


@pytest.mark.parametrize("scales", [(), (0, 24), (1.5, 24)])
def test_scales_are_whole_numbers_from_1_up(scales):
    with pytest.raises(ValueError, match="scales must be whole numbers from 1 up"):
        evaluation.evaluate_identification(ROWS, IDS, ROWS, scales)


def test_needs_numpy_and_torch_only():
    blocked = ["timm", "pytorch_metric_learning", "albumentations", "matplotlib", "sklearn", "faiss", "scipy", "PIL"]
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked}))\nimport reid_cckd.evaluation"
    subprocess.run([sys.executable, "-c", code], check=True)
