"""From masks to polygons of few vertices, always written the same way, so that a model can learn it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

MOST_VERTICES = 24  # of all polygons of an object together
LEAST_PART = 0.04  # of an object's visible area: smaller splinters get no polygon
TOLERANCE = 0.012  # of the object's longer side: nothing finer is traced


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Simplified outlines of a mask's parts, largest part first.

    Args:
        mask: H x W bool.

    Returns:
        A list of N x 2 float arrays, (x, y) in pixels from the mask's corner, clockwise on the screen from
        the topmost (then leftmost) vertex. Holes are left out, as Florence-2's polygons have none.
    """
    return simplified(_parts(mask), MOST_VERTICES, TOLERANCE * max(mask.shape))


def simplified(parts: Sequence[np.ndarray], most: int, tolerance: float) -> list[np.ndarray]:
    """Douglas and Peucker's vertices, the most telling first, until `most` are spent or all is near enough.

    Args:
        parts: closed outlines, N x 2 with the first point repeated at the end.
        most: vertices for all parts together.
        tolerance: distance in the units of the points.
    """
    kept: list[set[int]] = [set() for _ in parts]
    # (-distance, part, from, vertex, to)
    queue: list[tuple[float, int, int, int, int]] = []

    def consider(part: int, start: int, end: int) -> None:
        if end - start > 1:
            vertex, distance = _farthest(parts[part], start, end)
            heapq.heappush(queue, (-distance, part, start, vertex, end))

    def keep(part: int, start: int, vertex: int, end: int) -> None:
        kept[part].add(vertex)
        consider(part, start, vertex)
        consider(part, vertex, end)

    for part, points in enumerate(parts):
        # three vertices of every part: its start, the point farthest from that, the one farthest off that line
        kept[part].add(0)
        keep(part, 0, int(((points - points[0]) ** 2).sum(axis=1).argmax()), len(points) - 1)
        distance, _, start, vertex, end = min(entry for entry in queue if entry[1] == part)
        queue.remove((distance, part, start, vertex, end))
        heapq.heapify(queue)
        keep(part, start, vertex, end)
    while queue and sum(map(len, kept)) < most:
        distance, part, start, vertex, end = heapq.heappop(queue)
        if -distance < tolerance:
            break
        keep(part, start, vertex, end)
    return [points[sorted(indices)] for points, indices in zip(parts, kept, strict=True)]


def _farthest(points: np.ndarray, start: int, end: int) -> tuple[int, float]:
    """The point between start and end farthest from the straight line joining these, and how far that is."""
    chord, between = points[end] - points[start], points[start + 1 : end] - points[start]
    length = float(np.hypot(*chord))
    if length == 0:
        distances = np.hypot(between[:, 0], between[:, 1])
    else:
        distances = np.abs(between[:, 0] * chord[1] - between[:, 1] * chord[0]) / length
    best = int(distances.argmax())
    return start + 1 + best, float(distances[best])


def _parts(mask: np.ndarray) -> list[np.ndarray]:
    """Outer outlines of a mask's parts as closed N x 2 (x, y) arrays, splinters left out, largest first."""
    from skimage.measure import find_contours

    padded = np.pad(mask.astype(np.float32), 1)
    # find_contours speaks of pixel centres (row, column); pixel (0, 0) covers 0..1, and the pad adds 1
    closed = [contour[:, ::-1] - 0.5 for contour in find_contours(padded, 0.5)]
    sized = [(_signed_area(points), points) for points in closed]
    outer_sign = np.sign(max(sized, key=lambda entry: abs(entry[0]))[0])
    outer = [(abs(area), points) for area, points in sized if area * outer_sign > 0]
    least = LEAST_PART * sum(area for area, _ in outer)
    kept = sorted((entry for entry in outer if entry[0] >= least), key=lambda entry: -entry[0])
    return [_in_order(points) for _, points in kept[: MOST_VERTICES // 4]]


def _in_order(closed: np.ndarray) -> np.ndarray:
    """The same closed outline, clockwise on the screen, begun at its topmost, then leftmost vertex."""
    points = closed[:-1] if _signed_area(closed) > 0 else closed[-2::-1]
    start = np.lexsort((points[:, 0], points[:, 1]))[0]
    points = np.roll(points, -start, axis=0)
    return np.concatenate([points, points[:1]])


def _signed_area(closed: np.ndarray) -> float:
    """Positive for clockwise on a screen (y down)."""
    x, y = closed[:, 0], closed[:, 1]
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)
