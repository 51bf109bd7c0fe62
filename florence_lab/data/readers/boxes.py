"""Boxes and numbers as files state them."""

from __future__ import annotations

import math
from typing import Any

from ...exceptions import shorten
from ..rows import InvalidRow


def read_box(box: Any, expected: str = "x0, y0, x1, y1") -> tuple[float, float, float, float]:
    """Return four finite numbers.

    Args:
        box: what the file has in their place.
        expected: their meaning, for the message.

    Raises:
        InvalidRow: for anything else.
    """
    values = list(box) if isinstance(box, (list, tuple)) or hasattr(box, "tolist") else []
    if len(values) != 4 or not all(is_finite(value) for value in values):
        raise InvalidRow("invalid box", f"{shorten(box)}; expected {expected}")
    x, y, z, w = map(float, values)
    return x, y, z, w


def is_finite(value: Any) -> bool:
    """Return whether a value is a number that a float can hold: not text, not a Boolean, not NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the floats
        return False
