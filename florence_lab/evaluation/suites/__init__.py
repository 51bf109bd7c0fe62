"""Suites: the cartoon scenes, and the published benchmarks."""

from .base import PublishedFile, Suite, SuiteData, SuiteQuestion, SuiteScores
from .card import CardValue, card_value
from .published import SUITES, get_suite
from .run import SuiteEvaluation, evaluate_suite
from .scenes import DEFAULT_NUM_SCENES, SCENE_METRIC_SUITES, evaluate_scenes, object_accuracy, scene_examples

__all__ = [
    "DEFAULT_NUM_SCENES",
    "SCENE_METRIC_SUITES",
    "SUITES",
    "CardValue",
    "PublishedFile",
    "Suite",
    "SuiteData",
    "SuiteEvaluation",
    "SuiteQuestion",
    "SuiteScores",
    "card_value",
    "evaluate_scenes",
    "evaluate_suite",
    "get_suite",
    "object_accuracy",
    "scene_examples",
]
