"""Location tokens: pixels are quantized to 1,000 bins for each side of the image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

NUM_BINS = 1000
"""Number of location tokens, `<loc_0>` … `<loc_999>`: bins per side of the image (published code, `quantize`)."""

Region = Sequence[float]
"""A box of four numbers, in one of `REGION_FORMATS`."""

RegionFormat = Literal["xyxy", "xywh", "norm_1", "norm_1000"]

REGION_FORMATS: tuple[RegionFormat, ...] = get_args(RegionFormat)
"""Units of a region: (x0, y0, x1, y1) in pixels; (x0, y0, width, height) in pixels; (x0, y0, x1, y1) as fractions of the sides of
the image; the same in thousandths. `norm_1` and `norm_1000` are ms-swift's names."""

BOX_TOLERANCE = 1.0
"""Boxes may exceed the image by this many pixels, because of rounding. They are clipped."""

LOCATION_TOKENS = [f"<loc_{i}>" for i in range(NUM_BINS)]

LOCATION_RE = re.compile(r"<loc_(?:0|[1-9][0-9]{0,2})>")


def pixels_to_bins(coordinates: np.ndarray | Sequence, image_size: tuple[int, int]) -> np.ndarray:
    """Quantize pixel coordinates: `floor(x / side * 1000)`, clipped to 0..999, as the published `quantize` does.

    Args:
        coordinates: pixels, any shape whose last axis alternates x, y, x, y …
        image_size: (width, height).

    Returns:
        Integer bins of the same shape.
    """
    coordinates = np.asarray(coordinates, np.float64)
    sides = np.resize(np.asarray(image_size, np.float64), coordinates.shape[-1])
    return np.clip(np.floor(coordinates / sides * NUM_BINS), 0, NUM_BINS - 1).astype(int)


def bins_to_pixels(bins: np.ndarray | Sequence, image_size: tuple[int, int]) -> np.ndarray:
    """Dequantize bins to float64 pixels: bin n becomes its center, `(n + 0.5) / 1000 * side`.

    Args:
        bins: any shape whose last axis alternates x, y, x, y …
        image_size: (width, height).
    """
    bins = np.asarray(bins, np.float64)
    return (bins + 0.5) / NUM_BINS * np.resize(np.asarray(image_size, np.float64), bins.shape[-1])


def to_pixels(region: np.ndarray, region_format: RegionFormat, image_size: tuple[int, int]) -> np.ndarray:
    """Convert a region to (x0, y0, x1, y1) in pixels, float64.

    Args:
        region: four numbers.
        region_format: their units, one of `REGION_FORMATS`.
        image_size: (width, height).
    """
    region = np.asarray(region, np.float64)
    if region_format == "xywh":
        return np.concatenate([region[:2], region[:2] + region[2:]])
    units_per_side = {"xyxy": None, "norm_1": 1, "norm_1000": 1000}[region_format]
    return region if units_per_side is None else region / units_per_side * np.tile(image_size, 2)


def format_location_tokens(coordinates: np.ndarray | Sequence, image_size: tuple[int, int]) -> str:
    """Write pixel coordinates as location tokens, `"<loc_12><loc_34>…"`.

    Args:
        coordinates: pixels, any shape whose last axis alternates x, y, x, y …
        image_size: (width, height).
    """
    return "".join(LOCATION_TOKENS[n] for n in pixels_to_bins(coordinates, image_size).ravel())


def parse_location_tokens(text: str) -> np.ndarray:
    """Return the bins of all location tokens in a text, in their order: N integers in 0..999."""
    return np.array([int(token[5:-1]) for token in LOCATION_RE.findall(text)], int)
