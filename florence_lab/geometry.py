"""TODO"""

from __future__ import annotations

import numpy as np

Polygon = np.ndarray
"""K x 2 float64: the vertices (x, y) of one outline, in order, not repeated at the end."""


def polygons_to_xyxy(outlines: tuple[Polygon, ...]) -> np.ndarray:
    """The upright box (x0, y0, x1, y1) around the outlines of one instance."""
    points = np.concatenate(outlines)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def polygon_area(polygon: Polygon) -> float:
    """Square pixels inside one outline (the shoelace formula)."""
    x, y = polygon.T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def polygons_to_mask(outlines: tuple[Polygon, ...], image_size: tuple[int, int]) -> np.ndarray:
    """The union of outlines (K x 2, pixels) as an H x W bool mask for an image of (width, height)."""
    width, height = image_size
    mask = np.zeros((height, width), bool)
    for polygon in outlines:
        mask |= _inside(polygon, width, height)
    return mask


def _inside(polygon: Polygon, width: int, height: int) -> np.ndarray:
    """H x W bool: the pixels whose centre lies within one outline (the even-odd rule, row by row).

    Not Pillow's `polygon`, which cuts vertices down to whole pixels and fills the border too: up to a pixel too much all
    around.
    """
    flips = np.zeros((height, width + 1), bool)  # where a row, read from the left, passes an edge
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        top, bottom = np.clip(np.ceil(np.sort([y0, y1]) - 0.5), 0, height).astype(int)
        if top < bottom:
            rows = np.arange(top, bottom)
            x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            flips[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(int)] ^= True
    return np.logical_xor.accumulate(flips, axis=1)[:, :-1]


def box_corners(box: np.ndarray) -> np.ndarray:
    """xyxy -> 4 x 2, clockwise from the top left."""
    x0, y0, x1, y1 = box
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def box_intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """M x 4 and N x 4 boxes -> M x N, the areas that they share."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    sides = np.maximum(sides, 0)
    return sides[..., 0] * sides[..., 1]
