"""Convert masks to polygons with few vertices, in a canonical order that a model can learn."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

MAX_VERTICES = 24
"""Vertices of all polygons of an object together."""

MIN_PART_AREA = 0.04
"""Parts smaller than this fraction of the visible area get no polygon."""

TOLERANCE = 0.012
"""Largest deviation of a polygon, as a fraction of the longer side of the mask."""


def mask_to_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Return simplified outlines of the connected parts of a mask, the largest part first.

    Holes are omitted, since Florence-2's polygons have none.

    Args:
        mask: H x W bool, with at least one pixel set.

    Returns:
        N x 2 float arrays, (x, y) in pixels from the top left corner of the mask, clockwise on the screen from the topmost
        (then leftmost) vertex.
    """
    return simplify_contours(_outer_contours(mask), MAX_VERTICES, TOLERANCE * max(mask.shape))


def simplify_contours(contours: Sequence[np.ndarray], max_vertices: int, tolerance: float) -> list[np.ndarray]:
    """Simplify closed contours by the algorithm of Douglas and Peucker, with a common budget of vertices.

    The vertex with the largest deviation is added first, whichever contour it belongs to.

    Args:
        contours: N x 2, the first point repeated at the end.
        max_vertices: vertices of all contours together. Each contour keeps at least three.
        tolerance: largest deviation, in the units of the points.
    """
    kept: list[set[int]] = [set() for _ in contours]
    # (-deviation, contour, first index, index of the vertex, last index)
    queue: list[tuple[float, int, int, int, int]] = []

    def consider(contour: int, start: int, end: int) -> None:
        if end - start > 1:
            vertex, distance = _farthest_vertex(contours[contour], start, end)
            heapq.heappush(queue, (-distance, contour, start, vertex, end))

    def keep(contour: int, start: int, vertex: int, end: int) -> None:
        kept[contour].add(vertex)
        consider(contour, start, vertex)
        consider(contour, vertex, end)

    for i, points in enumerate(contours):
        # three vertices of each contour: its start, the point farthest from it, and the one farthest from that line
        kept[i].add(0)
        keep(i, 0, int(((points - points[0]) ** 2).sum(axis=1).argmax()), len(points) - 1)
        distance, _, start, vertex, end = min(entry for entry in queue if entry[1] == i)
        queue.remove((distance, i, start, vertex, end))
        heapq.heapify(queue)
        keep(i, start, vertex, end)
    while queue and sum(map(len, kept)) < max_vertices:
        distance, i, start, vertex, end = heapq.heappop(queue)
        if -distance < tolerance:
            break
        keep(i, start, vertex, end)
    return [points[sorted(indices)] for points, indices in zip(contours, kept, strict=True)]


def _farthest_vertex(points: np.ndarray, start: int, end: int) -> tuple[int, float]:
    """Return the index of the vertex between start and end farthest from the line through these two, and its distance."""
    chord, between = points[end] - points[start], points[start + 1 : end] - points[start]
    length = float(np.hypot(*chord))
    if length == 0:
        distances = np.hypot(between[:, 0], between[:, 1])
    else:
        distances = np.abs(between[:, 0] * chord[1] - between[:, 1] * chord[0]) / length
    farthest = int(distances.argmax())
    return start + 1 + farthest, float(distances[farthest])


def _outer_contours(mask: np.ndarray) -> list[np.ndarray]:
    """Return the outer contours of a mask as closed N x 2 (x, y) arrays, without small parts, the largest first."""
    from skimage.measure import find_contours

    padded = np.pad(mask.astype(np.float32), 1)
    # find_contours returns (row, column) of pixel centers; pixel (0, 0) covers 0..1, and the padding adds 1
    closed = [contour[:, ::-1] - 0.5 for contour in find_contours(padded, 0.5)]
    sized = [(_signed_area(points), points) for points in closed]
    # holes run in the opposite direction
    outer_sign = np.sign(max(sized, key=lambda entry: abs(entry[0]))[0])
    outer = [(abs(area), points) for area, points in sized if area * outer_sign > 0]
    min_area = MIN_PART_AREA * sum(area for area, _ in outer)
    kept = sorted((entry for entry in outer if entry[0] >= min_area), key=lambda entry: -entry[0])
    return [_canonical_order(points) for _, points in kept[: MAX_VERTICES // 4]]


def _canonical_order(closed: np.ndarray) -> np.ndarray:
    """Return the closed contour clockwise on the screen, starting at its topmost, then leftmost vertex."""
    points = closed[:-1] if _signed_area(closed) > 0 else closed[-2::-1]
    start = int(np.lexsort((points[:, 0], points[:, 1]))[0])
    points = np.roll(points, -start, axis=0)
    return np.concatenate([points, points[:1]])


def _signed_area(closed: np.ndarray) -> float:
    """Return the area of a closed contour, positive if it is clockwise on the screen (y downwards)."""
    x, y = closed[:, 0], closed[:, 1]
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)
