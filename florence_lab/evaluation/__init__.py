"""Evaluation: metrics, predictions of datasets, the suite of cartoon scenes, plots."""

from .evaluator import Evaluation, FailedExample, evaluate, metric_names
from .matching import match_instances, pairwise_iou, scored_matches
from .metrics import (
    METRIC_SUITES,
    MetricSuite,
    expected_calibration_error,
    mean_average_precision,
    precision_recall_curve,
)
from .plots import plot_precision_recall, plot_reliability
from .predictions import Prediction, predict_dataset, read_predictions
from .suites import SCENE_METRIC_SUITES, evaluate_scenes, scene_examples

__all__ = [
    "METRIC_SUITES",
    "SCENE_METRIC_SUITES",
    "Evaluation",
    "FailedExample",
    "MetricSuite",
    "Prediction",
    "evaluate",
    "evaluate_scenes",
    "expected_calibration_error",
    "match_instances",
    "mean_average_precision",
    "metric_names",
    "pairwise_iou",
    "plot_precision_recall",
    "plot_reliability",
    "precision_recall_curve",
    "predict_dataset",
    "read_predictions",
    "scene_examples",
    "scored_matches",
]
