"""TODO"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..results import Boxes, Polygons, Quads, Result, Text
from ..scenes import caption_counts

LEAST_IOU = 0.5
"""From which intersection over union on a box counts as found: that of PASCAL VOC, and of COCO's mAP@0.5."""


def match_instances(answer: Result, truth: Result, by_label: bool = True) -> np.ndarray:
    """Which instances of an answer are right: N booleans.

    Right is what overlaps an instance of the truth by an IoU of 0.5 or more and, with `by_label`, has its very label. No
    two instances share one of the truth; as many as can be are matched.

    Args:
        answer, truth: both `Boxes` or both `Quads`.
    """
    from scipy.optimize import linear_sum_assignment

    near = iou(answer, truth) >= LEAST_IOU
    if by_label:
        near &= np.array(answer.labels, object)[:, None] == np.array(truth.labels, object)[None, :]
    right = np.zeros(len(answer), bool)
    rows, columns = linear_sum_assignment(near, maximize=True)
    right[rows] = near[rows, columns]
    return right


def iou(answer: Boxes | Quads, truth: Boxes | Quads) -> np.ndarray:
    """N x M intersections over unions: of upright boxes, or of the pixels within quads."""
    if isinstance(answer, Boxes):
        import torch
        from torchvision.ops import box_iou

        # one that is turned inside out (x1 < x0) meets nothing
        return np.nan_to_num(box_iou(torch.tensor(answer.boxes), torch.tensor(truth.boxes)).numpy())
    ours, theirs = (_masks([(quad,) for quad in result.quads], result.image_size) for result in (answer, truth))
    shared = ours @ theirs.T
    return shared / np.maximum(1, ours.sum(1)[:, None] + theirs.sum(1)[None, :] - shared)


def _masks(outlines: Sequence[tuple[np.ndarray, ...]], image_size: tuple[int, int]) -> np.ndarray:
    """N x pixels float32, 1 within."""
    from ..geometry import polygons_to_mask

    masks = [polygons_to_mask(outline, image_size).ravel() for outline in outlines]
    return np.array(masks, np.float32).reshape(len(masks), image_size[0] * image_size[1])


def _f1(answer: Result, truth: Result, by_label: bool = True) -> float:
    said = len(answer) + len(truth)
    return 2 * float(match_instances(answer, truth, by_label).sum()) / said if said else 1.0


def _proposed(answer: Boxes, truth: Boxes) -> float:
    """The share of the true boxes that are proposed, whatever they are called."""
    return float(match_instances(answer, truth, by_label=False).sum()) / max(1, len(truth))


def _mask_iou(answer: Polygons, truth: Polygons) -> float:
    """Of all that is outlined, several things together."""
    ours, theirs = answer.masks.any(0), truth.masks.any(0)
    return float((ours & theirs).sum() / max(1, (ours | theirs).sum()))


def _same_text(answer: Text, truth: Text) -> float:
    return float(answer.text == truth.text)


def _same_things(answer: Text, truth: Text) -> float:
    """Whether a caption names the same categories, each with the same number; for captions of scenes."""
    return float(caption_counts(answer.text) == caption_counts(truth.text))


def _words_right(answer: Text, truth: Text) -> float:
    return max(0.0, 1 - _word_errors([answer.text], [truth.text]))


def _word_errors(said: list[str], true: list[str]) -> float:
    """Words that were replaced, left out or made up, for each word that is there (WER)."""
    import jiwer

    if not any(true):
        return float(any(said))
    return jiwer.wer(true, said)


AGREEMENT: dict[str, Callable[[Any, Any], float]] = {
    "<CAPTION>": _same_things,
    "<DETAILED_CAPTION>": _same_things,
    "<MORE_DETAILED_CAPTION>": _same_things,
    "<OD>": _f1,
    "<DENSE_REGION_CAPTION>": _f1,
    "<REGION_PROPOSAL>": _proposed,
    "<OCR>": _words_right,
    "<OCR_WITH_REGION>": _f1,
    "<CAPTION_TO_PHRASE_GROUNDING>": _f1,
    "<REFERRING_EXPRESSION_SEGMENTATION>": _mask_iou,
    "<OPEN_VOCABULARY_DETECTION>": _f1,
    "<REGION_TO_SEGMENTATION>": _mask_iou,
    "<REGION_TO_CATEGORY>": _same_text,
    "<REGION_TO_DESCRIPTION>": _same_text,
    "<REGION_TO_OCR>": _words_right,
}
"""Task -> how far an answer agrees with the truth, 0 to 1. It ranks answers, the best first and the worst last."""

Answers = Sequence[Any]
"""Results of one task; the truths have the same length and order."""


def mean_average_precision(answers: Answers, truths: Answers) -> dict[str, float]:
    """COCO's mAP, at an IoU of 0.5 and averaged over 0.5 to 0.95.

    Instances without a score count as certain. As in COCO, a label that occurs in no truth is left out.
    """
    import torch
    from torchmetrics.detection import MeanAveragePrecision

    names = {name: i for i, name in enumerate(sorted({name for r in (*answers, *truths) for name in r.labels}))}

    def as_tensors(result: Boxes) -> dict[str, torch.Tensor]:
        scores = np.ones(len(result)) if result.scores is None else result.scores
        return {
            "boxes": torch.tensor(result.boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor([names[name] for name in result.labels], dtype=torch.long),
            "scores": torch.tensor(scores, dtype=torch.float32),
        }

    metric = MeanAveragePrecision(backend="pycocotools")
    metric.update([as_tensors(answer) for answer in answers], [as_tensors(truth) for truth in truths])
    found = metric.compute()
    return {"mAP@0.5": float(found["map_50"]), "mAP@[.5:.95]": float(found["map"])}


def confidences(answers: Answers, truths: Answers) -> tuple[np.ndarray, np.ndarray]:
    """The confidence of every instance of all answers, N float64, and whether it is right, N booleans."""
    pairs = [(a.scores, match_instances(a, t)) for a, t in zip(answers, truths, strict=True) if a.scores is not None]
    scores, right = zip(*pairs, strict=True) if pairs else ((), ())
    return np.concatenate([*scores, []]), np.concatenate([*right, []]).astype(bool)


def calibration_error(answers: Answers, truths: Answers) -> float:
    """Expected calibration error: how far confidence is from the share that is right, over 15 bins (Guo et al., 2017).

    Raises:
        ValueError: if no answer has an instance with a confidence.
    """
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    scores, right = confidences(answers, truths)
    if not len(scores):
        raise ValueError("there is no instance with a confidence")
    return float(binary_calibration_error(torch.tensor(scores), torch.tensor(right).long(), n_bins=15))


def _detection(answers: Answers, truths: Answers) -> dict[str, float]:
    found = mean_average_precision(answers, truths) | _instances(answers, truths)
    scored = any(a.scores is not None and len(a) for a in answers)
    return found | ({"ECE": calibration_error(answers, truths)} if scored else {})


def _instances(answers: Answers, truths: Answers) -> dict[str, float]:
    """Precision, recall and F1 at an IoU of 0.5, of all instances together."""
    right = sum(int(match_instances(a, t).sum()) for a, t in zip(answers, truths, strict=True))
    said, real = sum(map(len, answers)), sum(map(len, truths))
    return {
        "precision@0.5": right / max(1, said),
        "recall@0.5": right / max(1, real),
        "F1@0.5": 2 * right / max(1, said + real),
    }


def _proposals(answers: Answers, truths: Answers) -> dict[str, float]:
    found = sum(int(match_instances(a, t, by_label=False).sum()) for a, t in zip(answers, truths, strict=True))
    return {"recall@0.5": found / max(1, sum(map(len, truths)))}


def _words(answers: Answers, truths: Answers) -> dict[str, float]:
    errors = _word_errors([a.text for a in answers], [t.text for t in truths])
    return {"words right": max(0.0, 1 - errors)}


def _mean_of(name: str, agreement: Callable[[Any, Any], float]) -> Callable[[Answers, Answers], dict[str, float]]:
    return lambda answers, truths: {
        name: float(np.mean([agreement(a, t) for a, t in zip(answers, truths, strict=True)]))
    }


METRICS: dict[str, Callable[[Answers, Answers], dict[str, float]]] = {
    "<CAPTION>": _mean_of("things right", _same_things),
    "<DETAILED_CAPTION>": _mean_of("things right", _same_things),
    "<MORE_DETAILED_CAPTION>": _mean_of("things right", _same_things),
    "<OD>": _detection,
    "<DENSE_REGION_CAPTION>": _instances,
    "<REGION_PROPOSAL>": _proposals,
    "<OCR>": _words,
    "<OCR_WITH_REGION>": _instances,
    "<CAPTION_TO_PHRASE_GROUNDING>": _instances,
    "<REFERRING_EXPRESSION_SEGMENTATION>": _mean_of("mask IoU", _mask_iou),
    "<OPEN_VOCABULARY_DETECTION>": _instances,
    "<REGION_TO_SEGMENTATION>": _mean_of("mask IoU", _mask_iou),
    "<REGION_TO_CATEGORY>": _mean_of("right", _same_text),
    "<REGION_TO_DESCRIPTION>": _mean_of("right", _same_text),
    "<REGION_TO_OCR>": _words,
}
"""Task -> its metrics, by name. All are shares, 0 to 1; all but ECE are the better the higher.

`things right`: captions that name every category with its number. `words right`: 1 - WER, so that made-up words count too.
"""
