"""Outlines of objects as COCO files state them: flat polygons, and masks as run lengths (RLE)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...exceptions import shorten
from ..rows import InvalidRow
from .boxes import is_finite

MAX_MASK_PIXELS = 2**28
"""Largest mask that is decoded. One byte per pixel is allocated."""


def read_segmentation(segmentation: Any, image_size: tuple[int, int] | None = None) -> tuple[np.ndarray, ...]:
    """Return the outlines of a segmentation, K x 2 pixels each; () if there are none.

    Args:
        segmentation: a list of flat polygons `[x0, y0, x1, y1, …]`, or a mask as run lengths, compressed or not.
        image_size: (width, height) of the image, which a mask must have; None if the file states none.

    Raises:
        InvalidRow: if it is malformed.
    """
    if isinstance(segmentation, dict):
        stated = segmentation.get("size")
        if image_size is not None and isinstance(stated, list) and stated != [*image_size[::-1]]:
            size = f"{image_size[1]} x {image_size[0]}"
            raise InvalidRow(
                "invalid polygon", f"run lengths of size {shorten(stated)} in an image of {size} (height x width)"
            )
        return trace_mask(decode_rle(segmentation))
    if not isinstance(segmentation, list | None):
        raise InvalidRow(
            "invalid polygon", f"expected a list of polygons or run lengths, but got {shorten(segmentation)}"
        )
    return tuple(_read_polygon(flat) for flat in segmentation or ())


def _read_polygon(flat: Any) -> np.ndarray:
    if not isinstance(flat, list) or not all(is_finite(value) for value in flat):
        raise InvalidRow(
            "invalid polygon", f"expected a flat list of numbers x0, y0, x1, y1, …, but got {shorten(flat)}"
        )
    if len(flat) % 2 or len(flat) < 6:
        raise InvalidRow(
            "invalid polygon",
            f"expected x and y of at least three vertices, but got {len(flat)} numbers: {shorten(flat)}",
        )
    return np.array(flat, float).reshape(-1, 2)


def decode_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """Return the H x W mask of run lengths `{"size": [H, W], "counts"}`, column by column, zeros first.

    pycocotools does not verify the counts: where they end early, its mask has the content of unused memory.

    Raises:
        InvalidRow: if the counts do not fit the size.
    """
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise InvalidRow("invalid polygon", f"run lengths have a size [height, width], not {shorten(size)}")
    height, width = size
    if height * width > MAX_MASK_PIXELS:
        raise InvalidRow("invalid polygon", f"run lengths of {height} x {width} pixels are too large")
    runs = _decompress_counts(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise InvalidRow("invalid polygon", f"run lengths have counts, a list or a text, not {shorten(counts)}")
    if sum(runs) != height * width:
        raise InvalidRow("invalid polygon", f"the run lengths add up to {sum(runs)}, not to {height} x {width} pixels")
    values = np.arange(len(runs), dtype=np.uint8) % 2
    return np.repeat(values, runs).reshape(width, height).T


def _decompress_counts(text: str) -> list[int]:
    """Return the run lengths of a compressed text: `rleFrString` of pycocotools.

    Each character has 5 bits of a number, the lowest first, and a bit that says whether more follow. From the fourth number
    on it is the difference to the last but one.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20 and shift < 64:  # no image has that many pixels
            continue
        if bits & 0x10:
            value |= -1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts


def trace_mask(mask: np.ndarray, tolerance: float = 1.0) -> tuple[np.ndarray, ...]:
    """Return the outlines of a mask without its holes, simplified to `tolerance` pixels.

    Args:
        mask: H x W.
        tolerance: largest distance in pixels that the Douglas-Peucker algorithm may move an outline.

    Returns:
        The outlines of the connected parts, K x 2 pixels each.
    """
    from skimage.measure import approximate_polygon, find_contours

    # a border of zeros closes the outlines at the edge of the image; a pixel's center lies at + 0.5
    contours = find_contours(np.pad(mask.astype(float), 1), 0.5, positive_orientation="high")
    outlines = [approximate_polygon(contour, tolerance)[:-1, ::-1] - 0.5 for contour in contours]
    return tuple(outline for outline in outlines if len(outline) >= 3 and _signed_area(outline) < 0)


def _signed_area(polygon: np.ndarray) -> float:
    """Return the area by the shoelace formula; its sign tells outlines from holes."""
    x, y = polygon.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
