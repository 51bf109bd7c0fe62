"""Suites: the cartoon scenes, and the published benchmarks."""

from .scenes import DEFAULT_NUM_SCENES, SCENE_METRIC_SUITES, evaluate_scenes, object_accuracy, scene_examples

__all__ = ["DEFAULT_NUM_SCENES", "SCENE_METRIC_SUITES", "evaluate_scenes", "object_accuracy", "scene_examples"]
