"""Labels of instances, placed where they overlap neither each other nor, if possible, other instances."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text as TextArtist

from ..geometry import box_intersections
from .figures import axes_extent, label_font_size
from .instances import DrawableInstance
from .style import POINTS_PER_INCH, contrast_outline, elide, font_properties, text_color_on, text_size

_LABEL_PADDING = 0.22  # between the text and the edge of its background, in font sizes
_RELOCATION_COST = 0.6  # of a position that is not one of the default positions, see `_placement_costs`
_MESSAGE_COLOR = "#e8e8e8"


def draw_labels(ax: Axes, instances: Sequence[DrawableInstance], font_size: float) -> None:
    """Draw label and score of each instance on a background of its color. Labels larger than the Axes are left out.

    Args:
        ax: Axes in the coordinates of the image.
        instances: one or more instances.
        font_size: in points.
    """
    extent = axes_extent(ax)
    outlines = [ax.transData.transform(np.concatenate(instance.outlines)) for instance in instances]
    boxes = np.array([np.concatenate([points.min(axis=0), points.max(axis=0)]) for points in outlines])
    em = font_size * ax.figure.dpi / POINTS_PER_INCH
    default_width = min(0.6 * (extent[2] - extent[0]), (16 if len(instances) > 20 else 26) * em)
    placed = np.zeros((0, 4))
    # small instances first: the label of a large one has more positions to choose from
    for i in np.argsort(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), kind="stable"):
        max_width = np.clip(boxes[i, 2] - boxes[i, 0] - em, default_width, extent[2] - extent[0] - em)
        text = _label_text(ax, instances[i], font_size, max_width)
        size = text_size(ax.figure, text, font_size) + 2 * _LABEL_PADDING * em
        if text and (size <= extent[2:] - extent[:2]).all():
            own_last = np.vstack([np.delete(boxes, i, axis=0), boxes[i]])
            position = _place_label(outlines[i], size, extent, placed, own_last)
            placed = np.vstack([placed, position])
            _draw_label_box(ax, text, position, boxes[i], instances[i].color, font_size)


def draw_message(ax: Axes, text: str) -> None:
    """Draw a message about the result as a whole in the top left corner."""
    extent, font_size = axes_extent(ax), label_font_size(ax, 1)
    em = font_size * ax.figure.dpi / POINTS_PER_INCH
    width, height = text_size(ax.figure, text, font_size) + 2 * _LABEL_PADDING * em
    x, y = extent[0] + min(em / 2, 4), extent[3] - height - min(em / 2, 4)
    position = np.array([x, y, x + width, y + height])
    _draw_label_box(ax, text, position, position, _MESSAGE_COLOR, font_size)


def _label_text(ax: Axes, instance: DrawableInstance, font_size: float, max_width: float) -> str:
    """Return the label, shortened to `max_width` pixels, and the score, which is left out where space is scarce."""
    score = "" if instance.score is None else f"{instance.score:.2f}"
    score_width = text_size(ax.figure, f" {score}", font_size)[0] if score else 0
    if instance.label and score_width > max_width / 2:
        score, score_width = "", 0
    return f"{elide(ax.figure, instance.label, font_size, max_width - score_width)} {score}".strip()


def _place_label(
    points: np.ndarray, size: np.ndarray, extent: np.ndarray, placed: np.ndarray, boxes: np.ndarray
) -> np.ndarray:
    """Return the position (x0, y0, x1, y1) of a label with the lowest cost, in pixels of the figure, y upwards.

    Args:
        points: K x 2, the outline of the instance.
        size: (width, height) of the label.
        extent: (x0, y0, x1, y1) of the Axes, which the label does not leave.
        placed: P x 4, the labels that have been placed already.
        boxes: N x 4, the bounding boxes of all instances, this one's last.
    """
    defaults = _default_positions(points, boxes[-1], size)
    axes = (np.arange(extent[i], extent[i + 2], size[1]) for i in (0, 1))
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    # the grid over the whole Axes is searched only if all default positions are bad
    candidate_sets = ((defaults, 0.06 * np.arange(len(defaults))), (grid, np.full(len(grid), _RELOCATION_COST)))
    best, lowest = np.zeros(4), math.inf
    for corners, prior_costs in candidate_sets:
        if lowest > _RELOCATION_COST:
            corners = np.clip(corners, extent[:2], np.maximum(extent[2:] - size, extent[:2]))
            positions = np.concatenate([corners, corners + size], axis=1)
            costs = prior_costs + _placement_costs(positions, defaults[0], placed, boxes)
            if costs.min() < lowest:
                best, lowest = positions[np.argmin(costs)], costs.min()
    return best


def _placement_costs(positions: np.ndarray, preferred: np.ndarray, placed: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the costs of M x 4 positions of one label.

    In order of weight: overlap with a label, overlap with the boxes of instances, distance to the label's own box (the last
    of `boxes`), distance of the lower left corner to the `preferred` one. Distances are in heights of the label.
    """
    width, height = positions[0, 2:] - positions[0, :2]
    own = boxes[-1]
    label_overlap = box_intersections(positions, placed + np.array([-1, -1, 1, 1])).sum(axis=1) / (width * height)
    areas = np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1)
    hidden = np.minimum(box_intersections(positions, boxes) / areas, 1).sum(axis=1)
    gaps = np.maximum(0, np.maximum(own[:2] - positions[:, 2:], positions[:, :2] - own[2:]))
    distance = np.hypot(*gaps.T) / height
    from_preferred = np.hypot(*(positions[:, :2] - preferred).T) / height
    return 100 * (label_overlap > 1e-9) + 100 * label_overlap + 2 * hidden + 0.3 * distance + 0.05 * from_preferred


def _default_positions(points: np.ndarray, box: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return M x 2 lower left corners of a label at the corners of its box, the most common position first."""
    (x0, y0, x1, y1), (width, height) = box, size
    gap = 0.12 * height
    # above the highest points: the left end of the upper edge of a box, or the single peak of a circle or a rotated quad
    peak = points[points[:, 1] >= y1 - max(0.05 * (y1 - y0), 0.3 * height), 0]
    left = peak.min() if np.ptp(peak) > 0.5 * (x1 - x0) else peak.mean() - width / 2
    return np.array(
        [
            (left, y1 + gap),  # above
            (left + gap, y1 - height - gap),  # inside, at the top
            (x0, y0 - height - gap),  # below
            (x1 - width, y1 + gap),
            (x1 - width - gap, y1 - height - gap),
            (x1 - width, y0 - height - gap),
            (x0 + gap, y0 + gap),  # inside, at the bottom
            (x1 - width - gap, y0 + gap),
            (x1 + gap, y1 - height),  # beside
            (x0 - width - gap, y1 - height),
        ]
    )


def _draw_label_box(
    ax: Axes, text: str, position: np.ndarray, box: np.ndarray, color: str, font_size: float
) -> TextArtist:
    """Draw text on a colored background, anchored at the nearest point of `box`; both in pixels of the figure.

    A line connects a label with its box if they are far apart.
    """
    to_points = POINTS_PER_INCH / ax.figure.dpi
    anchor = np.clip(position[:2], box[:2], box[2:])
    is_far = np.maximum(position[:2] - box[2:], box[:2] - position[2:]).max() > 0.6 * (position[3] - position[1])
    x, y = ax.transData.inverted().transform(anchor)
    line = {"arrowstyle": "-", "color": color, "linewidth": 1, "path_effects": contrast_outline(color, 1)}
    background = {
        "boxstyle": f"round,pad={_LABEL_PADDING},rounding_size=0.2",
        "facecolor": color,
        "edgecolor": "none",
        "alpha": 0.92,
    }
    return ax.annotate(
        text,
        xy=(x, y),
        xytext=(position[:2] - anchor) * to_points + _LABEL_PADDING * font_size,
        textcoords="offset points",
        annotation_clip=False,
        arrowprops=line if is_far else None,
        bbox=background,
        color=text_color_on(color),
        zorder=4,
        **font_properties(font_size),
    )
