"""TODO"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text as TextArtist

from ..geometry import box_intersections
from .figures import _frame, _label_size
from .style import _POINTS, _elided, _halo, _ink_on, _text_size, font_properties

if TYPE_CHECKING:
    from .instances import _Item

_CHIP_PAD = 0.22  # between a chip's text and its edge, in font sizes

_MOVED = 0.6  # cost of a label that stands at none of its box's corners, see `_costs`


def _draw_labels(ax: Axes, items: Sequence[_Item], font_size: float) -> None:
    """A chip for every instance that has something to say, each where it hides least."""
    frame = _frame(ax)
    shapes = [ax.transData.transform(np.concatenate(item.outlines)) for item in items]
    boxes = np.array([np.concatenate([shape.min(axis=0), shape.max(axis=0)]) for shape in shapes])
    em = font_size * ax.figure.dpi / _POINTS
    widest = min(0.6 * (frame[2] - frame[0]), (16 if len(items) > 20 else 26) * em)
    placed = np.zeros((0, 4))
    # small ones choose first: a label of a large box has more places to go to
    for i in np.argsort(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), kind="stable"):
        room = np.clip(boxes[i, 2] - boxes[i, 0] - em, widest, frame[2] - frame[0] - em)
        text = _label(ax, items[i], font_size, room)
        size = _text_size(ax.figure, text, font_size) + 2 * _CHIP_PAD * em
        if text and (size <= frame[2:] - frame[:2]).all():
            place = _best_place(shapes[i], size, frame, placed, np.vstack([np.delete(boxes, i, axis=0), boxes[i]]))
            placed = np.vstack([placed, place])
            _draw_chip(ax, text, place, boxes[i], items[i].colour, font_size)


def _label(ax: Axes, item: _Item, font_size: float, widest: float) -> str:
    score = "" if item.score is None else f"{item.score:.2f}"
    taken = _text_size(ax.figure, f" {score}", font_size)[0] if score else 0
    if item.name and taken > widest / 2:
        score, taken = "", 0  # where there is little room the name says more
    return f"{_elided(ax.figure, item.name, font_size, widest - taken)} {score}".strip()


def _best_place(
    shape: np.ndarray, size: np.ndarray, frame: np.ndarray, placed: np.ndarray, boxes: np.ndarray
) -> np.ndarray:
    """Where in the frame a label of this (width, height) goes best: (x0, y0, x1, y1). All in pixels, y upwards.

    Args:
        shape: K x 2, the points of the instance.
        size: (width, height) of the label.
        frame: (x0, y0, x1, y1) of the picture.
        placed: P x 4, the labels that already stand.
        boxes: N x 4, the boxes around all instances, this one's last.
    """
    natural = _natural_places(shape, boxes[-1], size)
    grid = np.stack(np.meshgrid(*(np.arange(frame[i], frame[i + 2], size[1]) for i in (0, 1))), axis=-1).reshape(-1, 2)
    # the natural places in the order of habit; and where all of them are bad, anything in the frame
    habits = ((natural, 0.06 * np.arange(len(natural))), (grid, np.full(len(grid), _MOVED)))
    best, lowest = np.zeros(4), math.inf
    for corners, habit in habits:
        if lowest > _MOVED:
            corners = np.clip(corners, frame[:2], np.maximum(frame[2:] - size, frame[:2]))
            places = np.concatenate([corners, corners + size], axis=1)
            costs = habit + _costs(places, natural[0], placed, boxes)
            if costs.min() < lowest:
                best, lowest = places[np.argmin(costs)], costs.min()
    return best


def _costs(places: np.ndarray, ideal: np.ndarray, placed: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """M costs of M x 4 places. Worst is to lie on a label, then to hide what a box shows, then to be far from one's own."""
    width, height = places[0, 2:] - places[0, :2]
    own = boxes[-1]
    on_labels = box_intersections(places, placed + np.array([-1, -1, 1, 1])).sum(axis=1) / (width * height)
    areas = np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1)
    hidden = np.minimum(box_intersections(places, boxes) / areas, 1).sum(axis=1)
    away = np.hypot(*np.maximum(0, np.maximum(own[:2] - places[:, 2:], places[:, :2] - own[2:])).T) / height
    from_ideal = np.hypot(*(places[:, :2] - ideal).T) / height
    return 100 * (on_labels > 1e-9) + 100 * on_labels + 2 * hidden + 0.3 * away + 0.05 * from_ideal


def _natural_places(shape: np.ndarray, box: np.ndarray, size: np.ndarray) -> np.ndarray:
    """M x 2, the lower left corners of a label at the corners of its box, the most usual first."""
    (x0, y0, x1, y1), (width, height) = box, size
    gap = 0.12 * height
    # above what reaches highest: a box begins there at its left, a circle or a tilted quad has one peak
    peak = shape[shape[:, 1] >= y1 - max(0.05 * (y1 - y0), 0.3 * height), 0]
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


def _draw_chip(ax: Axes, text: str, place: np.ndarray, box: np.ndarray, colour: str, font_size: float) -> TextArtist:
    """Text on a coloured ground at `place`, tied to the nearest point of `box`; both in pixels of the figure.

    A label that had to move away gets a line to its box.
    """
    to_points = _POINTS / ax.figure.dpi
    anchor = np.clip(place[:2], box[:2], box[2:])
    far = np.maximum(place[:2] - box[2:], box[:2] - place[2:]).max() > 0.6 * (place[3] - place[1])
    corner = (place[:2] - anchor) * to_points + _CHIP_PAD * font_size
    return ax.annotate(
        text,
        xy=ax.transData.inverted().transform(anchor),
        xytext=corner,
        textcoords="offset points",
        annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 1, "path_effects": _halo(colour, 1)}
        if far
        else None,
        bbox={
            "boxstyle": f"round,pad={_CHIP_PAD},rounding_size=0.2",
            "facecolor": colour,
            "edgecolor": "none",
            "alpha": 0.92,
        },
        color=_ink_on(colour),
        zorder=4,
        **font_properties(font_size),
    )


def _draw_note(ax: Axes, text: str) -> None:
    """A remark about the answer as a whole, in the top left corner."""
    frame, size = _frame(ax), _label_size(ax, 1)
    em = size * ax.figure.dpi / _POINTS
    width, height = _text_size(ax.figure, text, size) + 2 * _CHIP_PAD * em
    x, y = frame[0] + min(em / 2, 4), frame[3] - height - min(em / 2, 4)
    place = np.array([x, y, x + width, y + height])
    _draw_chip(ax, text, place, place, "#e8e8e8", size)
