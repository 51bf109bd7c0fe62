"""Annotated objects of a row: labels, boxes and polygons become instances of a target."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from ..argument_validation import validate_text
from ..exceptions import ArgumentError, shorten
from ..tasks import Task
from ..template.grammar import check_tokens, requires_label
from ..template.locations import BOX_TOLERANCE, NUM_BINS
from ..template.targets import Instance
from .rows import Annotation, BoxUnit, ClassNames, InvalidRow, class_name

BOX_UNITS: dict[str, int | None] = {"real": None, "norm_1000": NUM_BINS, "norm_1": 1}
"""`BoxUnit` -> what the sides of the image measure in it; None for pixels."""

# all but tab and the ends of lines
_CONTROL_RE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def check_text(name: str, value: Any) -> str:
    """Return a value that must be text which the tokenizer can encode.

    Args:
        name: what it is, for the message: "query", "label" …
        value: the value.

    Raises:
        InvalidRow: if it is not text, or contains half a character (a lone surrogate) or a control character.
    """
    if not isinstance(value, str):
        raise InvalidRow(f"invalid {name}", f"expected text, but got {shorten(value)}")
    try:
        validate_text(name, value)
    except ArgumentError as error:
        raise InvalidRow(f"invalid {name}", str(error)) from None
    if control := _CONTROL_RE.search(value):
        detail = f"the control character {control.group()!r} in {shorten(value)}; is the file in another encoding?"
        raise InvalidRow(f"invalid {name}", detail)
    return value


def parse_object(item: Any, image_size: tuple[int, int], class_names: ClassNames | None = None) -> list[Instance]:
    """Return an instance for each box of an object of ms-swift: `{"caption", "bbox", "bbox_type", "image"}`.

    Args:
        item: the object.
        image_size: (width, height) in pixels.
        class_names: the names behind captions that are numbers.

    Raises:
        InvalidRow: for a missing caption, an unknown unit, a malformed box, and a box that is not in the image.
    """
    if not isinstance(item, Mapping):
        raise InvalidRow("invalid objects", f"expected an object with caption and bbox, but got {shorten(item)}")
    caption = item.get("caption")
    label = "" if caption is None else check_label(caption, class_names)
    if not label:
        raise InvalidRow("object without a caption", shorten(item))
    if item.get("image", 0) not in (0, None):
        detail = f"an object refers to image {shorten(item['image'])}, but a row has one image"
        raise InvalidRow("more than one image", detail)
    unit = item.get("bbox_type", "real")
    if not isinstance(unit, str) or unit not in BOX_UNITS:
        raise InvalidRow("unknown bbox_type", f"{shorten(unit)}; expected {', '.join(BOX_UNITS)}")
    return [Instance(label, box) for box in parse_boxes(item.get("bbox"), unit, image_size)]


def parse_boxes(value: Any, unit: str, image_size: tuple[int, int]) -> list[np.ndarray]:
    """Return one box `[x0, y0, x1, y1]`, or a list of boxes, in pixels and clipped to the image. There is at least one.

    Args:
        value: what the file has in their place.
        unit: a key of `BOX_UNITS`.
        image_size: (width, height) in pixels.

    Raises:
        InvalidRow: for anything that is no box, and for boxes that are not in the image.
    """
    values = value.tolist() if isinstance(value, np.ndarray) else value
    rows = values if isinstance(values, Sequence) and values and _is_list(values[0]) else [values]
    if not all(_is_list(row) and len(row) == 4 and all(map(_is_finite, row)) for row in rows):
        raise InvalidRow("invalid box", f"{shorten(value)}; expected four finite numbers x0, y0, x1, y1")
    scale = np.tile(_unit_scale(unit, image_size), 2)
    return [validate_box(np.array(row, float) * scale, image_size) for row in rows]


def _unit_scale(unit: str, image_size: tuple[int, int]) -> np.ndarray:
    """Return the pixels, x and y, of one unit."""
    measure = BOX_UNITS[unit]
    return np.ones(2) if measure is None else np.array(image_size, float) / measure


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, np.ndarray))


def _is_finite(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # an integer beyond the floats
        return False


def check_label(label: Any, class_names: ClassNames | None) -> str:
    """Return the label of an object, without surrounding blanks. A number becomes the name of its class.

    Raises:
        InvalidRow: for a number without a name, and for a label that is no text of the answer grammar.
    """
    text = check_text("label", class_name(label, class_names)).strip()
    try:
        check_tokens(text)
    except ArgumentError as error:
        raise InvalidRow("invalid label", str(error)) from None
    return text


def validate_annotation(
    annotation: Annotation,
    image_size: tuple[int, int],
    task: Task,
    class_names: ClassNames | None = None,
    unit: BoxUnit = "real",
) -> Instance:
    """Return an annotation as an instance of a target of a task.

    Raises:
        InvalidRow: if its box or its polygons are not in the image, or if it lacks the label or the polygons that the task
            needs.
    """
    label = check_label(annotation.label, class_names)
    if not label and (requires_label(task) or task.result == "text"):
        raise InvalidRow("no label", f"{task.name} needs one")
    (box,) = parse_boxes(annotation.box, unit, image_size)
    if task.result == "polygons" and not annotation.polygons:
        raise InvalidRow("no polygon", "the segmentation is missing, empty or malformed")
    for polygon in annotation.polygons:
        if len(polygon) < 3 or not np.isfinite(polygon).all():
            raise InvalidRow("invalid polygon", f"expected at least three vertices x, y: {shorten(polygon.tolist())}")
    scale = _unit_scale(unit, image_size)
    return Instance(
        label, box, tuple(_validate_polygon(polygon * scale, image_size) for polygon in annotation.polygons)
    )


def _validate_polygon(polygon: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Return a polygon in pixels, clipped to the image.

    Raises:
        InvalidRow: if it exceeds the image by more than `BOX_TOLERANCE`.
    """
    if polygon.min() < -BOX_TOLERANCE or (polygon > np.array(image_size) + BOX_TOLERANCE).any():
        width, height = image_size
        raise InvalidRow(
            "polygon outside the image", f"{shorten(polygon.tolist())} in an image of {width} x {height} pixels"
        )
    return np.clip(polygon, 0, image_size)


def validate_box(box: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Return a box (x0, y0, x1, y1) in pixels, clipped to the image.

    Raises:
        InvalidRow: if the box has no area, exceeds the image by more than `BOX_TOLERANCE`, or is in fractions of its sides.
    """
    x0, y0, x1, y1 = box.tolist()
    width, height = image_size
    shown = f"({x0:g}, {y0:g}, {x1:g}, {y1:g}) in an image of {width} x {height} pixels"
    if not (x0 < x1 and y0 < y1):  # also if a coordinate is not a number
        raise InvalidRow("box without area", shown)
    if min(x0, y0) < -BOX_TOLERANCE or x1 > width + BOX_TOLERANCE or y1 > height + BOX_TOLERANCE:
        raise InvalidRow("box outside the image", shown)
    if x1 <= 1 and y1 <= 1 and min(image_size) > 1:
        raise InvalidRow("box in fractions", f"{shown}; give pixels, or in `objects` the bbox_type norm_1")
    return np.clip(box, 0, np.array([width, height] * 2, float))
