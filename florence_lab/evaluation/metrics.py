"""The metrics of each kind of answer, against its ground truth.

An undefined value is nan, such as the recall without ground truth: it is neither 0 nor 1, and averages leave it out.

An empty ground truth states that there is nothing. For instances, polygons and the text in an image, an empty prediction is then
right, and any other is wrong, as for the samples without a target of GRES (Liu et al., 2023, arXiv 2306.00968).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..argument_validation import validate_arguments, validate_fields
from ..exceptions import ArgumentError, unknown_name
from ..tasks import Metric, ResultKind, Task
from .instance_metrics import (
    box_recall,
    detection_metrics,
    instance_f1,
    instance_metrics,
    mask_metrics,
    no_target_accuracy,
    proposal_metrics,
    union_mask_iou,
)
from .matching import check_equal_numbers
from .text_metrics import exact_match, ocr_metrics, rouge_l, word_accuracy


@dataclass(frozen=True)
class MetricSuite:
    """The metrics of one kind of answer.

    Attributes:
        per_sample: (prediction, ground truth) -> a value in 0..1, the higher the better, or nan. It ranks predictions.
        aggregate: (N predictions, N ground truths) -> metric name -> value in 0..1, or nan. For all metrics but `ECE`, higher
            is better. The names are known without data: `aggregate([], [])` gives each of them as nan.
    """

    per_sample: Callable[[Any, Any], float]
    aggregate: Callable[[Sequence[Any], Sequence[Any]], dict[str, float]]

    def __post_init__(self) -> None:
        validate_fields(self)


def mean_suite(name: str, per_sample: Callable[[Any, Any], float]) -> MetricSuite:
    """Return the suite of one metric that is averaged over samples, those where it is undefined left out."""

    def aggregate(predictions: Sequence[Any], ground_truths: Sequence[Any]) -> dict[str, float]:
        values = np.array([per_sample(p, t) for p, t in zip(predictions, ground_truths, strict=True)], float)
        values = values[~np.isnan(values)]
        return {name: float(values.mean()) if len(values) else float("nan")}

    return MetricSuite(per_sample, aggregate)


METRIC_SUITES: Mapping[Metric, MetricSuite] = {
    "caption": mean_suite("rouge_l", rouge_l),
    "detection": MetricSuite(instance_f1, detection_metrics),
    "instances": MetricSuite(instance_f1, instance_metrics),
    "proposals": MetricSuite(box_recall, proposal_metrics),
    "masks": MetricSuite(union_mask_iou, mask_metrics),
    "exact_match": mean_suite("accuracy", exact_match),
    "ocr": MetricSuite(word_accuracy, ocr_metrics),
}
"""`Task.metric` -> its metrics."""

DEFAULT_METRICS: Mapping[ResultKind, Metric] = {
    "text": "exact_match",
    "boxes": "detection",
    "grounding": "instances",
    "boxes_or_polygons": "instances",
    "quads": "instances",
    "polygons": "masks",
}
"""`Task.result` -> the suite of a task whose `metric` is None."""


@validate_arguments
def metric_suite(task: Task, suites: Mapping[Metric, MetricSuite] = METRIC_SUITES) -> MetricSuite:
    """Return the metrics of a task.

    Raises:
        ArgumentError: if they are not among the suites.
    """
    name = task.metric or DEFAULT_METRICS[task.result]
    if name not in suites:
        raise ArgumentError(unknown_name("metric", name, suites))
    return suites[name]


def locates_phrase(task: Task) -> bool:
    """Return whether a task asks where something is that may be absent: it takes a phrase and answers with instances."""
    return task.input == "phrase" and task.result != "text"


@validate_arguments
def task_metrics(
    task: Task,
    predictions: Sequence[Any],
    ground_truths: Sequence[Any],
    suites: Mapping[Metric, MetricSuite] = METRIC_SUITES,
) -> dict[str, float]:
    """Return the metrics of a task: those of its suite, and `no_target_accuracy` if the task locates a phrase.

    Args:
        task: the task.
        predictions, ground_truths: N results each. The names of the metrics do not depend on them.
        suites: the metrics by `Task.metric`.

    Raises:
        ArgumentError: for another number of ground truths than of predictions, and as `metric_suite`.
    """
    check_equal_numbers(predictions, ground_truths)
    values = metric_suite(task, suites).aggregate(predictions, ground_truths)
    if locates_phrase(task):
        values = values | {"no_target_accuracy": no_target_accuracy(predictions, ground_truths)}
    return values
