"""The calibration error, on scores whose value is known."""

import math

import pytest
from support import boxes

from florence_lab.evaluation import expected_calibration_error

CAT = ("cat", 0, 0, 10, 10)


def test_the_calibration_error_is_the_distance_of_score_and_precision():
    ground_truth = boxes(*[("cat", 20 * i, 0, 20 * i + 10, 10) for i in range(5)])
    rows = [("cat", 20 * i, 0, 20 * i + 10, 10 if i < 4 else 100) for i in range(5)]
    assert expected_calibration_error([boxes(*rows, scores=[0.8] * 5)], [ground_truth]) == pytest.approx(0, abs=1e-6)
    overconfident = expected_calibration_error([boxes(*rows, scores=[0.999] * 5)], [ground_truth])
    assert overconfident == pytest.approx(0.199, abs=1e-6)


def test_the_calibration_error_without_scores_is_undefined():
    assert math.isnan(expected_calibration_error([boxes(CAT)], [boxes(CAT)]))
