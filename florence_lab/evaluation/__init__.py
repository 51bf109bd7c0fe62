"""Evaluation: metrics, predictions of datasets, the suite of cartoon scenes, absent things, plots."""

from .absence import AbsenceAnswer, AbsenceEvaluation, ask_absence, evaluate_absence
from .absence_questions import AbsenceQuestion, sample_absence_questions
from .comparison import TaskComparison, compare_predictions, compare_runs, comparison_table
from .errors import ERROR_KINDS, classify_errors, count_errors, measure_classes
from .evaluator import Evaluation, FailedExample, evaluate, metric_names
from .instance_metrics import mean_average_precision, precision_recall_curve
from .matching import match_instances, pairwise_iou, scored_matches
from .metrics import METRIC_SUITES, MetricSuite
from .plots import plot_precision_recall, plot_reliability, plot_roc
from .prediction_files import read_predictions
from .prediction_runs import predict_dataset
from .predictions import Prediction
from .reliability import ReliabilityBins, area_under_roc, expected_calibration_error, reliability_bins
from .report import write_report
from .suites import SCENE_METRIC_SUITES, SUITES, SuiteEvaluation, evaluate_scenes, evaluate_suite, scene_examples

__all__ = [
    "ERROR_KINDS",
    "METRIC_SUITES",
    "SCENE_METRIC_SUITES",
    "SUITES",
    "AbsenceAnswer",
    "AbsenceEvaluation",
    "AbsenceQuestion",
    "Evaluation",
    "FailedExample",
    "MetricSuite",
    "Prediction",
    "ReliabilityBins",
    "SuiteEvaluation",
    "TaskComparison",
    "area_under_roc",
    "ask_absence",
    "classify_errors",
    "compare_predictions",
    "compare_runs",
    "comparison_table",
    "count_errors",
    "evaluate",
    "evaluate_absence",
    "evaluate_scenes",
    "evaluate_suite",
    "expected_calibration_error",
    "match_instances",
    "mean_average_precision",
    "measure_classes",
    "metric_names",
    "pairwise_iou",
    "plot_precision_recall",
    "plot_reliability",
    "plot_roc",
    "precision_recall_curve",
    "predict_dataset",
    "read_predictions",
    "reliability_bins",
    "sample_absence_questions",
    "scene_examples",
    "scored_matches",
    "write_report",
]
