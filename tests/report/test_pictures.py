"""Sheets and curves: files that open, pictures that change with their input, missing images that do not matter."""

import numpy as np
import pytest
from PIL import Image

from reid_cckd.report import RankedRow, choose_rows, cmc_curves, ranked_sheet, roc_curves, training_curves
from reid_cckd.report.curves import _apart

GREEN, RED, GREY = (47, 158, 68), (224, 49, 49), (222, 226, 230)


def pictures(count):
    return [lambda number=number: np.full((80, 40, 3), (10, 10 * number, 200), np.uint8) for number in range(count)]


def area(path, colour):
    return int((np.asarray(Image.open(path)) == colour).all(axis=-1).sum())


def sheet(tmp_path, is_match, gallery=None):
    given = pictures(4)
    row = RankedRow(given[0], gallery or given[1:], is_match, [0.9, 0.8, 0.7], "query 0")
    ranked_sheet(tmp_path / "sheet.png", [row], "title")
    return tmp_path / "sheet.png"


def test_frames_tell_matches_from_others(tmp_path):
    counts = []
    for is_match in ([True] * 3, [True, False, False], [False] * 3):
        path = sheet(tmp_path, is_match)
        counts.append((area(path, GREEN), area(path, RED)))
    (all_green, legend_red), (some_green, some_red), (legend_green, all_red) = counts
    assert all_green > some_green > legend_green > 0
    assert all_red > some_red > legend_red > 0


def test_a_missing_image_becomes_a_grey_tile(tmp_path):
    whole = area(sheet(tmp_path, [True] * 3), GREY)
    gallery = [*pictures(1), *[lambda: "it is gone"] * 2]
    assert area(sheet(tmp_path, [True] * 3, gallery), GREY) > whole + 2 * 80 * 150


def test_names_are_written_below_and_do_not_touch(tmp_path):
    given = pictures(4)

    def drawn(*names):
        row = RankedRow(given[0], given[1:], [True] * 3, [0.9, 0.8, 0.7], "query 0", names)
        ranked_sheet(tmp_path / "sheet.png", [row])
        return np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)

    without, short, long = drawn(), drawn("anna", "", ""), drawn("anna\n" * 50, "", "")
    np.testing.assert_array_equal(without, drawn("", "", ""))
    assert short.shape == long.shape == (without.shape[0] + 16, *without.shape[1:])
    columns = np.flatnonzero((short != long).any(axis=(0, 2)))
    step = (short.shape[1] - 2 * 24 - 8) / 4  # margins, and the gap behind the query
    assert 0 < np.ptp(columns) < step - 8


def test_rows_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw"):
        ranked_sheet(tmp_path / "a.png", [])
    with pytest.raises(ValueError, match=r"row 0: .* 1, 1, 1 and 2"):
        ranked_sheet(tmp_path / "a.png", [RankedRow("q", ["g"], [True], [0.5], names=["a", "b"])])
    with pytest.raises(ValueError, match=r"row 0: .* 1, 2, 1 and 0"):
        ranked_sheet(tmp_path / "a.png", [RankedRow("q", ["g"], [True, False], [0.5])])
    assert not list(tmp_path.iterdir())


def test_chosen_rows_hold_the_worst_and_a_seeded_draw():
    ap = np.r_[np.linspace(0, 1, 50), np.nan]
    rows = choose_rows(ap, 9, seed=1)
    assert {0, 1, 2} <= set(rows)
    assert len(set(rows)) == 9
    assert (np.diff(ap[rows]) < 0).all()
    np.testing.assert_array_equal(rows, choose_rows(ap, 9, seed=1))
    assert set(rows) != set(choose_rows(ap, 9, seed=2))
    assert sorted(choose_rows(ap[-4:], 9)) == [0, 1, 2]


def log(end, terms=("identity", "cc"), evaluated=True):
    rows = [
        {"step": step, "epoch": step // 10 + 1, "lr": 1e-3, "loss": 3 - step / 50, **dict.fromkeys(terms, 1.0)}
        for step in range(1, 60)
    ]
    ends = [{"step": 10 * epoch, "epoch": epoch, "mean_ap": end * epoch / 6, "rank1": end} for epoch in range(1, 7)]
    return rows + ends * evaluated


def size(path):
    with Image.open(path) as image:
        return image.size


def test_curves_have_a_panel_per_value(tmp_path):
    training_curves(tmp_path / "many.png", {"a": log(0.5), "b": log(0.7, terms=("identity",))}, "two runs")
    training_curves(tmp_path / "few.png", {"a": log(0.5, terms=(), evaluated=False)})
    assert size(tmp_path / "many.png")[1] > size(tmp_path / "few.png")[1] > 300
    many = np.asarray(Image.open(tmp_path / "many.png").convert("RGB"))
    assert ((many == (0, 114, 178)).all(-1).any(), (many == (213, 94, 0)).all(-1).any()) == (True, True)


def test_curves_survive_odd_logs(tmp_path):
    rows = [{"step": 1, "epoch": 1, "loss": float("nan")}, {"step": 2, "epoch": 1, "loss": 1.0}]
    training_curves(tmp_path / "odd.png", {"nan": rows, "evaluated only": log(0.5)[-6:]})
    with pytest.raises(ValueError, match="no value to draw"):
        training_curves(tmp_path / "none.png", {"empty": []})
    assert [path.name for path in tmp_path.iterdir()] == ["odd.png"]


def test_labels_of_lines_that_end_together_are_put_apart():
    moved = _apart([60.0, 75.0, 75.2, 75.3], 2.0)
    assert np.diff(moved).min() >= 2 - 1e-9
    assert np.mean(moved) == pytest.approx(np.mean([60.0, 75.0, 75.2, 75.3]))
    assert _apart([1.0, 9.0], 2.0) == [1.0, 9.0]
    assert _apart([], 2.0) == []


def test_plots_of_results(tmp_path):
    cmc_curves(tmp_path / "cmc.png", {"a": {1: 0.5, 5: 0.7}, "b": {1: 0.6, 100: 0.9}})
    roc_curves(tmp_path / "roc.png", {"a": {1e-6: 0.5, 1e-4: 0.7}})
    assert size(tmp_path / "cmc.png") == size(tmp_path / "roc.png")
