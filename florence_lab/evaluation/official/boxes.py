"""Phrase grounding (Flickr30k Entities), referring expressions (RefCOCO/+/g) and referring segmentation, as published.

The rules are those of `datasets/flickr_eval.py` of ashkamath/mdetr, of the accuracy at an IoU of 0.5 that the papers on RefCOCO
report, and of `test.py` of yz93/LAVT-RIS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...argument_validation import validate_arguments
from ...geometry import box_intersections
from ..matching import IOU_THRESHOLD

RECALL_RANKS = (1, 5, 10)
PRECISION_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


class MaskAreas(NamedTuple):
    """Pixels of the intersection and of the union of two masks."""

    intersection: int
    union: int

    @property
    def iou(self) -> float:
        """Intersection over union; 0 without a union, as in the published code."""
        return self.intersection / self.union if self.union else 0.0


@validate_arguments
def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the N x M intersections over union of N x 4 and M x 4 boxes (x0, y0, x1, y1); 0 without a union."""
    intersection = box_intersections(a, b)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection, dtype=float), where=union > 0)


@validate_arguments
def merge_boxes(boxes: np.ndarray) -> np.ndarray:
    """Return the 1 x 4 box around N x 4 boxes: the truth of the merged-box protocol."""
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])[None]


@validate_arguments
def grounding_recall(ranked: np.ndarray, truth: np.ndarray, rank: int) -> float:
    """Return 1 if one of the first boxes for a phrase has an IoU of at least 0.5 with any true box, else 0.

    Args:
        ranked: N x 4 predicted boxes, the best first. None is a miss: in the published code each phrase needs a box.
        truth: M x 4 true boxes; M is 1 in the merged-box protocol, see `merge_boxes`.
        rank: how many boxes count.
    """
    return float(bool((box_iou(ranked[:rank], truth) >= IOU_THRESHOLD).any()))


@validate_arguments
def mask_areas(prediction: np.ndarray, truth: np.ndarray) -> MaskAreas:
    """Return the areas of two H x W bool masks, from which mIoU, cIoU and P@X follow."""
    return MaskAreas(int((prediction & truth).sum()), int((prediction | truth).sum()))


@validate_arguments
def segmentation_metrics(areas: Sequence[MaskAreas]) -> dict[str, float]:
    """Return `mIoU` (mean over expressions), `cIoU` (sums over all pixels, also called oIoU) and `P@0.5` to `P@0.9`."""
    if not areas:
        return dict.fromkeys(("mIoU", "cIoU", *(f"P@{t}" for t in PRECISION_THRESHOLDS)), float("nan"))
    ious = np.array([area.iou for area in areas])
    union = sum(area.union for area in areas)
    return {
        "mIoU": float(ious.mean()),
        "cIoU": sum(area.intersection for area in areas) / union if union else 0.0,
        **{f"P@{t}": float((ious >= t).mean()) for t in PRECISION_THRESHOLDS},
    }
