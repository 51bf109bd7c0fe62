"""Plots of scores against ground truth: precision-recall and ROC curves, and the reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from ..argument_validation import validate_arguments
from ..results import Instances
from .instance_metrics import precision_recall_curve
from .reliability import NUM_CALIBRATION_BINS, area_under_roc, check_scores, reliability_bins, roc_curve


@validate_arguments
def plot_precision_recall(predictions: Sequence[Instances], ground_truths: Sequence[Instances], ax: Axes) -> Axes:
    """Plot COCO's precision-recall curve at an IoU of 0.5, averaged over classes. The area below it is mAP@0.5.

    Args:
        predictions, ground_truths: one result for each image.
        ax: the axes to draw into; they are returned.
    """
    recalls, precisions = precision_recall_curve(predictions, ground_truths)
    ax.plot(recalls, precisions, color="C0")
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title="precision-recall curve, IoU 0.5")
    ax.grid(alpha=0.3)
    return ax


@validate_arguments
def plot_roc(scores: np.ndarray, is_positive: np.ndarray, ax: Axes, label: str = "") -> Axes:
    """Plot a ROC curve, with the area below it in the legend. Several can be drawn into the same axes.

    A point marks the threshold of 0: all scores above it are taken for positive. Random scores lie on the dashed diagonal.

    Args:
        scores: N numbers in 0..1.
        is_positive: N bool. Without positives or without negatives the curve is undefined, and is not drawn.
        ax: the axes to draw into; they are returned.
        label: of the curve.
    """
    scores, is_positive = check_scores(scores, is_positive)
    false_rates, true_rates = roc_curve(scores, is_positive)
    area = area_under_roc(scores, is_positive)
    (line,) = ax.plot(false_rates, true_rates, label=f"{label}, AUROC {area:.3f}".removeprefix(", "))
    if len(false_rates):
        is_above = scores > 0
        ax.plot(is_above[~is_positive].mean(), is_above[is_positive].mean(), "o", color=line.get_color())
    if not any(line.get_linestyle() == "--" for line in ax.lines):
        ax.plot((0, 1), (0, 1), "--", color="0.6", zorder=1)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="false positive rate", ylabel="true positive rate")
    ax.set_aspect("equal")
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right", fontsize=8)
    return ax


@validate_arguments
def plot_reliability(
    predictions: Sequence[Instances], ground_truths: Sequence[Instances], ax: Axes, num_bins: int = NUM_CALIBRATION_BINS
) -> Axes:
    """Plot a reliability diagram: the precision of each bin of scores, with the number of instances above the bar.

    On the diagonal, scores are calibrated. The title gives the calibration error of the same bins, which are those of `ECE`.

    Args:
        predictions, ground_truths: one result for each image. Predictions without scores are left out.
        ax: the axes to draw into; they are returned.
        num_bins: bins of equal width.
    """
    bins = reliability_bins(predictions, ground_truths, num_bins)
    precisions = np.nan_to_num(bins.precisions)
    ax.bar(bins.edges[:-1], precisions, width=1 / num_bins, align="edge", color="C0", edgecolor="white", alpha=0.85)
    ax.plot((0, 1), (0, 1), "--", color="0.4")
    for left, precision, count in zip(bins.edges[:-1], precisions, bins.counts, strict=True):
        if count:
            ax.text(left + 0.5 / num_bins, precision + 0.01, str(count), ha="center", va="bottom", fontsize=8)
    title = "reliability diagram" + (f", ECE {bins.calibration_error:.3f}" if bins.counts.any() else "")
    ax.set(xlim=(0, 1), ylim=(0, 1.08), xlabel="score", ylabel="precision", title=title)
    return ax
