"""The plots of scores."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from support import boxes

from florence_lab.evaluation import METRIC_SUITES, mean_average_precision, plot_precision_recall, plot_reliability

GROUND_TRUTHS = [boxes(("cat", 0, 0, 10, 10), ("cat", 50, 50, 60, 60))]
PREDICTIONS = [boxes(("cat", 0, 0, 10, 10), ("cat", 20, 20, 40, 40), scores=(0.95, 0.35))]


@pytest.fixture
def ax():
    return Figure().add_subplot()


def test_the_area_below_the_precision_recall_curve_is_map(ax):
    assert plot_precision_recall(PREDICTIONS, GROUND_TRUTHS, ax) is ax
    recalls, precisions = ax.lines[0].get_data()
    assert np.mean(precisions) == pytest.approx(mean_average_precision(PREDICTIONS, GROUND_TRUTHS)["mAP@0.5"])
    assert recalls[np.nonzero(precisions)].max() == 0.5


def test_the_reliability_diagram_shows_precision_and_number_of_each_bin(ax):
    assert plot_reliability(PREDICTIONS, GROUND_TRUTHS, ax) is ax
    assert [bar.get_height() for bar in ax.patches] == [0] * 14 + [1]
    assert [text.get_text() for text in ax.texts] == ["1", "1"]


def test_the_diagram_gives_the_calibration_error_of_its_bins(ax):
    """The diagram had 10 bins, and the metric 15."""
    error = METRIC_SUITES["detection"].aggregate(PREDICTIONS, GROUND_TRUTHS)["ECE"]
    plot_reliability(PREDICTIONS, GROUND_TRUTHS, ax)
    assert ax.get_title() == f"reliability diagram, ECE {error:.3f}"
    assert error == pytest.approx((0.05 + 0.35) / 2)


def test_plots_of_nothing_are_empty(ax):
    plot_reliability([], [], ax)
    assert not ax.texts
