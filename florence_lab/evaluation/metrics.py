"""Metrics of predictions against ground truth, one suite for each kind of answer.

mAP is torchmetrics' (pycocotools backend), and so is ROUGE-L. An undefined value is nan, such as the recall without ground truth: it is neither 0 nor 1, and averages leave it out.

An empty ground truth states that there is nothing. For instances, polygons and the text in an image, an empty prediction is then
right, and any other is wrong, as for the samples without a target of GRES (Liu et al., 2023, arXiv 2306.00968).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..argument_validation import validate_arguments, validate_fields
from ..exceptions import ArgumentError, shorten, unknown_name
from ..results import Instances, Polygons, Text
from ..tasks import Metric, ResultKind, Task
from .labels import normalize_label
from .matching import check_equal_numbers, comparable_labels, count_matches, rasterize, scored_matches
from .official import count_character_edits, count_word_edits, error_rate, mask_areas, segmentation_metrics
from .official.boxes import MaskAreas
from .official.text import EditCounts

NUM_CALIBRATION_BINS = 15

_WORD_RE = re.compile(r"[^\W_]+")


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


def instance_f1(prediction: Instances, ground_truth: Instances) -> float:
    """Return the F1 score of the instances of one image at an IoU of 0.5, labels included; 1 if there are none at all."""
    return instance_metrics([prediction], [ground_truth])["F1@0.5"]


def instance_metrics(predictions: Sequence[Instances], ground_truths: Sequence[Instances]) -> dict[str, float]:
    """Return precision, recall and F1 at an IoU of 0.5 over the instances of all images together (micro average).

    All are 1 if no image has an instance and none is predicted. Otherwise the precision of no predictions and the recall of no
    ground truth are nan.
    """
    matched = count_matches(predictions, ground_truths)
    num_predicted, num_true = sum(map(len, predictions)), sum(map(len, ground_truths))
    undefined = 1.0 if len(predictions) and not num_predicted and not num_true else float("nan")
    return {
        "precision@0.5": _ratio(matched, num_predicted, undefined),
        "recall@0.5": _ratio(matched, num_true, undefined),
        "F1@0.5": _ratio(2 * matched, num_predicted + num_true, undefined),
    }


def box_recall(prediction: Instances, ground_truth: Instances) -> float:
    """Return the share of the true boxes that are found at an IoU of 0.5, with any label.

    Without ground truth: 1 if nothing is predicted, else 0.
    """
    return proposal_metrics([prediction], [ground_truth])["recall@0.5"]


def proposal_metrics(predictions: Sequence[Instances], ground_truths: Sequence[Instances]) -> dict[str, float]:
    """Return the recall at an IoU of 0.5 of all images together, labels ignored.

    If no image has a box, this is 1 if none is predicted, else 0; nan without images.
    """
    matched = count_matches(predictions, ground_truths, class_aware=False)
    undefined = float(not any(map(len, predictions))) if len(predictions) else float("nan")
    return {"recall@0.5": _ratio(matched, sum(map(len, ground_truths)), undefined)}


def detection_metrics(predictions: Sequence[Instances], ground_truths: Sequence[Instances]) -> dict[str, float]:
    """Return COCO's mAP, `instance_metrics` and the expected calibration error."""
    return (
        mean_average_precision(predictions, ground_truths)
        | instance_metrics(predictions, ground_truths)
        | {"ECE": expected_calibration_error(predictions, ground_truths)}
    )


@validate_arguments
def mean_average_precision(predictions: Sequence[Instances], ground_truths: Sequence[Instances]) -> dict[str, float]:
    """Return COCO's mAP of boxes at an IoU of 0.5 (`mAP@0.5`) and averaged over 0.5 to 0.95 (`mAP@[.5:.95]`).

    As in COCO, classes without ground truth are ignored, and at most 100 instances of an image count. Instances without a
    score count as certain. Both values are nan without ground truth.
    """
    coco = _coco_evaluation(predictions, ground_truths)
    return {"mAP@0.5": _undefined_to_nan(coco["map_50"]), "mAP@[.5:.95]": _undefined_to_nan(coco["map"])}


@validate_arguments
def precision_recall_curve(
    predictions: Sequence[Instances], ground_truths: Sequence[Instances]
) -> tuple[np.ndarray, np.ndarray]:
    """Return COCO's precision-recall curve at an IoU of 0.5, averaged over classes. The mean precision is mAP@0.5.

    Returns:
        101 recalls, 0 to 1, and the interpolated precision at each; nan without ground truth.
    """
    recalls = np.linspace(0, 1, 101)
    # IoU thresholds x recalls x classes x areas x limits of instances; COCO marks classes without ground truth by -1
    precision = np.asarray(_coco_evaluation(predictions, ground_truths)["precision"])
    if precision.ndim != 5:
        return recalls, np.full(len(recalls), np.nan)
    by_class = precision[0, :, :, 0, -1]
    by_class = by_class[:, (by_class >= 0).all(axis=0)]
    return recalls, by_class.mean(axis=1) if by_class.size else np.full(len(recalls), np.nan)


class ReliabilityBins(NamedTuple):
    """Scores in bins of equal width.

    Attributes:
        edges: B + 1 float64, 0 to 1.
        counts: B int64, the instances of each bin.
        precisions: B float64, the share of them that is right; nan for an empty bin.
        confidences: B float64, their mean score; nan for an empty bin.
    """

    edges: np.ndarray
    counts: np.ndarray
    precisions: np.ndarray
    confidences: np.ndarray

    @property
    def calibration_error(self) -> float:
        """The mean distance between score and precision, weighted by the instances of the bins; nan without any."""
        if not self.counts.sum():
            return float("nan")
        distances = np.nan_to_num(np.abs(self.precisions - self.confidences))
        return float(self.counts @ distances / self.counts.sum())


@validate_arguments
def reliability_bins(
    predictions: Sequence[Instances], ground_truths: Sequence[Instances], num_bins: int = NUM_CALIBRATION_BINS
) -> ReliabilityBins:
    """Return the scores of all predicted instances in bins. Metric, diagram and report use the same ones."""
    scores, is_correct = scored_matches(predictions, ground_truths)
    edges = np.linspace(0, 1, num_bins + 1)
    # a bin contains its upper edge, as in torchmetrics
    index = np.clip(np.searchsorted(edges, scores, side="left") - 1, 0, num_bins - 1)
    counts = np.bincount(index, minlength=num_bins)
    totals = [np.bincount(index, weights=values, minlength=num_bins) for values in (is_correct, scores)]
    means = [np.divide(total, counts, out=np.full(num_bins, np.nan), where=counts > 0) for total in totals]
    return ReliabilityBins(edges, counts, *means)


@validate_arguments
def expected_calibration_error(predictions: Sequence[Instances], ground_truths: Sequence[Instances]) -> float:
    """Return the mean distance between score and precision over 15 bins of scores (Guo et al., 2017); nan without scores."""
    return reliability_bins(predictions, ground_truths).calibration_error


def union_mask_iou(prediction: Polygons, ground_truth: Polygons) -> float:
    """Return the IoU of the pixels inside any predicted and any true polygon; nan if there are no such pixels.

    Without a true polygon: 1 if none is predicted, else 0.
    """
    if not len(ground_truth):
        return float(not len(prediction))
    areas = _union_areas(prediction, ground_truth)
    return areas.iou if areas.union else float("nan")


def mask_metrics(predictions: Sequence[Polygons], ground_truths: Sequence[Polygons]) -> dict[str, float]:
    """Return `mask_iou` (the mean of `union_mask_iou`), `cIoU` and `P@0.5` to `P@0.9`, see `segmentation_metrics`.

    `cIoU` and the others are those of the samples with a true polygon; nan without any.
    """
    values = np.array([union_mask_iou(p, t) for p, t in zip(predictions, ground_truths, strict=True)], float)
    values = values[~np.isnan(values)]
    located = [_union_areas(p, t) for p, t in zip(predictions, ground_truths, strict=True) if len(t)]
    metrics = segmentation_metrics([areas for areas in located if areas.union])
    del metrics["mIoU"]
    return {"mask_iou": float(values.mean()) if len(values) else float("nan"), **metrics}


def _union_areas(prediction: Polygons, ground_truth: Polygons) -> MaskAreas:
    predicted, true = (np.asarray(rasterize(result).any(axis=0)) for result in (prediction, ground_truth))
    return mask_areas(predicted, true)


def exact_match(prediction: Text, ground_truth: Text) -> float:
    """Return 1 if the texts are equal up to case, punctuation at the ends and white space, else 0."""
    return float(normalize_label(prediction.text) == normalize_label(ground_truth.text))


def word_accuracy(prediction: Text, ground_truth: Text) -> float:
    """Return 1 - WER of one text, at least 0; 1 if both texts are empty. See `ocr_metrics`."""
    return ocr_metrics([prediction], [ground_truth])["word_accuracy"]


def ocr_metrics(predictions: Sequence[Text], ground_truths: Sequence[Text]) -> dict[str, float]:
    """Return `word_accuracy` (1 - WER), `character_accuracy` (1 - CER), both at least 0, and `exact_match`.

    An error rate is the number of substituted, missing and additional words or characters of all texts together, divided by
    the number of true ones. If no text has any, the accuracy is 1 if nothing is recognized, else 0; nan without texts. White space
    of any kind and length separates words; case counts.
    """
    pairs = [(p.text, t.text) for p, t in zip(predictions, ground_truths, strict=True)]
    equal = [" ".join(text.split()) == " ".join(true.split()) for text, true in pairs]
    return {
        "word_accuracy": _accuracy([count_word_edits(*pair) for pair in pairs]),
        "character_accuracy": _accuracy([count_character_edits(*pair) for pair in pairs]),
        "exact_match": float(np.mean(equal)) if equal else float("nan"),
    }


def _accuracy(counts: Sequence[EditCounts]) -> float:
    rate = error_rate(counts)
    return rate if np.isnan(rate) else max(0.0, 1 - rate)


def rouge_l(prediction: Text, ground_truth: Text) -> float:
    """Return ROUGE-L, the F1 score of the longest common subsequence of words (Lin, 2004); nan if neither text has words.

    Case and punctuation are ignored, and words are not stemmed. For English this is ROUGE-L of the package rouge_score, which
    drops letters other than a to z; here they count.
    """
    from torchmetrics.functional.text.rouge import rouge_score

    if not _WORD_RE.search(prediction.text + ground_truth.text):
        return float("nan")
    scores = rouge_score(
        prediction.text,
        ground_truth.text,
        normalizer=str.lower,
        tokenizer=_WORD_RE.findall,
        rouge_keys="rougeL",
    )
    return float(scores["rougeL_fmeasure"])


def no_target_accuracy(predictions: Sequence[Instances], ground_truths: Sequence[Instances]) -> float:
    """Return the share of the empty ground truths whose prediction is empty, too; nan if no ground truth is empty.

    This is N-acc. of GRES (Liu et al., 2023, arXiv 2306.00968).
    """
    is_empty = [not len(p) for p, truth in zip(predictions, ground_truths, strict=True) if not len(truth)]
    return _ratio(sum(is_empty), len(is_empty))


@validate_arguments
def area_under_roc(scores: np.ndarray, is_positive: np.ndarray) -> float:
    """Return the area under the ROC curve (torchmetrics): how likely a positive has a higher score than a negative.

    Args:
        scores: N numbers in 0..1.
        is_positive: N bool.

    Returns:
        A value in 0..1, where equal scores count half; nan without positives or without negatives.

    Raises:
        ArgumentError: for another number of scores, and for scores outside 0..1.
    """
    import torch
    from torchmetrics.functional.classification import binary_auroc

    scores, is_positive = check_scores(scores, is_positive)
    if not is_positive.any() or is_positive.all():
        return float("nan")
    return float(binary_auroc(torch.from_numpy(scores), torch.from_numpy(is_positive).long()))


def check_scores(scores: np.ndarray, is_positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return N scores as float64, and whether each is that of a positive as bool.

    Raises:
        ArgumentError: for arrays of other shapes or types, and for scores outside 0..1, which torchmetrics would take for logits.
    """
    is_valid = scores.dtype.kind in "fiu" and is_positive.dtype.kind in "biu"
    if not is_valid or scores.ndim != 1 or scores.shape != is_positive.shape:
        raise ArgumentError(
            "scores and is_positive must be N numbers and N truth values, got arrays of "
            f"{scores.dtype} {scores.shape} and {is_positive.dtype} {is_positive.shape}"
        )
    if len(scores) and not (scores.min() >= 0 and scores.max() <= 1):  # nor nan
        raise ArgumentError(f"scores must be at least 0 and at most 1, got {shorten(scores.tolist())}")
    return scores.astype(np.float64), is_positive.astype(bool)


@validate_arguments
def roc_curve(scores: np.ndarray, is_positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ROC curve (torchmetrics): the rates of false and of true positives at each score, from (0, 0) to (1, 1).

    Args:
        scores, is_positive: as for `area_under_roc`.

    Returns:
        Two arrays of K rates in 0..1; K is 0 without positives or without negatives.

    Raises:
        ArgumentError: as `area_under_roc`.
    """
    import torch
    from torchmetrics.functional.classification import binary_roc

    scores, is_positive = check_scores(scores, is_positive)
    if not is_positive.any() or is_positive.all():
        return np.zeros(0), np.zeros(0)
    false_rates, true_rates, _ = binary_roc(torch.from_numpy(scores), torch.from_numpy(is_positive).long())
    return false_rates.double().numpy(), true_rates.double().numpy()


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


def _ratio(numerator: int, denominator: int, undefined: float = float("nan")) -> float:
    return numerator / denominator if denominator else undefined


def _undefined_to_nan(value: Any) -> float:
    return float(value) if value >= 0 else float("nan")  # COCO's -1


def _coco_evaluation(predictions: Sequence[Instances], ground_truths: Sequence[Instances]) -> dict[str, Any]:
    """COCO's figures of boxes, as torchmetrics names them; -1 where undefined."""
    from torchmetrics.detection import MeanAveragePrecision

    check_equal_numbers(predictions, ground_truths)
    if not sum(map(len, ground_truths)):
        return {"map": -1.0, "map_50": -1.0, "precision": -1.0}
    labels = sorted({label for r in (*predictions, *ground_truths) for label in comparable_labels(r)})
    class_ids = {label: i for i, label in enumerate(labels)}
    metric = MeanAveragePrecision(backend="pycocotools", extended_summary=True)
    metric.update([_to_tensors(p, class_ids) for p in predictions], [_to_tensors(t, class_ids) for t in ground_truths])
    return dict(metric.compute())


def _to_tensors(result: Instances, class_ids: Mapping[str, int]) -> dict[str, Any]:
    import torch

    scores = np.ones(len(result)) if result.scores is None else result.scores
    return {
        "boxes": torch.from_numpy(result.xyxy).float(),
        "labels": torch.tensor([class_ids[label] for label in comparable_labels(result)], dtype=torch.long),
        "scores": torch.from_numpy(scores).float(),
    }
