"""Published metrics by their official code, or by its rules where it is no package: no model is involved."""

from ..labels import normalize_label
from .answers import anls, textvqa_accuracy, vqa_accuracy
from .boxes import box_iou, grounding_recall, mask_areas, merge_boxes, segmentation_metrics
from .captions import CaptionScores, MissingToolError, available_caption_metrics, caption_scores
from .detection import COCO_METRICS, CocoScores, check_coco, coco_scores, read_coco, to_detections
from .estimates import (
    Difference,
    Estimate,
    Interval,
    bootstrap_interval,
    mean_estimate,
    paired_difference,
    ratio_estimate,
)
from .names import COCO_SYNONYMS, NameTable
from .text import count_character_edits, count_word_edits, edit_distance, error_rate

__all__ = [
    "COCO_METRICS",
    "COCO_SYNONYMS",
    "CaptionScores",
    "CocoScores",
    "Difference",
    "Estimate",
    "Interval",
    "MissingToolError",
    "NameTable",
    "anls",
    "available_caption_metrics",
    "bootstrap_interval",
    "box_iou",
    "caption_scores",
    "check_coco",
    "coco_scores",
    "count_character_edits",
    "count_word_edits",
    "edit_distance",
    "error_rate",
    "grounding_recall",
    "mask_areas",
    "mean_estimate",
    "merge_boxes",
    "normalize_label",
    "paired_difference",
    "ratio_estimate",
    "read_coco",
    "segmentation_metrics",
    "textvqa_accuracy",
    "to_detections",
    "vqa_accuracy",
]
