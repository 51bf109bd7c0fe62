"""The instances of a result as they are drawn: label, outlines, color and line style."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..geometry import Polygon, box_corners
from ..results import Boxes, Instances, Quads, Result
from ..template.locations import bins_to_pixels, parse_location_tokens
from .style import color_and_line_style, printable


class DrawableInstance(NamedTuple):
    """An instance with its style.

    Attributes:
        label: the text to be drawn; empty if there is none.
        outlines: one or more outlines, K x 2 pixels of the image each.
        color: the color of outlines and label.
        line_style: a matplotlib line style.
        is_filled: True for segmentations; boxes and quad boxes are not filled.
        score: the confidence in 0..1; None if it is unknown.
    """

    label: str
    outlines: tuple[Polygon, ...]
    color: str
    line_style: Any
    is_filled: bool
    score: float | None


def drawable_instances(result: Instances) -> list[DrawableInstance]:
    """Return the instances of a result: equal labels share color and line style, unlabelled instances all differ.

    The style of an instance with a class id is that of the id, which is the same in all images.
    """
    labels = [printable(name) for name in result.class_names.tolist()]
    keys = [label or i for i, label in enumerate(labels)]
    index_of_key = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    style_indices = [index_of_key[key] for key in keys]
    if isinstance(result, Boxes) and result.class_ids is not None:
        style_indices = result.class_ids.tolist()
    scores = [None] * len(labels) if result.scores is None else result.scores.tolist()
    return [
        DrawableInstance(
            label,
            contours or (box_corners(box),),
            *color_and_line_style(style_index),
            bool(contours) and not isinstance(result, Quads),
            score,
        )
        for label, contours, box, style_index, score in zip(
            labels, result.contours, result.xyxy, style_indices, scores, strict=True
        )
    ]


def region_boxes(result: Result) -> np.ndarray:
    """Return the region in the prompt of a result as an N x 4 array (x0, y0, x1, y1) in pixels; N is 0 without one."""
    return bins_to_pixels(parse_location_tokens(result.phrase), result.image_size).reshape(-1, 4)
