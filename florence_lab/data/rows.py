"""Rows as readers return them, before validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from ..tasks import Task
from .examples import ImageSource

BoxUnit = Literal["real", "norm_1000", "norm_1"]
"""Units of boxes: pixels, thousandths of the sides of the image, fractions of the sides."""


class RowError(NamedTuple):
    """A row, or an annotation of a row, that cannot be used.

    Attributes:
        source: where it stands, as `"train.jsonl, row 12"`.
        kind: the kind of fault, by which `summarize_row_errors` counts.
        details: the particulars; "" if there are none.
    """

    source: str
    kind: str
    details: str = ""

    @property
    def reason(self) -> str:
        """The kind of fault and the particulars."""
        return f"{self.kind}: {self.details}" if self.details else self.kind

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


@dataclass(frozen=True)
class TextRow:
    """A row whose target is written out, as in JSON lines.

    Attributes:
        image: the image.
        query: a task token with its input, or a free-form question. With `objects` it contains the placeholder `<bbox>` or
            `<ref-object>`.
        response: the target, with the other placeholder if there are objects.
        source: where the row stands.
        objects: ms-swift's objects, `{"caption", "bbox", "bbox_type", "image"}`. Their boxes are in the units of the file.
        boxes: ms-swift 3's boxes, which replace the placeholders `<bbox>` of query and response in this order.
        unit: the unit of `boxes`.
    """

    image: ImageSource | None
    query: str
    response: str
    source: str
    objects: Sequence[Mapping[str, Any]] = ()
    boxes: Sequence[Sequence[float]] = ()
    unit: BoxUnit = "real"


@dataclass(frozen=True)
class Annotation:
    """An annotated object.

    Attributes:
        label: what the task calls it; "" if the task gives no label.
        box: (x0, y0, x1, y1) in the unit of the row.
        source: where the annotation stands.
        polygons: outlines, K x 2 each, in the unit of the row; () if there are none.
    """

    label: str
    box: np.ndarray
    source: str
    polygons: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class AnnotatedRow:
    """A row whose target is to be written from annotations: all objects of an image, or the object of a region.

    Attributes:
        image: the image.
        task: the task. One that takes a region asks about the box of the only annotation.
        annotations: the objects, in the order of the target.
        source: where the row stands.
        image_size: (width, height) that the file states; None if it states none.
        phrase: the input of a task that takes a phrase.
        unit: the unit of boxes and polygons.
        errors: the annotations of the row that the reader could not read.
    """

    image: ImageSource | None
    task: Task
    annotations: tuple[Annotation, ...]
    source: str
    image_size: tuple[int, int] | None = None
    phrase: str = ""
    unit: BoxUnit = "real"
    errors: tuple[RowError, ...] = ()


RawRow = TextRow | AnnotatedRow
