"""Non-maximum suppression of boxes."""

from __future__ import annotations

import torch
from torchvision.ops import batched_nms

from ..results import Boxes


def suppress_overlaps(candidates: Boxes, iou: float, across_classes: bool) -> Boxes:
    """Return the boxes without those that overlap one of a higher score, in descending order of the scores.

    Args:
        candidates: boxes with scores and class ids.
        iou: the largest IoU of two boxes that both stay; 1 keeps all.
        across_classes: whether boxes of different classes count too.
    """
    assert candidates.scores is not None
    assert candidates.class_ids is not None
    class_ids = torch.from_numpy(candidates.class_ids)
    kept = batched_nms(
        torch.from_numpy(candidates.boxes),
        torch.from_numpy(candidates.scores),
        torch.zeros_like(class_ids) if across_classes else class_ids,
        iou,
    )
    return candidates[kept.numpy()]
