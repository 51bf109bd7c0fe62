"""How far scores tell what is right: bins of scores, the expected calibration error, and the ROC curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..argument_validation import validate_arguments
from ..exceptions import ArgumentError, shorten
from ..results import Instances
from .matching import scored_matches

NUM_CALIBRATION_BINS = 15


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
