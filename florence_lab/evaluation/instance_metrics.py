"""Metrics of instances: precision and recall, COCO's mAP, masks, and whether nothing is predicted where nothing is.

mAP is torchmetrics' (pycocotools backend).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..argument_validation import validate_arguments
from ..results import Instances, Polygons
from .matching import check_equal_numbers, comparable_labels, count_matches, rasterize
from .official import mask_areas, segmentation_metrics
from .official.boxes import MaskAreas
from .reliability import expected_calibration_error


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


def no_target_accuracy(predictions: Sequence[Instances], ground_truths: Sequence[Instances]) -> float:
    """Return the share of the empty ground truths whose prediction is empty, too; nan if no ground truth is empty.

    This is N-acc. of GRES (Liu et al., 2023, arXiv 2306.00968).
    """
    is_empty = [not len(p) for p, truth in zip(predictions, ground_truths, strict=True) if not len(truth)]
    return _ratio(sum(is_empty), len(is_empty))


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
