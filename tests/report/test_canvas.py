"""What all plots share."""

import itertools
from pathlib import Path

import pytest

from reid_cckd.report.canvas import figure_of, plain_logarithmic


@pytest.mark.parametrize("ends", [(0.16, 2.9), (1.8, 3300), (5, 9), (1, 16)])
def test_labels_of_a_logarithmic_axis_are_plain_and_do_not_overlap(ends: tuple[float, float], tmp_path: Path) -> None:
    with figure_of(tmp_path / "a.png", 2, "") as (figure, axes):
        axes[0].plot(ends, [0, 1])
        plain_logarithmic(axes[0])
        figure.draw_without_rendering()
        first, last = axes[0].get_xlim()
        labels = [label for label in axes[0].get_xticklabels(which="both") if label.get_text()]
        shown = [label for label in labels if first <= label.get_position()[0] <= last]
        boxes = [label.get_window_extent() for label in shown]
        assert all("$" not in label.get_text() for label in shown)
        assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))
        assert len(shown) >= 2


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_long_title_stays_on_the_figure(count: int, tmp_path: Path) -> None:
    title = "Table 2 in miniature: 544 Omniglot characters, ResNet-18 at half width -> ResNet-10 at an eighth, " * 2
    with figure_of(tmp_path / "a.png", count, title) as (figure, axes):
        figure.draw_without_rendering()
        (drawn,) = figure.texts
        assert drawn.get_window_extent().x1 <= figure.bbox.x1
        assert axes[0].get_window_extent().y1 < drawn.get_window_extent().y0
