"""The numbers of Florence-2's model card (microsoft/Florence-2-large and its siblings), in percent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_MODEL_RE = re.compile(r"florence-2-(base|large)(-ft)?$")
_MODELS = ("base", "large", "base-ft", "large-ft")


class CardValue(NamedTuple):
    """A number of the model card.

    Attributes:
        value: in percent.
        note: what differs from our split; "" if nothing does.
    """

    value: float
    note: str = ""


_OTHER_SPLIT = "the card gives test-dev"

_TABLE: Mapping[tuple[str, str], tuple[float | None, ...]] = {
    ("coco-caption", "test"): (133.0, 135.6, 140.0, 143.3),
    ("nocaps", "val"): (118.7, 120.8, 116.7, 124.9),
    ("textcaps", "val"): (70.1, 72.8, 143.9, 151.1),
    ("coco-detection", "val2017"): (34.7, 37.5, 41.4, 43.4),
    ("flickr30k", "test"): (83.6, 84.4, 84.0, 85.2),
    ("refcoco", "val"): (53.9, 56.3, 92.6, 93.4),
    ("refcoco", "testA"): (58.4, 61.6, 94.8, 95.3),
    ("refcoco", "testB"): (49.7, 51.4, 91.5, 92.0),
    ("refcoco+", "val"): (51.5, 53.6, 86.8, 88.3),
    ("refcoco+", "testA"): (56.4, 57.9, 91.7, 92.9),
    ("refcoco+", "testB"): (47.9, 49.9, 82.2, 83.6),
    ("refcocog", "val"): (66.3, 68.0, 89.8, 91.2),
    ("refcocog", "test"): (65.1, 67.0, 82.2, 91.7),
    ("res", "val"): (34.6, 35.8, 78.0, 80.5),
    ("vqav2", "val"): (None, None, 79.7, 81.7),
    ("vqav2", "test-dev"): (None, None, 79.7, 81.7),
    ("textvqa", "val"): (None, None, 63.6, 73.5),
}
"""(suite, split) -> the numbers of `_MODELS`."""


def card_value(model: str, suite: str, split: str) -> CardValue | None:
    """Return the number of the model card.

    Args:
        model: name, folder or hub id of a model. It is recognized by its last part: `microsoft/Florence-2-large-ft`.
        suite, split: what is evaluated.

    Returns:
        None for another model, and for what the card does not give.
    """
    match = _MODEL_RE.search(model.rstrip("/").lower())
    values = _TABLE.get((suite, split))
    if match is None or values is None:
        return None
    value = values[_MODELS.index(match[1] + (match[2] or ""))]
    note = _OTHER_SPLIT if (suite, split) in (("vqav2", "val"), ("textvqa", "val")) else ""
    return None if value is None else CardValue(value, note)
