"""Evaluation: metrics, predictions of datasets, the suite of cartoon scenes, absent things, plots."""

from .absence import AbsenceAnswer, AbsenceEvaluation, ask_absence, evaluate_absence
from .absence_questions import AbsenceQuestion, sample_absence_questions
from .evaluator import Evaluation, FailedExample, evaluate, metric_names
from .matching import match_instances, pairwise_iou, scored_matches
from .metrics import (
    METRIC_SUITES,
    MetricSuite,
    area_under_roc,
    expected_calibration_error,
    mean_average_precision,
    precision_recall_curve,
)
from .plots import plot_precision_recall, plot_reliability, plot_roc
from .predictions import Prediction, predict_dataset, read_predictions
from .suites import SCENE_METRIC_SUITES, evaluate_scenes, scene_examples

__all__ = [
    "METRIC_SUITES",
    "SCENE_METRIC_SUITES",
    "AbsenceAnswer",
    "AbsenceEvaluation",
    "AbsenceQuestion",
    "Evaluation",
    "FailedExample",
    "MetricSuite",
    "Prediction",
    "area_under_roc",
    "ask_absence",
    "evaluate",
    "evaluate_absence",
    "evaluate_scenes",
    "expected_calibration_error",
    "match_instances",
    "mean_average_precision",
    "metric_names",
    "pairwise_iou",
    "plot_precision_recall",
    "plot_reliability",
    "plot_roc",
    "precision_recall_curve",
    "predict_dataset",
    "read_predictions",
    "sample_absence_questions",
    "scene_examples",
    "scored_matches",
]
