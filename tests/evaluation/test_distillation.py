"""The distillation report against its parts and against sets."""

import json

import numpy as np
import pytest

from reid_cckd.evaluation import evaluate_distillation, evaluate_retrieval, rank_gallery
from tests.evaluation.test_retrieval import clustered


def networks(width=None):
    """A teacher, and a student that is the teacher with noise (or with fewer columns)."""
    query, gallery, *lists = clustered(3, noise=0.6)
    rng = np.random.default_rng(0)
    student = [x + rng.normal(0, 0.3 * np.abs(x).mean(), x.shape).astype(np.float32) for x in (query, gallery)]
    return (query, gallery, *(x[:, :width] for x in student)), lists


def test_report_holds_together():
    (teacher_query, teacher_gallery, *student), lists = networks()
    found = evaluate_distillation(teacher_query, teacher_gallery, *student, *lists, k=7)
    assert found.teacher.mean_ap == evaluate_retrieval(teacher_query, teacher_gallery, *lists).mean_ap
    assert found.student.mean_ap == evaluate_retrieval(*student, *lists).mean_ap
    assert found.across.mean_ap == evaluate_retrieval(student[0], teacher_gallery, *lists).mean_ap
    assert found.retention == found.student.mean_ap / found.teacher.mean_ap < found.retention_across < 1
    both = rank_gallery(teacher_query, teacher_gallery, 7)[0], rank_gallery(*student, 7)[0]
    common = [len(set(a) & set(b)) / 7 for a, b in zip(*map(np.ndarray.tolist, both), strict=True)]
    assert found.agreement == pytest.approx(np.mean(common))
    assert 0.1 < found.agreement < 0.99


def test_worse_queries_come_largest_fall_first():
    data, lists = networks()
    found = evaluate_distillation(*data, *lists)
    change = found.student.ap - found.teacher.ap
    assert set(found.worse) == set(np.flatnonzero(change < 0))
    assert (np.diff(change[found.worse]) >= 0).all()
    assert len(found.worse) > 3


def test_a_network_agrees_with_itself():
    (query, gallery, *_), lists = networks()
    found = evaluate_distillation(query, gallery, query, gallery, *lists)
    assert (found.retention, found.retention_across, found.agreement, len(found.worse)) == (1, 1, 1, 0)


def test_widths_may_differ():
    data, lists = networks(width=9)
    found = evaluate_distillation(*data, *lists)
    assert found.across is None
    assert [row["search"] for row in json.loads(json.dumps(found.summary()))] == ["teacher", "student"]


def test_different_images_are_refused():
    (query, gallery, *student), lists = networks()
    with pytest.raises(ValueError, match="teacher_query 40, student_query 39"):
        evaluate_distillation(query, gallery, student[0][:39], student[1], *lists)


def test_no_more_neighbours_agree_than_there_are():
    data, lists = networks()
    found = evaluate_distillation(*data, *lists, k=10_000)
    assert (found.k, found.agreement) == (len(data[1]), 1)
