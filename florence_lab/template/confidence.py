"""The confidence of an instance, computed from the probabilities of its tokens."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .locations import NUM_BINS

LOCATION_TOLERANCE = 0.25
"""Tolerance of `instance_score`: how far a coordinate may be off, as a fraction of the instance's width or height.

If two opposite sides of a box move inwards by that much, the intersection over union is 1 - 2 * 0.25 = 0.5. The score is
therefore about detections at IoU 0.5. On 956 detections of florence-2-nano in held-out scenes, the expected calibration
error was 0.075, against 0.106 for a tolerance of 0.15. A larger tolerance gains little.
"""


class TokenProbabilities(NamedTuple):
    """The model's probabilities of T generated tokens, before any processing of the logits.

    Attributes:
        generated: T floats in 0..1, the probability of the generated token.
        locations: T x 1000 floats in 0..1, the probability of each location token at that position.
    """

    generated: np.ndarray
    locations: np.ndarray


def instance_score(label_probabilities: np.ndarray, location_probabilities: np.ndarray, bins: np.ndarray) -> float:
    """Return the confidence of an instance, 0..1.

        score = prod(p(label token)) * prod(m_1 … m_n) ** (4 / n)

    `m_i` is the probability mass of all location tokens within `LOCATION_TOLERANCE` of the i-th generated coordinate. The
    tolerance is relative to the width of the instance for an x, to its height for a y. A single bin out of 1,000 has a low
    probability even if the model locates the instance to a few pixels; the mass of its neighborhood is the probability
    that the box is right at IoU 0.5. The exponent gives the n coordinates of a quad box or polygon the weight of the four
    coordinates of a box. The label of several boxes counts for each of them. The formula is florence_lab's own: the
    published code returns no confidence.

    Args:
        label_probabilities: probabilities of the label's tokens; empty if there is no label.
        location_probabilities: n x 1000, the probability of each location token at each coordinate.
        bins: n generated bins, x, y, x, y …
    """
    points = np.asarray(bins).reshape(-1, 2)
    tolerance = np.maximum(1, LOCATION_TOLERANCE * (points.max(axis=0) - points.min(axis=0)))
    within_tolerance = np.abs(np.arange(NUM_BINS) - points[..., None]) <= tolerance[:, None]
    mass = (np.asarray(location_probabilities, np.float64) * within_tolerance.reshape(-1, NUM_BINS)).sum(axis=1)
    with np.errstate(divide="ignore"):  # log(0): the model excludes this location
        location_score = np.exp(4 * np.log(mass).mean())  # the product itself underflows for long polygons
    score = np.prod(label_probabilities, dtype=np.float64) * location_score
    return float(np.clip(score, 0, 1))
