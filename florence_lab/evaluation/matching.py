"""Intersection over union of instances, and the one-to-one matching of predictions with ground truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..argument_validation import validate_arguments
from ..exceptions import ArgumentError
from ..geometry import polygons_to_mask
from ..results import Instances, Polygons, Quads, Result
from .labels import normalize_phrase, normalize_space

IOU_THRESHOLD = 0.5
"""Minimum intersection over union of a match, as in PASCAL VOC and in COCO's mAP@0.5."""


@validate_arguments
def pairwise_iou(prediction: Instances, ground_truth: Instances) -> np.ndarray:
    """Return the intersection over union of each predicted with each true instance.

    Boxes are compared as boxes (torchvision), quad boxes as polygons (shapely), segmentations as pixel masks (pycocotools).
    Boxes with x1 < x0 or y1 < y0 overlap nothing.

    Args:
        prediction, ground_truth: N and M instances of the same result type, for the same image size.

    Returns:
        N x M float64 in 0..1.
    """
    if not len(prediction) or not len(ground_truth):
        return np.zeros((len(prediction), len(ground_truth)))
    if isinstance(prediction, Quads) and isinstance(ground_truth, Quads):
        return _quad_iou(prediction.quads, ground_truth.quads)
    if isinstance(prediction, Polygons) and isinstance(ground_truth, Polygons):
        return mask_iou(rasterize(prediction), rasterize(ground_truth))
    return _box_iou(prediction.xyxy, ground_truth.xyxy)


def rasterize(result: Polygons) -> np.ndarray:
    """Return the N x H x W bool masks of polygons. Unlike `Polygons.masks` they are not kept: a data set has gigabytes of them."""
    width, height = result.image_size
    masks = [polygons_to_mask(polygons, result.image_size) for polygons in result.polygons]
    return np.stack(masks) if masks else np.zeros((0, height, width), bool)


def mask_iou(prediction: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """Return the intersection over union of N x H x W with M x H x W bool masks: N x M float64. Empty masks overlap nothing."""
    from pycocotools import mask as coco_mask

    encoded = [
        coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8))
        for masks in (prediction, ground_truth)
    ]
    not_crowd = [0] * len(ground_truth)
    return np.asarray(coco_mask.iou(*encoded, not_crowd)).reshape(len(prediction), len(ground_truth))


@validate_arguments
def match_instances(prediction: Instances, ground_truth: Instances, class_aware: bool = True) -> np.ndarray:
    """Match predictions with ground truth one to one.

    A pair can be matched if its IoU is at least `IOU_THRESHOLD` and, with `class_aware`, its labels are equal. Case, punctuation
    at the ends and an article before a label do not matter. The number of matches is maximal. Scores are not used: unlike COCO's greedy matching, the result does not depend on them.

    Args:
        prediction, ground_truth: N and M instances of the same result type, for the same image size.
        class_aware: whether labels must be equal.

    Returns:
        N int64: the index of the matched ground truth, -1 for a prediction without match.
    """
    from scipy.optimize import linear_sum_assignment

    candidates = pairwise_iou(prediction, ground_truth) >= IOU_THRESHOLD
    if class_aware:
        predicted, true = (np.array(comparable_labels(result), dtype=object) for result in (prediction, ground_truth))
        candidates &= predicted[:, None] == true[None, :]
    rows, columns = linear_sum_assignment(candidates, maximize=True)
    matches = np.full(len(prediction), -1)
    matches[rows] = np.where(candidates[rows, columns], columns, -1)
    return matches


def comparable_labels(result: Instances) -> list[str]:
    """Return the labels of instances in the form in which they are compared. Those of quad boxes are text, whose case counts."""
    normalize = normalize_space if isinstance(result, Quads) else normalize_phrase
    return [normalize(label) for label in result.labels.tolist()]


def count_matches(
    predictions: Sequence[Instances], ground_truths: Sequence[Instances], class_aware: bool = True
) -> int:
    """Return the number of matches over all images, see `match_instances`."""
    check_equal_numbers(predictions, ground_truths)
    pairs = zip(predictions, ground_truths, strict=True)
    return sum(int((match_instances(p, t, class_aware) >= 0).sum()) for p, t in pairs)


def check_equal_numbers(predictions: Sequence[Result], ground_truths: Sequence[Result]) -> None:
    """Raise an `ArgumentError` unless there is one ground truth for each prediction."""
    if len(predictions) != len(ground_truths):
        raise ArgumentError(f"{len(predictions)} predictions, but {len(ground_truths)} ground truths")


@validate_arguments
def scored_matches(
    predictions: Sequence[Instances], ground_truths: Sequence[Instances]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of all predicted instances and whether each is matched, see `match_instances`.

    Args:
        predictions, ground_truths: one result for each image. Predictions without scores are left out.

    Returns:
        K float64 in 0..1 and K bool.
    """
    check_equal_numbers(predictions, ground_truths)
    scores, is_correct = [np.zeros(0)], [np.zeros(0, bool)]
    for prediction, ground_truth in zip(predictions, ground_truths, strict=True):
        if prediction.scores is not None:
            scores.append(prediction.scores)
            is_correct.append(match_instances(prediction, ground_truth) >= 0)
    return np.concatenate(scores), np.concatenate(is_correct)


def _box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    import torch
    from torchvision.ops import box_iou

    # the union of two boxes without area is 0
    return np.nan_to_num(box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy())


def _quad_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    import shapely

    # the corners that a model generates may cross
    first, second = (shapely.make_valid(shapely.polygons(quads)) for quads in (a, b))
    intersection = shapely.area(shapely.intersection(first[:, None], second[None, :]))
    union = shapely.area(first)[:, None] + shapely.area(second)[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
