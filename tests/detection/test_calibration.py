"""The logistic regression of a calibration, and its file."""

import json

import numpy as np
import pytest

from florence_lab.detection.calibration import CALIBRATION_FILE, FEATURES, Calibration
from florence_lab.exceptions import ArgumentError

RNG = np.random.default_rng(3)
VALID = {"names": list(FEATURES), "weights": [1.0, 2.0, 0.0], "bias": -1.0}


def sample(weights, bias, count=4000):
    """Features, and whether boxes are right, of a known logistic regression."""
    log_odds = RNG.normal(size=(count, len(weights))) * 2
    is_right = RNG.random(count) < 1 / (1 + np.exp(-(log_odds @ weights + bias)))
    return 1 / (1 + np.exp(-log_odds)), is_right


@pytest.mark.parametrize(("weights", "bias"), [((1.0, 0.5, 0.0), -1.0), ((0.2, 2.0, 0.4), 1.5)])
def test_a_fit_finds_the_regression_that_made_the_data(weights, bias):
    calibration = Calibration.fit(*sample(weights, bias), model="x")
    np.testing.assert_allclose(calibration.weights, weights, atol=0.2)
    assert calibration.bias == pytest.approx(bias, abs=0.2)
    assert calibration.model == "x"


def test_evidence_never_counts_against_a_box():
    features, is_right = sample((2.0, -1.5, 0.0), 0.0)
    assert min(Calibration.fit(features, is_right).weights) == 0


@pytest.mark.parametrize("certain", [0.0, 1.0])
def test_certain_features_give_probabilities(certain):
    features, is_right = sample((1.0, 1.0, 1.0), 0.0)
    scores = Calibration.fit(features, is_right).predict(np.full((2, 3), certain))
    assert np.isfinite(scores).all()
    assert ((scores > 0.5) == bool(certain)).all()


@pytest.mark.parametrize("is_right", [[True, True], [False, False]])
def test_a_fit_needs_right_and_wrong_boxes(is_right):
    with pytest.raises(ArgumentError, match=f"{sum(is_right)} of 2"):
        Calibration.fit(np.full((2, 3), 0.5), np.array(is_right))


def test_a_file_or_its_folder_is_read_back(tmp_path):
    calibration = Calibration(FEATURES, (1.0, 0.25, 0.0), -0.5, "nano")
    assert calibration.save(tmp_path) == tmp_path / CALIBRATION_FILE
    assert Calibration.load(tmp_path) == Calibration.load(tmp_path / CALIBRATION_FILE) == calibration
    assert calibration.save(tmp_path / "other.json").name == "other.json"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        "null",
        "3",
        json.dumps({}),
        json.dumps(VALID | {"weights": [1.0]}),
        json.dumps(VALID | {"weights": [1.0, -2.0, 0.0]}),
        json.dumps(VALID | {"weights": "abc"}),
        json.dumps(VALID | {"weights": None}),
        json.dumps(VALID | {"weights": [1.0, None, 0.0]}),
        json.dumps(VALID | {"names": ["own", "x", "y"]}),
        json.dumps(VALID | {"bias": "big"}),
        json.dumps(VALID | {"bias": float("nan")}),
    ],
)
def test_a_file_that_is_no_calibration_is_refused(tmp_path, content):
    path = tmp_path / "calibration.json"
    path.write_text(content)
    with pytest.raises(ArgumentError, match=r"calibration\.json"):
        Calibration.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ArgumentError, match=r"missing\.json"):
        Calibration.load(tmp_path / "missing.json")
