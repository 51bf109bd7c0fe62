"""Validation: the only place that decides whether a row can be used, and that turns it into examples."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..exceptions import ImageError, PromptError
from ..results import Instances, Text
from ..tasks import Task, get_task
from ..template.locations import LOCATION_RE, NUM_BINS, format_location_tokens
from ..template.prompts import Prompt
from ..template.targets import Instance, format_target, to_instances
from ..template.template import FlorenceTemplate
from ..template.vocabulary import split_text
from .examples import Example, ImageSource, SceneReference, load_image_source
from .rows import AnnotatedRow, Annotation, InvalidRow, RawRow, RowError, TextRow

BOX_TOLERANCE = 1.0
"""Boxes may exceed the image by this many pixels, because of rounding. They are clipped."""

BOX_UNITS = ("real", "norm_1000", "norm_1")
"""ms-swift's `bbox_type`: pixels, thousandths of the sides of the image, fractions of the sides."""

_MIXED_PLACEHOLDERS = (
    "a row with objects has <bbox> in its query and <ref-object> in its response, or the other way round"
)


class ValidatedRow(NamedTuple):
    """The examples of a row, and the errors of the row or its annotations."""

    examples: list[Example]
    errors: list[RowError]


@dataclass(frozen=True)
class RowValidator:
    """Turns a row into examples.

    The image is opened, boxes are converted to pixels and must lie in the image, the prompt must be valid, and the target must
    be in the answer grammar of the task, so that `parse_text` reads all of it.

    Attributes:
        template: with the tokenizer of the model, which counts the tokens of targets.
        max_target_tokens: maximum length of a target in tokens, including `<s>` and `</s>`.
        require_target: whether a row without a target is invalid. Inference needs none.
    """

    template: FlorenceTemplate
    max_target_tokens: int = 1024
    require_target: bool = True
    _image_sizes: dict[Path, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, row: RawRow | RowError) -> ValidatedRow:
        """Return the examples of a row and its errors. Threads may call this at the same time."""
        if isinstance(row, RowError):
            return ValidatedRow([], [row])
        try:
            size = self.image_size(row.image)
            if isinstance(row, AnnotatedRow):
                return self._validate_annotated(row, size)
            pairs = expand_objects(row, size)
            return ValidatedRow([self._to_example(row, query, target, size) for query, target in pairs], [])
        except InvalidRow as error:
            return ValidatedRow([], [error.at(row.source)])

    def image_size(self, image: ImageSource | None) -> tuple[int, int]:
        """Return (width, height) of an image, which is opened for that.

        Raises:
            InvalidRow: if the image cannot be read.
        """
        if image is None:
            raise InvalidRow("unreadable image", "the row names no image")
        if isinstance(image, SceneReference):
            return image.size, image.size
        if isinstance(image, Path) and image in self._image_sizes:  # often several rows are about one image
            return self._image_sizes[image]
        try:
            size = load_image_source(image).size
        except ImageError as error:
            raise InvalidRow("unreadable image", str(error)) from error
        if isinstance(image, Path):
            self._image_sizes[image] = size
        return size

    def _validate_annotated(self, row: AnnotatedRow, size: tuple[int, int]) -> ValidatedRow:
        """Return the example of a row without its invalid annotations, each of which is an error of its own."""
        if row.image_size not in (None, size):
            stated = "the annotations state {} x {} pixels, but the image has {} x {}".format(*row.image_size, *size)
            raise InvalidRow("wrong image size", stated)
        instances: list[Instance] = []
        errors = list(row.errors)
        scale = unit_scale(row.unit, size)
        for annotation in row.annotations:
            try:
                annotation = replace(
                    annotation,
                    box=annotation.box * np.tile(scale, 2),
                    polygons=tuple(polygon * scale for polygon in annotation.polygons),
                )
                instances.append(validate_annotation(annotation, size, needs_polygons=row.task.result == "polygons"))
            except InvalidRow as error:
                errors.append(error.at(annotation.source))
        if not instances:
            return ValidatedRow([], errors)
        region = _format_region(instances[0], size) if row.task.input == "region" else ""
        target = _write_target(row.task, instances, size, region)
        return ValidatedRow([self._to_example(row, row.task.token + row.phrase + region, target, size)], errors)

    def _to_example(self, row: RawRow, query: str, target: str, size: tuple[int, int]) -> Example:
        try:
            prompt = self.template.build_prompt(query, image_size=size)
        except PromptError as error:
            raise InvalidRow("invalid query", str(error)) from error
        if target.strip():
            check_target(target, prompt, size)
        elif self.require_target:
            raise InvalidRow("empty target")
        if self.template.tokenizer is not None:
            length = len(self.template.tokenizer(target)["input_ids"])
            if length > self.max_target_tokens:
                raise InvalidRow("target too long", f"{length} tokens; max_length is {self.max_target_tokens}")
        assert row.image is not None  # `image_size` has opened it
        return Example(row.image, prompt, target, row.source, size)


def check_target(target: str, prompt: Prompt, image_size: tuple[int, int]) -> None:
    """Verify that a target is in the answer grammar of its task: parsing it loses no location and no label.

    Targets of free-form questions may contain anything.

    Raises:
        InvalidRow: if it is not.
    """
    task = prompt.task
    if not task.token:
        return
    result = FlorenceTemplate().parse_text(target, prompt, image_size)
    locations = LOCATION_RE.findall(target)
    if isinstance(result, Text):
        if not result.text:
            raise InvalidRow("target does not fit the task", f"{task.name} answers with text, but got {target!r}")
        if locations and "".join(locations) != prompt.text:
            raise InvalidRow(
                "target does not fit the task",
                f"{task.name} answers with text, and with no location other than its region: {target[:100]!r}",
            )
        return
    assert isinstance(result, Instances)
    parsed = _write_target(task, to_instances(result), image_size) if len(result) else ""
    labels = {span.text.strip() for span in split_text(target)[1] if span.is_text} - {""}
    lost = sorted(labels - set(result.labels.tolist()))
    if not len(result) or lost or len(LOCATION_RE.findall(parsed)) != len(locations):
        problem = f"no location for {', '.join(lost)}" if lost else "incomplete locations"
        raise InvalidRow("target does not fit the task", f"{problem} in {target[:100]!r} for {task.name}")


def expand_objects(row: TextRow, image_size: tuple[int, int]) -> list[tuple[str, str]]:
    """Return the (query, target) pairs of a row. Objects of ms-swift give prompts with boxes, or one prompt to find them.

    Raises:
        InvalidRow: for malformed objects.
    """
    if row.boxes:
        return [fill_boxes(row, image_size)]
    if not row.objects:
        return [(row.query, row.response)]
    instances = [instance for item in row.objects for instance in parse_object(item, image_size)]
    if "<bbox>" in row.query and "<ref-object>" in row.response:
        task = get_task("<REGION_TO_DESCRIPTION>")
        regions = [_format_region(instance, image_size) for instance in instances]
        return [
            (task.token + region, _write_target(task, [instance], image_size, region))
            for region, instance in zip(regions, instances, strict=True)
        ]
    if "<ref-object>" in row.query and "<bbox>" in row.response:
        task = get_task("<OPEN_VOCABULARY_DETECTION>")
        phrases = " and ".join(dict.fromkeys(instance.label for instance in instances))
        return [(task.token + phrases, _write_target(task, instances, image_size))]
    raise InvalidRow("objects without placeholders", _MIXED_PLACEHOLDERS)


def fill_boxes(row: TextRow, image_size: tuple[int, int]) -> tuple[str, str]:
    """Return query and target with the boxes of the row, as location tokens, in place of the placeholders `<bbox>`.

    Raises:
        InvalidRow: for a box that is not in the image.
    """
    scale = np.tile(unit_scale(row.unit, image_size), 2)
    boxes = (
        format_location_tokens(validate_box(np.array(box, float) * scale, image_size), image_size) for box in row.boxes
    )
    query, target = (re.sub("<bbox>", lambda _: next(boxes), text) for text in (row.query, row.response))
    return query, target


def unit_scale(unit: str, image_size: tuple[int, int]) -> np.ndarray:
    """Return the pixels, x and y, of one unit of `BOX_UNITS`."""
    return np.array(image_size, float) / {"real": image_size, "norm_1000": NUM_BINS, "norm_1": 1}[unit]


def _write_target(task: Task, instances: Sequence[Instance], image_size: tuple[int, int], region: str = "") -> str:
    """Write instances as a target text, see `format_target`.

    Raises:
        InvalidRow: if the format of the task cannot express them.
    """
    try:
        return format_target(task, instances, image_size, region)
    except ValueError as error:
        raise InvalidRow("target does not fit the task", str(error)) from error


def _format_region(instance: Instance, image_size: tuple[int, int]) -> str:
    """Return the box of an instance as the region of a prompt."""
    return format_location_tokens(np.asarray(instance.box, float), image_size)


def parse_object(item: Mapping[str, Any], image_size: tuple[int, int]) -> list[Instance]:
    """Return an instance for each box of an object of ms-swift: `{"caption", "bbox", "bbox_type", "image"}`.

    Raises:
        InvalidRow: for a missing caption, an unknown unit, a malformed box, and a box that is not in the image.
    """
    label = str(item.get("caption", "")).strip()
    if not label:
        raise InvalidRow("object without a caption", json.dumps(item, ensure_ascii=False, default=str)[:100])
    if item.get("image", 0) not in (0, None):
        raise InvalidRow("more than one image", f"an object refers to image {item['image']}, but a row has one image")
    unit = item.get("bbox_type", "real")
    if unit not in BOX_UNITS:
        raise InvalidRow("unknown bbox_type", f"{unit!r}; expected {', '.join(BOX_UNITS)}")
    try:
        boxes = np.array(item["bbox"], float).reshape(-1, 4)
    except (KeyError, TypeError, ValueError):
        raise InvalidRow("invalid box", f"{item.get('bbox')!r}; expected x0, y0, x1, y1") from None
    if unit != "real":
        boxes = boxes * np.array(image_size * 2, float) / (NUM_BINS if unit == "norm_1000" else 1)
    return [Instance(label, validate_box(box, image_size)) for box in boxes]


def validate_annotation(annotation: Annotation, image_size: tuple[int, int], needs_polygons: bool) -> Instance:
    """Return an annotation as an instance.

    Raises:
        InvalidRow: if its box is not in the image, or if it lacks the polygons that the task needs.
    """
    box = validate_box(annotation.box, image_size)
    if needs_polygons and not annotation.polygons:
        raise InvalidRow("no polygon", "the segmentation is missing, empty or malformed")
    for polygon in annotation.polygons:
        if len(polygon) < 3 or not np.isfinite(polygon).all():
            raise InvalidRow("invalid polygon", f"expected at least three vertices x, y: {polygon.tolist()!r}")
    return Instance(annotation.label, box, annotation.polygons)


def validate_box(box: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Return a box (x0, y0, x1, y1) in pixels, clipped to the image.

    Raises:
        InvalidRow: if the box has no area or exceeds the image by more than `BOX_TOLERANCE`.
    """
    x0, y0, x1, y1 = box.tolist()
    width, height = image_size
    shown = f"({x0:g}, {y0:g}, {x1:g}, {y1:g}) in an image of {width} x {height} pixels"
    if not (x0 < x1 and y0 < y1):  # also if a coordinate is not a number
        raise InvalidRow("box without area", shown)
    if min(x0, y0) < -BOX_TOLERANCE or x1 > width + BOX_TOLERANCE or y1 > height + BOX_TOLERANCE:
        raise InvalidRow("box outside the image", shown)
    return np.clip(box, 0, np.array([width, height] * 2, float))


def summarize_row_errors(errors: Iterable[RowError], examples_per_kind: int = 5) -> str:
    """Return a text that counts errors by kind, the most frequent first, with the first ones of each kind."""
    by_kind: defaultdict[str, list[RowError]] = defaultdict(list)
    for error in errors:
        by_kind[error.kind].append(error)
    lines: list[str] = []
    for kind, same in sorted(by_kind.items(), key=lambda item: -len(item[1])):
        lines += [f"{len(same)} x {kind}", *(f"    {error}" for error in same[:examples_per_kind])]
        if len(same) > examples_per_kind:
            lines.append(f"    … and {len(same) - examples_per_kind} more")
    return "\n".join(lines)
