"""The fields of results that have one value for each instance, and their validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np

from ..argument_validation import Range, validate_value
from ..exceptions import ArgumentError, shorten
from ..geometry import to_coordinates, to_polygons


def to_labels(name: str, value: Any) -> np.ndarray:
    """Return labels as an array of strings."""
    return np.array(validate_value(name, value, Sequence[str]), dtype=str)


def _to_scores(name: str, value: Any) -> np.ndarray:
    scores = to_coordinates(name, value, ())
    if len(scores) and not (scores.min() >= 0 and scores.max() <= 1 + 1e-6):  # float32 may exceed 1 by rounding
        raise ArgumentError(f"{name} must be 0 to 1, got {shorten(value)}")
    return scores


def _to_class_ids(name: str, value: Any) -> np.ndarray:
    return np.array(validate_value(name, value, Sequence[Annotated[int, Range(0)]]), dtype=np.int64)


INSTANCE_FIELDS = ("labels", "scores", "class_ids", "found_by", "boxes", "quads", "polygons")
"""The fields that have one value for each instance."""

CONVERSIONS: dict[str, Callable[[str, Any], Any]] = {
    "labels": to_labels,
    "found_by": to_labels,
    "scores": _to_scores,
    "class_ids": _to_class_ids,
    "boxes": lambda name, value: to_coordinates(name, value, (4,)),
    "quads": lambda name, value: to_coordinates(name, value, (4, 2)),
    "polygons": to_polygons,
}
"""Field of a result with instances -> a function that validates and converts its value."""
