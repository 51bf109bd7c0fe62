"""TODO"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..geometry import box_corners
from ..results import Boxes, Polygons, Quads
from ..tasks import get_task
from .style import _trait, printable


class _Item(NamedTuple):
    """One instance, ready to be drawn."""

    name: str
    outlines: tuple[np.ndarray, ...]  # each K x 2, pixels of the image
    colour: str
    line_style: Any
    filled: bool
    score: float | None


def _items(result: Boxes | Quads | Polygons) -> list[_Item]:
    """The instances: one colour and line style per label, and one each where there are no labels."""
    names = _names(result)
    keys = [name or i for i, name in enumerate(names)]
    traits = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    scores = [None] * len(names) if result.scores is None else result.scores.tolist()
    return [
        _Item(name, outlines, *_trait(traits[key]), filled, score)
        for name, (outlines, filled), key, score in zip(names, _outlines(result), keys, scores, strict=True)
    ]


def _names(result: Boxes | Quads | Polygons) -> list[str]:
    """What to write at each instance: its label, or the phrase that was looked for where the model repeats none."""
    task = get_task(result.task)
    phrase = result.phrase if task.input == "phrase" and task.result != "grounding" else ""
    return [printable(label or phrase) for label in result.labels]


def _outlines(result: Boxes | Quads | Polygons) -> list[tuple[tuple[np.ndarray, ...], bool]]:
    """Per instance its outlines, and whether they follow a thing's shape, so that to fill them shows something."""
    if isinstance(result, Quads):
        return [((quad,), False) for quad in result.quads]
    if isinstance(result, Polygons):
        return [(outlines, True) for outlines in result.polygons]
    given = result.polygons or ((),) * len(result)
    return [(shape or (box_corners(box),), bool(shape)) for shape, box in zip(given, result.boxes, strict=True)]
