"""TODO"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .metrics import confidences

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .metrics import Answers


def plot_precision_recall(answers: Answers, truths: Answers, ax: Axes) -> None:
    """Precision over recall at an IoU of 0.5 as the least confidence goes from 1 to 0, labels counted."""
    scores, right = confidences(answers, truths)
    hits = np.cumsum(right[np.argsort(-scores, kind="stable")])
    said = np.arange(1, len(hits) + 1)
    ax.step(hits / max(1, sum(map(len, truths))), hits / said, where="post", color="C0")
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title="precision over recall")
    ax.grid(alpha=0.3)


def plot_reliability(answers: Answers, truths: Answers, ax: Axes, bins: int = 10) -> None:
    """The share that is right over confidence; on the diagonal, confidence can be taken at its word."""
    scores, right = confidences(answers, truths)
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.digitize(scores, edges) - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    shares = np.bincount(which, weights=right, minlength=bins) / np.maximum(1, counts)
    ax.bar(edges[:-1], shares, width=1 / bins, align="edge", color="C0", edgecolor="white", alpha=0.85)
    ax.plot((0, 1), (0, 1), "--", color="0.4")
    for left, share, count in zip(edges, shares, counts, strict=False):
        if count:
            ax.text(left + 0.5 / bins, share + 0.01, str(count), ha="center", va="bottom", fontsize=8)
    ax.set(xlim=(0, 1), ylim=(0, 1.08), xlabel="confidence", ylabel="share that is right", title="calibration")
