"""From annotated images to rows: what the formats with boxes (COCO, YOLO, Pascal VOC) have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np

from ...exceptions import DatasetError
from ...tasks import TASKS, CocoLabel, Task, get_task
from ..examples import ImageSource
from ..rows import AnnotatedRow, Annotation, BoxUnit, InvalidRow, RowError, TextRow
from ..spec import DatasetSpec


@dataclass(frozen=True)
class AnnotatedObject:
    """An object of an image.

    Attributes:
        category: the name of its class.
        box: (x0, y0, x1, y1).
        source: where the annotation stands.
        caption: a description of the object; None if there is none.
        read_polygons: returns the outlines, K x 2 each; () if there are none. Raises an `InvalidRow` if they are malformed.
    """

    category: str
    box: tuple[float, float, float, float]
    source: str
    caption: str | None = None
    read_polygons: Callable[[], tuple[np.ndarray, ...]] = tuple


@dataclass(frozen=True)
class AnnotatedImage:
    """An image with what its annotations state.

    Attributes:
        image: the image.
        source: where its annotations stand.
        objects: the objects.
        captions: descriptions of the whole image.
        size: (width, height) in pixels that the file states; None if it states none.
        unit: the unit of boxes and polygons.
        errors: annotations that cannot be used.
        is_empty: whether the annotations state that there is nothing in the image. That is an example, too.
    """

    image: ImageSource | None
    source: str
    objects: Sequence[AnnotatedObject] = ()
    captions: Sequence[str] = ()
    size: tuple[int, int] | None = None
    unit: BoxUnit = "real"
    errors: Sequence[RowError] = ()
    is_empty: bool = False


class _Group(NamedTuple):
    """The objects of one row, and the phrase of its prompt."""

    objects: Sequence[AnnotatedObject]
    phrase: str = ""


class _PlannedRow(NamedTuple):
    """A row that is built on demand, to limit the memory for polygons."""

    image: AnnotatedImage
    task: Task
    group: _Group
    caption: str | None = None


class AnnotatedReader(ABC):
    """Rows for the tasks that the annotations of images answer.

    | task | rows |
    | --- | --- |
    | `<OD>`, `<REGION_PROPOSAL>`, `<DENSE_REGION_CAPTION>` | one for each image, the objects from left to right |
    | `<REGION_TO_CATEGORY>`, `<REGION_TO_DESCRIPTION>`, `<REGION_TO_SEGMENTATION>` | one for each object |
    | `<OPEN_VOCABULARY_DETECTION>` | one for each category of an image; the phrase is its name |
    | `<REFERRING_EXPRESSION_SEGMENTATION>` | one for each description of an object, or, without one, each category |
    | `<CAPTION_TO_PHRASE_GROUNDING>` | one for each image; the caption is its categories, "sheep, dog" |
    | `<CAPTION>`, `<DETAILED_CAPTION>`, `<MORE_DETAILED_CAPTION>` | one for each caption of an image |

    The same holds for registered tasks with such an input and result, and a `Task.coco_label`.
    """

    options: ClassVar[Mapping[str, str]] = {"tasks": "task tokens, separated by commas (default: OD)"}

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec

    def check(self) -> None:
        """Read the annotations and verify the tasks."""
        _ = self.tasks, self._rows

    @abstractmethod
    def read(self) -> Iterable[AnnotatedImage | RowError]:
        """Return the images with their annotations, and errors of what belongs to no image.

        Raises:
            DatasetError: if the dataset is missing or has another format.
        """

    @property
    def has_captions(self) -> bool:
        """Whether the annotations are captions of whole images."""
        return False

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks of the rows.

        Raises:
            DatasetError: for a task that is unknown or that the annotations do not answer.
        """
        default = "CAPTION" if self.has_captions else "OD"
        try:
            tasks = tuple(get_task(name) for name in self.spec.options.get("tasks", default).split(","))
        except ValueError as error:
            raise DatasetError(f"{self.spec.name}: {error}") from None
        for task in tasks:
            if not self._is_supported(task):
                supported = ", ".join(token for token, known in TASKS.items() if self._is_supported(known))
                raise DatasetError(
                    f"{self.spec.name}: the annotations have no answers for {task.name}; supported: {supported}"
                )
        return tuple(dict.fromkeys(tasks))

    def _is_supported(self, task: Task) -> bool:
        return _is_caption_task(task) if self.has_captions else label_kind(task) is not None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> AnnotatedRow | TextRow | RowError:
        row = self._rows[index]
        return row if isinstance(row, RowError) else _build_row(row)

    @cached_property
    def _rows(self) -> list[RowError | _PlannedRow]:
        rows: list[RowError | _PlannedRow] = []
        for image in self.read():
            if isinstance(image, RowError):
                rows.append(image)
            else:
                rows += image.errors
                rows += (row for task in self.tasks for row in _plan_rows(image, task))
        return rows


def _plan_rows(image: AnnotatedImage, task: Task) -> Iterator[_PlannedRow]:
    if image.captions and _is_caption_task(task):
        yield from (_PlannedRow(image, task, _Group(()), caption) for caption in image.captions)
    elif image.objects:
        yield from (_PlannedRow(image, task, group) for group in ROW_GROUPINGS[task.input, task.result](image.objects))
    elif image.is_empty and not image.errors and not task.needs_input:
        yield _PlannedRow(image, task, _Group(()))


def _build_row(row: _PlannedRow) -> AnnotatedRow | TextRow:
    image, task, group, caption = row
    if caption is not None:
        return TextRow(image.image, task.token, caption, image.source)
    annotations: list[Annotation] = []
    errors: list[RowError] = []
    for item in group.objects:
        try:
            polygons = item.read_polygons() if task.result == "polygons" else ()
            annotations.append(Annotation(_label(item, task), np.array(item.box), item.source, polygons))
        except InvalidRow as error:
            errors.append(error.at(item.source))
    return AnnotatedRow(
        image.image,
        task,
        tuple(annotations),
        group.objects[0].source if task.input == "region" else image.source,
        image.size,
        group.phrase,
        unit=image.unit,
        errors=tuple(errors),
    )


def _one_row(objects: Sequence[AnnotatedObject]) -> Iterator[_Group]:
    yield _Group(sorted(objects, key=lambda item: item.box[0]))


def _row_per_object(objects: Sequence[AnnotatedObject]) -> Iterator[_Group]:
    yield from (_Group([item]) for item in objects)


def _row_per_category(objects: Sequence[AnnotatedObject]) -> Iterator[_Group]:
    yield from (_Group(group, name) for name, group in _group_by(objects, lambda item: item.category).items())


def _row_per_expression(objects: Sequence[AnnotatedObject]) -> Iterator[_Group]:
    groups = _group_by(objects, lambda item: item.caption or item.category)
    yield from (_Group(group, phrase) for phrase, group in groups.items())


def _one_grounding(objects: Sequence[AnnotatedObject]) -> Iterator[_Group]:
    groups = _group_by(objects, lambda item: item.category)
    yield _Group([item for group in groups.values() for item in group], ", ".join(groups))


def _group_by(
    objects: Sequence[AnnotatedObject], key: Callable[[AnnotatedObject], str]
) -> dict[str, list[AnnotatedObject]]:
    """Group objects, from left to right."""
    groups: dict[str, list[AnnotatedObject]] = {}
    for item in sorted(objects, key=lambda item: item.box[0]):
        groups.setdefault(key(item), []).append(item)
    return groups


ROW_GROUPINGS: dict[tuple[str, str], Callable[[Sequence[AnnotatedObject]], Iterator[_Group]]] = {
    ("none", "boxes"): _one_row,
    ("none", "polygons"): _one_row,
    ("any", "boxes"): _one_row,
    ("any", "polygons"): _one_row,
    ("region", "text"): _row_per_object,
    ("region", "polygons"): _row_per_object,
    ("phrase", "boxes_or_polygons"): _row_per_category,
    ("phrase", "polygons"): _row_per_expression,
    ("phrase", "grounding"): _one_grounding,
}
"""(`Task.input`, `Task.result`) -> the objects of one image, grouped into rows."""

_PHRASE_LABELS: dict[str, CocoLabel] = {
    "<OPEN_VOCABULARY_DETECTION>": "category",
    "<CAPTION_TO_PHRASE_GROUNDING>": "category",
    "<REFERRING_EXPRESSION_SEGMENTATION>": "none",
}


def label_kind(task: Task) -> CocoLabel | None:
    """Return what an object contributes as the label of an instance; None if annotations have no answer to the task."""
    if (task.input, task.result) not in ROW_GROUPINGS:
        return None
    return task.coco_label or _PHRASE_LABELS.get(task.token)


def _is_caption_task(task: Task) -> bool:
    is_text = task.token and not task.needs_input and task.result == "text"
    return bool(is_text) and (task.is_free_text or task.metric == "caption" or task.coco_label == "caption")


def _label(item: AnnotatedObject, task: Task) -> str:
    labels = {"category": item.category, "caption": item.caption or item.category}
    return labels.get(label_kind(task) or "none", "")
