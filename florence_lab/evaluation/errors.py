"""What goes wrong in detection: precision and recall of each class, and the kinds of errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..argument_validation import validate_arguments
from ..results import Instances
from .matching import IOU_THRESHOLD, check_equal_numbers, comparable_labels, match_instances, pairwise_iou

if TYPE_CHECKING:
    import pandas as pd

BACKGROUND_IOU = 0.1
"""Below it a prediction has nothing to do with an object, as in TIDE (Bolya et al., 2020, arXiv 2008.08115)."""

ERROR_KINDS = ("correct", "localization", "classification", "both", "duplicate", "background", "missed")


@dataclass(frozen=True, eq=False)
class InstanceErrors:
    """The kinds of errors in one image.

    Attributes:
        kinds: N strings, one of `ERROR_KINDS` for each prediction.
        missed: indices of the true instances that no prediction explains, not even one with an error.
    """

    kinds: list[str]
    missed: list[int]


@validate_arguments
def classify_errors(prediction: Instances, ground_truth: Instances) -> InstanceErrors:
    """Return what is wrong with each predicted instance, by the kinds of TIDE.

    With the IoU of the closest true instance: `correct` is matched. `duplicate` overlaps an instance of its label by 0.5 that
    another prediction matches. `localization` has the right label and an IoU of 0.1 to 0.5, `classification` another label and an
    IoU of at least 0.5, `both` another label and an IoU of 0.1 to 0.5. Everything else is `background`.

    A true instance is missed if no prediction is matched with it or has a localization or classification error about it.
    """
    iou = pairwise_iou(prediction, ground_truth)
    predicted, true = (np.array(comparable_labels(r), dtype=object) for r in (prediction, ground_truth))
    is_same = predicted[:, None] == true[None, :]
    matches = match_instances(prediction, ground_truth)
    explained = {int(i) for i in matches if i >= 0}
    kinds = []
    for i, match in enumerate(matches):
        if match >= 0:
            kinds.append("correct")
            continue
        kind, about = _classify(iou[i], is_same[i])
        kinds.append(kind)
        if kind in ("localization", "classification"):
            explained.add(about)
    return InstanceErrors(kinds, [i for i in range(len(ground_truth)) if i not in explained])


def _classify(iou: np.ndarray, is_same: np.ndarray) -> tuple[str, int]:
    """The kind of error of an unmatched prediction, and the true instance that it is about (-1 for none)."""
    if not len(iou) or iou.max() < BACKGROUND_IOU:
        return "background", -1
    same = np.where(is_same, iou, 0)
    other = np.where(is_same, 0, iou)
    if same.max() >= IOU_THRESHOLD:
        return "duplicate", int(same.argmax())
    if same.max() >= BACKGROUND_IOU:
        return "localization", int(same.argmax())
    if other.max() >= IOU_THRESHOLD:
        return "classification", int(other.argmax())
    return "both", int(other.argmax())


@validate_arguments
def count_errors(predictions: Sequence[Instances], ground_truths: Sequence[Instances]) -> dict[str, int]:
    """Return how many instances of all images there are of each of `ERROR_KINDS`."""
    check_equal_numbers(predictions, ground_truths)
    counts: Counter[str] = Counter()
    for prediction, ground_truth in zip(predictions, ground_truths, strict=True):
        errors = classify_errors(prediction, ground_truth)
        counts.update(errors.kinds)
        counts["missed"] += len(errors.missed)
    return {kind: counts[kind] for kind in ERROR_KINDS}


@validate_arguments
def measure_classes(predictions: Sequence[Instances], ground_truths: Sequence[Instances]) -> pd.DataFrame:
    """Return a data frame with a row for each label, the most frequent first.

    Its columns are `class`, `true` and `predicted` (instances), `precision`, `recall` and `F1` at an IoU of 0.5, and `missed`,
    `localization`, `classification` (errors). A prediction with a wrong label is an error of its own label.
    """
    import pandas as pd

    check_equal_numbers(predictions, ground_truths)
    counts: dict[str, Counter[str]] = {}
    for prediction, ground_truth in zip(predictions, ground_truths, strict=True):
        errors = classify_errors(prediction, ground_truth)
        true = comparable_labels(ground_truth)
        for label, kind in zip(comparable_labels(prediction), errors.kinds, strict=True):
            counts.setdefault(label, Counter()).update(("predicted", kind))
        for label in true:
            counts.setdefault(label, Counter()).update(("true",))
        for i in errors.missed:
            counts[true[i]].update(("missed",))
    rows = [_class_row(label, each) for label, each in counts.items()]
    frame = pd.DataFrame(rows, columns=_CLASS_COLUMNS)
    return frame.sort_values(["true", "predicted", "class"], ascending=[False, False, True], ignore_index=True)


_CLASS_COLUMNS = [
    *("class", "true", "predicted", "precision", "recall", "F1"),
    *("missed", "localization", "classification"),
]


def _class_row(label: str, counts: Counter[str]) -> dict[str, object]:
    correct, predicted, true = counts["correct"], counts["predicted"], counts["true"]
    return {
        "class": label,
        "true": true,
        "predicted": predicted,
        "precision": correct / predicted if predicted else float("nan"),
        "recall": correct / true if true else float("nan"),
        "F1": 2 * correct / (predicted + true),
        **{kind: counts[kind] for kind in ("missed", "localization", "classification")},
    }
