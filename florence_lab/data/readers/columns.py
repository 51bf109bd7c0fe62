"""From one record, whatever file it stands in, to a row: which columns are the image, the query and the response."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...exceptions import shorten
from ...tasks import TASKS, Task
from ..rows import AnnotatedRow, Annotation, ClassNames, InvalidRow, RowError, TextRow
from ..spec import DatasetSpec
from .base import choose
from .boxes import read_box
from .files import image_folder, list_names, parse_json, resolve_image
from .messages import Turn, fill_placeholders, read_messages, strip_image_placeholder, warn_of_system_prompt

COLUMNS = ("query", "response", "image", "objects")

PAIRS: Sequence[tuple[str, str]] = (
    ("query", "response"),
    ("prefix", "suffix"),
    ("question", "answer"),
    ("question", "answers"),
    ("<CAPTION>", "text"),
    ("<CAPTION>", "caption"),
)
"""Columns of query and response, in the order in which they are looked for. A task token is the query of every row."""

CONVERSATIONS = ("messages", "conversations")
"""Columns with a whole conversation, in the order in which they are looked for."""

IMAGES = ("images", "image", "file_name")
"""Columns with the image."""

BOX_FORMATS = ("xywh", "xyxy")
"""Boxes of detection columns: left, top, width, height as in COCO, or two corners. In pixels."""

ROW_OPTIONS: Mapping[str, str] = {
    **{column: f"column with the {column}" for column in COLUMNS},
    "answers": "all or first: what a list of answers gives (default: all)",
    "bbox_format": "xywh or xyxy: the boxes of detection columns (default: xywh)",
    "names": "class names of detection columns with numbers, separated by commas",
}
"""Options of all formats whose rows have columns."""

_BOX_COLUMNS = ("bbox", "bboxes", "boxes")
_LABEL_COLUMNS = ("category", "categories", "label", "labels", "category_id", "class", "name")

_EXPECTED = (
    "an image (images, image or file_name) with query and response, prefix and suffix, question and answer, text, caption, "
    "messages, conversations, or objects with boxes"
)


@dataclass(frozen=True)
class RecordParser:
    """Turns a record, which maps names of columns to values, into a row.

    Attributes:
        folder: paths of images are relative to it.
        columns: names of columns that differ from `COLUMNS`. A value that starts with `<`, `query=<CAPTION>`, is the query of
            every row instead of a column.
        answers: which answers of a list give examples.
        bbox_format: one of `BOX_FORMATS`.
        class_names: the names behind class numbers.
    """

    folder: Path = Path()
    columns: Mapping[str, str] = field(default_factory=dict)
    answers: Literal["all", "first"] = "all"
    bbox_format: str = "xywh"
    class_names: ClassNames | None = None

    @classmethod
    def from_spec(cls, spec: DatasetSpec, folder: Path) -> RecordParser:
        """Return the parser for the options of a dataset.

        Args:
            spec: the dataset. Its option `images` replaces the folder.
            folder: paths of images are relative to it.

        Raises:
            DatasetError: for an invalid value.
        """
        names = spec.options.get("names")
        return cls(
            image_folder(spec) or folder,
            {name: spec.options[name] for name in COLUMNS if name in spec.options},
            "first" if choose(spec, "answers", ("all", "first")) == "first" else "all",
            choose(spec, "bbox_format", BOX_FORMATS),
            [name.strip() for name in names.split(",")] if names else None,
        )

    def __call__(self, record: Any, source: str) -> TextRow | AnnotatedRow | RowError:
        """Return the row of a record, or its fault.

        Args:
            record: the record.
            source: where it stands.
        """
        try:
            return self._parse(record, source)
        except InvalidRow as error:
            return error.at(source)
        except RecursionError:
            return RowError(source, "invalid JSON", "nested too deeply")

    def _parse(self, record: Any, source: str) -> TextRow | AnnotatedRow:
        if not isinstance(record, dict):
            raise InvalidRow("not an object", f"a row maps names to values, but this is {shorten(record)}")
        record = self._rename(record)
        objects = _decode_objects(record.get("objects"))
        if (task := self._detection_task(record, objects)) is not None:
            return self._parse_detection(record, task, objects, source)
        _check_single_prompt(record)
        query, response, has_response, images = self._read_turn(record)
        row = TextRow(
            resolve_image(_only_image(images or _find_images(record)), self.folder),
            strip_image_placeholder(query),
            response,
            source,
            has_response=has_response,
            answers=self.answers,
            class_names=self.class_names,
        )
        return _with_objects(row, objects)

    def _rename(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return the record with the columns that the options name under the names of `COLUMNS`."""
        renamed = dict(record)
        for name, column in self.columns.items():
            if column.startswith("<"):
                renamed[name] = column
            elif column in record:
                renamed[name] = record[column]
            else:
                raise InvalidRow("unknown columns", f"no column {column}; got {list_names(record)}")
        if self.columns.get("image"):
            renamed = {name: value for name, value in renamed.items() if name not in IMAGES or name == "image"}
        return renamed

    def _detection_task(self, record: Mapping[str, Any], objects: Any) -> Task | None:
        """Return the task of a record with detection columns; None if it is not one.

        The objects of ms-swift have the keys `ref` or `caption` instead, and a query with placeholders.
        """
        if any(column in record for column in (*CONVERSATIONS, "response", "prefix", "question")):
            return None
        query = record.get("query", "<OD>")
        task = TASKS.get(query) if isinstance(query, str) else None
        if task is None or task.needs_input or task.result != "boxes":
            return None
        if objects == []:  # nothing in the image, unless a row just has no objects
            is_for_all = "query" not in record or self._has_constant_query
            return task if is_for_all and not any(column in record for column in ("text", "caption")) else None
        first = objects[0] if isinstance(objects, list) else objects
        has_boxes = isinstance(first, dict) and any(column in first for column in _BOX_COLUMNS)
        return task if has_boxes and not {"ref", "caption"} & first.keys() else None

    @property
    def _has_constant_query(self) -> bool:
        return self.columns.get("query", "").startswith("<")

    def _read_turn(self, record: Mapping[str, Any]) -> Turn:
        for column in CONVERSATIONS:
            if column in record:
                return read_messages(record[column])
        pairs = [pair for pair in PAIRS if pair[0] in record or (pair[0].startswith("<") and pair[1] in record)]
        if self._has_constant_query:  # any column may have the response to a constant query
            pairs = [("query", response) for _, response in PAIRS if response in record] or pairs
        if not pairs:
            raise InvalidRow("unknown columns", f"got {list_names(record)}; expected {_EXPECTED}")
        query, response = next((pair for pair in pairs if pair[1] in record), pairs[0])
        return Turn(record.get(query, query), record.get(response), response in record, [])

    def _parse_detection(self, record: dict[str, Any], task: Task, objects: Any, source: str) -> AnnotatedRow:
        annotations: list[Annotation] = []
        errors: list[RowError] = []
        for number, (box, label) in enumerate(_pair_objects(objects), start=1):
            at = f"{source}, object {number}"
            try:
                x0, y0, x1, y1 = read_box(
                    box, "x, y, width, height" if self.bbox_format == "xywh" else "x0, y0, x1, y1"
                )
                corners = (x0, y0, x0 + x1, y0 + y1) if self.bbox_format == "xywh" else (x0, y0, x1, y1)
                annotations.append(Annotation("" if task.coco_label == "none" else label, np.array(corners), at))
            except InvalidRow as error:
                errors.append(error.at(at))
        return AnnotatedRow(
            resolve_image(_only_image(_find_images(record)), self.folder),
            task,
            tuple(sorted(annotations, key=lambda annotation: annotation.box[0])),  # as for COCO files
            source,
            class_names=self.class_names,
            errors=tuple(errors),
        )


def find_missing_columns(columns: Collection[str]) -> list[str]:
    """Return which of `COLUMNS` records with these columns lack to be rows, as far as the names tell."""
    text = {*CONVERSATIONS, "objects"} | {column for pair in PAIRS for column in pair} - {"response", "suffix"}
    has_image = not {*IMAGES, "messages"}.isdisjoint(columns)
    return [name for name, found in (("query", not text.isdisjoint(columns)), ("image", has_image)) if not found]


def _decode_objects(objects: Any) -> Any:
    """Return objects, which may be written as a JSON text."""
    if not isinstance(objects, str) or not objects.strip():
        return objects
    try:
        return parse_json(objects)
    except InvalidRow as error:
        raise InvalidRow("invalid objects", error.details) from None


def _pair_objects(objects: Any) -> list[tuple[Any, Any]]:
    """Return (box, label) of each object; the label is None if there is none.

    Args:
        objects: a list of objects, or an object of lists.
    """
    if isinstance(objects, list):
        return [
            (_first_present(item, _BOX_COLUMNS), _first_present(item, _LABEL_COLUMNS))
            if isinstance(item, dict)
            else (item, None)
            for item in objects
        ]
    boxes, labels = _first_present(objects, _BOX_COLUMNS), _first_present(objects, _LABEL_COLUMNS)
    if boxes is None:
        boxes = []
    if labels is None:
        labels = [None] * len(boxes) if isinstance(boxes, list) else []
    if not isinstance(boxes, list) or not isinstance(labels, list) or len(boxes) != len(labels):
        raise InvalidRow(
            "invalid objects", f"expected a list of boxes and one of their categories, but got {shorten(objects)}"
        )
    return list(zip(boxes, labels, strict=True))


def _first_present(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((record[name] for name in names if name in record), None)


def _check_single_prompt(record: Mapping[str, Any]) -> None:
    if record.get("history"):
        raise InvalidRow("conversation history", "Florence-2 answers single prompts; remove `history`")
    warn_of_system_prompt(record.get("system"))
    for media in ("videos", "audios"):
        if record.get(media):
            raise InvalidRow(f"{media} in a row", "Florence-2 answers prompts about one image")


def _find_images(record: Mapping[str, Any]) -> list[Any]:
    """Return the images of a record: a value or a list in one of `IMAGES`, which in a CSV file is a JSON text."""
    for column in IMAGES:
        value = record.get(column)
        if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
            value = parse_json(value)
        if isinstance(value, (list, tuple)):
            if value:
                return list(value)
        elif value is not None:
            return [value]
    if not any(column in record for column in IMAGES):
        raise InvalidRow("unknown columns", f"got {list_names(record)}; expected {_EXPECTED}")
    return []


def _only_image(images: list[Any]) -> Any:
    if len(images) != 1:
        raise InvalidRow("not exactly one image", f"{len(images)} images")
    return images[0]


def _with_objects(row: TextRow, objects: Any) -> TextRow:
    """Return a row with ms-swift's objects: those of release 3 are filled in, those of release 2 are left to validation."""
    if isinstance(objects, dict) and ("ref" in objects or "bbox" in objects):
        query, response, boxes, unit = fill_placeholders(row.query, row.response, objects)
        return replace(row, query=query, response=response, boxes=boxes, unit=unit)
    return replace(row, objects=objects) if objects else row
