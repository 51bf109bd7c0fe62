"""Functions on boxes and polygons. Coordinates are pixels; the center of the top left pixel is at (0.5, 0.5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .argument_validation import validate_value
from .exceptions import ArgumentError, ArgumentTypeError, shorten

Polygon = np.ndarray
"""K x 2 float64: the vertices (x, y) in order, in pixels. The first vertex is not repeated at the end."""


def box_corners(box: np.ndarray) -> Polygon:
    """Return the corners of a box (x0, y0, x1, y1), 4 x 2, clockwise from the top left."""
    x0, y0, x1, y1 = box
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def box_intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the M x N areas of intersection of M x 4 and N x 4 boxes (x0, y0, x1, y1)."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    sides = np.maximum(sides, 0)
    return sides[..., 0] * sides[..., 1]


def polygons_to_xyxy(polygons: Sequence[Polygon]) -> np.ndarray:
    """Return the bounding box (x0, y0, x1, y1) of one or more polygons."""
    vertices = np.concatenate(polygons)
    return np.concatenate([vertices.min(axis=0), vertices.max(axis=0)])


def polygon_area(polygon: Polygon) -> float:
    """Return the area of a polygon in square pixels, by the shoelace formula; its direction does not matter."""
    x, y = polygon.T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def polygons_to_mask(polygons: Sequence[Polygon], image_size: tuple[int, int]) -> np.ndarray:
    """Return the union of polygons as an H x W bool mask, True for pixels whose center lies inside a polygon.

    Polygons that share an edge share no pixel, and parts outside the image are ignored.

    Args:
        polygons: K x 2 vertices each. No polygon gives an empty mask.
        image_size: (width, height) of the image.
    """
    width, height = image_size
    mask = np.zeros((height, width), bool)
    for polygon in polygons:
        mask |= _rasterize(polygon, width, height)
    return mask


def to_coordinates(name: str, value: Any, item_shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of finite float64 of shape N x `item_shape`.

    Args:
        name: of the argument, for messages.
        value: what the caller passed. Anything empty has N = 0.
        item_shape: of one item, (4,) for boxes.

    Raises:
        ArgumentError: for anything else.
    """
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last one: tensors without data
        array = np.empty(())
    if not array.size and array.ndim:
        array = array.reshape(0, *item_shape)
    if not array.ndim or array.shape[1:] != item_shape:
        shape = " x ".join(map(str, ("N", *item_shape)))
        raise ArgumentTypeError(f"{name} must be an array of {shape} numbers, got {shorten(value)}")
    if not np.isfinite(array).all():
        raise ArgumentError(f"{name} must be finite numbers, got {shorten(value)}")
    return array


def to_polygons(name: str, value: Any) -> tuple[tuple[Polygon, ...], ...]:
    """Return the polygons of each instance as K x 2 float64 each, K at least 1.

    Raises:
        ArgumentError: for anything else.
    """
    instances = validate_value(name, value, tuple[tuple[object, ...], ...])
    polygons = tuple(tuple(to_coordinates(name, polygon, (2,)) for polygon in instance) for instance in instances)
    if not all(len(polygon) for instance in polygons for polygon in instance):
        raise ArgumentError(f"{name} must have at least one vertex each, got {shorten(value)}")
    return polygons


def _rasterize(polygon: Polygon, width: int, height: int) -> np.ndarray:
    """Fill one polygon by the even-odd rule, row by row.

    Pillow and `supervision.polygon_to_mask` round vertices to whole pixels and fill the border too, which makes a mask up
    to one pixel too large on each side; `skimage.draw.polygon2mask` is an order of magnitude slower.
    """
    crossings = np.zeros((height, width + 1), bool)  # True where a row, read from the left, crosses an edge
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        top, bottom = np.clip(np.ceil(np.sort([y0, y1]) - 0.5), 0, height).astype(int)
        if top < bottom:
            rows = np.arange(top, bottom)
            x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            crossings[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(int)] ^= True
    return np.logical_xor.accumulate(crossings, axis=1)[:, :-1]
