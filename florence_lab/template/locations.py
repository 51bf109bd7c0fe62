"""TODO"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

NUM_BINS = 1000
"""Location tokens a side: the model sees every picture as a grid of 1,000 x 1,000."""

Region = Sequence[float]
"""(x0, y0, x1, y1) in pixels."""

_LOCATION_NAMES = [f"<loc_{i}>" for i in range(NUM_BINS)]

_LOCATION = re.compile(r"<loc_(?:0|[1-9][0-9]{0,2})>")

_REGION_TOKENS = re.compile(rf"(?:{_LOCATION.pattern}){{4}}")


def pixels_to_bins(coordinates: np.ndarray | Sequence, image_size: tuple[int, int]) -> np.ndarray:
    """Pixels -> location bins: `floor(x / side * 1000)`, kept within 0..999. The last axis runs x, y, x, y …

    (The published `quantize`.)
    """
    coordinates = np.asarray(coordinates, np.float64)
    sides = np.resize(np.asarray(image_size, np.float64), coordinates.shape[-1])
    return np.clip(np.floor(coordinates / sides * NUM_BINS), 0, NUM_BINS - 1).astype(int)


def bins_to_pixels(bins: np.ndarray | Sequence, image_size: tuple[int, int]) -> np.ndarray:
    """Location bins -> float64 pixels: bin n stands for its centre, `(n + 0.5) / 1000 * side`."""
    bins = np.asarray(bins, np.float64)
    return (bins + 0.5) / NUM_BINS * np.resize(np.asarray(image_size, np.float64), bins.shape[-1])


def format_location_tokens(coordinates: np.ndarray | Sequence, image_size: tuple[int, int]) -> str:
    """Pixels x, y, x, y … (any shape whose last axis does so) -> `"<loc_12><loc_34>…"`."""
    return "".join(f"<loc_{n}>" for n in pixels_to_bins(coordinates, image_size).ravel())
