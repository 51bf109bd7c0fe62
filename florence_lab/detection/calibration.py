"""`Calibration`: a logistic regression from the evidence for a box to the probability that the box is right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..argument_validation import validate_arguments, validate_fields, validate_value
from ..exceptions import ArgumentError, shorten, summarize_error
from ..geometry import to_coordinates
from ..output_files import write_text

CALIBRATION_FILE = "calibration.json"
"""The name of the file in a folder."""

FEATURES = ("own", "p_name", "p_among")
"""The evidence for a box, probabilities in 0..1: the score of the answer that gave the box; the probability that the model calls
the region by the name of the class; the same relative to the names of the other classes, among which it is one of them."""

_RIDGE = 1.0  # weight of the L2 penalty, as in scikit-learn's LogisticRegression(C=1)
_CLIP = 1e-6


@dataclass(frozen=True)
class Calibration:
    """A logistic regression on the log-odds of features.

    No weight is negative: more evidence never makes a box less probable.

    Attributes:
        names: the F features, see `FEATURES`.
        weights: F weights, at least 0.
        bias: the intercept.
        model: the name of the model that it was fitted for.

    Raises:
        ArgumentError: for other features, another number of weights than of features, and numbers that are not finite.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    bias: float
    model: str = ""

    def __post_init__(self) -> None:
        validate_fields(self)
        if self.names != FEATURES:
            raise ArgumentError(f"the features of a calibration are {', '.join(FEATURES)}, got {shorten(self.names)}")
        if len(self.weights) != len(self.names):
            raise ArgumentError(f"{len(self.names)} features, but {len(self.weights)} weights")
        if min(self.weights) < 0:
            raise ArgumentError(f"the weights of a calibration must be at least 0, got {shorten(self.weights)}")

    @classmethod
    @validate_arguments
    def fit(cls, features: np.ndarray, is_right: Sequence[bool] | np.ndarray, model: str = "") -> Calibration:
        """Fit a calibration to boxes of which is known whether they are right.

        Args:
            features: N x F, see `verification.Evidence`.
            is_right: N bool.
            model: the name of the model.

        Raises:
            ArgumentError: unless there are both right and wrong boxes.
        """
        features = to_coordinates("features", features, (len(FEATURES),))
        rightness = validate_value("is_right", is_right, Sequence[bool])
        if len(rightness) != len(features):
            raise ArgumentError(f"{len(features)} rows of features, but {len(rightness)} values of is_right")
        weights, bias = fit_weights(features, np.array(rightness, bool))
        return cls(FEATURES, tuple(weights.tolist()), bias, model)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the probability that each box is right: N x F features -> N float64 in 0..1."""
        from scipy.special import expit

        odds = _log_odds(to_coordinates("features", features, (len(FEATURES),)))
        scores: np.ndarray = expit(odds @ np.array(self.weights) + self.bias)
        return scores

    @validate_arguments
    def save(self, path: str | Path) -> Path:
        """Write the calibration as JSON, and return the path of the file.

        Args:
            path: a file; or a folder, such as that of the checkpoint, in which the file is called `calibration.json`.

        Raises:
            ArgumentError: if the file cannot be written.
        """
        path = _file_path(path)
        try:
            write_text(path, json.dumps(asdict(self), indent=2) + "\n")
        except OSError as error:
            raise ArgumentError(f"{path} cannot be written: {summarize_error(error)}") from error
        return path

    @classmethod
    @validate_arguments
    def load(cls, path: str | Path) -> Calibration:
        """Read a calibration that `save` wrote.

        Args:
            path: the file, or its folder.

        Raises:
            ArgumentError: for a file that cannot be read, or that is not a calibration.
        """
        path = _file_path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            names, weights, bias = content["names"], content["weights"], content["bias"]
            return cls(_to_tuple(names), _to_tuple(weights), bias, content.get("model", ""))
        except OSError as error:
            raise ArgumentError(f"{path} cannot be read: {summarize_error(error)}") from error
        except KeyError as error:
            raise ArgumentError(f"{path} is not a calibration: it lacks {error}") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ArgumentError(f"{path} is not a calibration: {summarize_error(error)}") from error


def fit_weights(features: np.ndarray, is_right: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit a logistic regression on the log-odds of features, with an L2 penalty and weights of at least 0.

    Args:
        features: N x F, all of them 0..1.
        is_right: N bool.

    Returns:
        F weights and the intercept.

    Raises:
        ArgumentError: unless there are both right and wrong boxes.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    x, y = _log_odds(features), np.asarray(is_right, bool)
    if y.all() or not y.any():
        raise ArgumentError(
            f"a calibration needs right boxes and wrong ones, but {int(y.sum())} of {len(y)} boxes are right"
        )

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = parameters[:-1], parameters[-1]
        logits = x @ weights + bias
        value = np.logaddexp(0, np.where(y, -logits, logits)).sum() + _RIDGE / 2 * weights @ weights
        error = expit(logits) - y
        return float(value), np.append(x.T @ error + _RIDGE * weights, error.sum())

    bounds = [(0, None)] * x.shape[1] + [(None, None)]
    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, bounds=bounds, method="L-BFGS-B").x
    return found[:-1], float(found[-1])


def _file_path(path: str | Path) -> Path:
    path = Path(path)
    return path / CALIBRATION_FILE if path.is_dir() else path


def _to_tuple(values: object) -> tuple:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise ArgumentError(f"expected a list, got {shorten(values)}")
    return tuple(values)


def _log_odds(features: np.ndarray) -> np.ndarray:
    p = np.clip(np.asarray(features, np.float64), _CLIP, 1 - _CLIP)
    odds: np.ndarray = np.log(p) - np.log1p(-p)
    return odds
