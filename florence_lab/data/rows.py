"""Rows as readers return them, before validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from ..exceptions import FlorenceLabError, shorten, summarize_error
from ..tasks import Task
from .examples import ImageSource

ClassNames = Sequence[str] | Mapping[Any, str]
"""The class names of a dataset by their numbers: a list, or a mapping whose keys are the numbers, also as text (YAML, JSON)."""

BoxUnit = Literal["real", "norm_1000", "norm_1"]
"""The unit of boxes: pixels, thousandths of the sides of the image, or fractions of them. The names are ms-swift's."""


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


class InvalidRow(FlorenceLabError, ValueError):
    """A row, or an annotation of it, that cannot be used. It becomes a `RowError`, also if a reader raises it.

    Attributes:
        kind: the kind of fault.
        details: the particulars.
    """

    def __init__(self, kind: str, details: str = "") -> None:
        super().__init__(kind, details)
        self.kind, self.details = kind, details

    def __str__(self) -> str:
        return self.at("").reason

    def at(self, source: str) -> RowError:
        """Return the fault with the place where it stands."""
        return RowError(source, self.kind, self.details)


@dataclass(frozen=True)
class TextRow:
    """A row whose target is written out, as in JSON lines. Values are as the file has them; `RowValidator` checks them.

    Attributes:
        image: the image.
        query: a task token with its input, or a free-form question. With `objects` it contains the placeholder `<bbox>` or
            `<ref-object>`.
        response: the target, with the other placeholder if there are objects. None and "" are the empty answer. A list has
            several answers to the query. A number is its text.
        source: where the row stands.
        objects: ms-swift's objects, `{"caption", "bbox", "bbox_type", "image"}`. Their boxes are in the units of the file.
        has_response: whether the row states a response at all, be it an empty one.
        answers: whether each answer of a list gives an example, or the first one only.
        class_names: the names behind captions of objects that are numbers.
        boxes: for each `<bbox>` in the query and then in the response, the (x0, y0, x1, y1) that its location tokens stand for.
            A row has either boxes or objects.
        unit: of `boxes`.
    """

    image: ImageSource | None
    query: Any
    response: Any
    source: str
    objects: Any = ()
    has_response: bool = True
    answers: Literal["all", "first"] = "all"
    class_names: ClassNames | None = None
    boxes: Sequence[Sequence[float]] = ()
    unit: BoxUnit = "real"


@dataclass(frozen=True)
class Annotation:
    """An annotated object.

    Attributes:
        label: what the task calls it; "" if the task gives no label. A number stands for a name in the row's `class_names`.
        box: (x0, y0, x1, y1) in the unit of the row.
        source: where the annotation stands.
        polygons: outlines, K x 2 each, in the unit of the row; () if there are none.
    """

    label: Any
    box: np.ndarray
    source: str
    polygons: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class AnnotatedRow:
    """A row whose target is to be written from annotations: all objects of an image, or the object of a region.

    Attributes:
        image: the image.
        task: the task. One that takes a region asks about the box of the only annotation.
        annotations: the objects, in the order of the target. Without any the target is empty: there is nothing to find.
        source: where the row stands.
        image_size: (width, height) that the file states; None if it states none.
        phrase: the input of a task that takes a phrase.
        class_names: the names behind labels that are numbers.
        errors: the objects that the reader could not read, which are missing from the annotations.
        unit: of boxes and polygons.
    """

    image: ImageSource | None
    task: Task
    annotations: tuple[Annotation, ...]
    source: str
    image_size: tuple[int, int] | None = None
    phrase: str = ""
    class_names: ClassNames | None = None
    errors: tuple[RowError, ...] = ()
    unit: BoxUnit = "real"


RawRow = TextRow | AnnotatedRow


def to_row_error(error: Exception, source: str) -> RowError:
    """Return the error of a row that cannot be used: a fault as it is described, anything unforeseen as "cannot be read"."""
    if isinstance(error, InvalidRow):
        return error.at(source)
    return RowError(source, "cannot be read", f"{type(error).__name__}: {summarize_error(error)}")


def class_name(label: Any, names: ClassNames | None) -> str:
    """Return the name of an object's class.

    Args:
        label: the name, or the number of the class.
        names: the class names of the dataset; None if it has none.

    Raises:
        InvalidRow: for a number without a name, and for a label that is neither text nor a whole number.
    """
    if isinstance(label, str):
        return label
    if isinstance(label, bool) or not isinstance(label, (int, np.integer)):
        raise InvalidRow("invalid label", f"expected a name or the number of a class, but got {shorten(label)}")
    if names is None:
        raise InvalidRow(
            "class number without names", f"the dataset has no class names; write the name in place of {label}"
        )
    known: Mapping[Any, Any] = names if isinstance(names, Mapping) else dict(enumerate(names))
    name = known.get(label, known.get(str(label)))
    if not isinstance(name, str) or not name.strip():
        numbers = ", ".join(map(str, known))
        raise InvalidRow("unknown class number", f"{label}; the dataset names the classes {shorten(numbers)}")
    return name
