"""TODO"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..template.locations import format_location_tokens
from ..template.template import FlorenceTemplate
from .examples import Example, ScenePicture, open_picture
from .rows import BOX_UNITS, RowError, _Bad

if TYPE_CHECKING:
    from .rows import Record

OUTSIDE = 1.0
"""Pixels by which a box may leave its picture and still be taken for one that was rounded."""


def summarize_row_errors(problems: Sequence[RowError], shown: int = 5) -> str:
    """How many rows have which fault, each with its first ones."""
    kinds = defaultdict(list)
    for problem in problems:
        kinds[problem.reason.split(":")[0]].append(problem)
    lines = []
    for kind, same in sorted(kinds.items(), key=lambda item: -len(item[1])):
        lines.append(f"{len(same)} x {kind}")
        lines += [f"    {problem}" for problem in same[:shown]]
        lines += [f"    … and {len(same) - shown} more"] if len(same) > shown else []
    return "\n".join(lines)


class _Check(NamedTuple):
    """A row -> its examples, or what is wrong with it."""

    dataset: str
    template: FlorenceTemplate
    max_length: int
    answered: bool

    def __call__(self, numbered: tuple[int, Record | str]) -> tuple[list[Example], RowError | None]:
        number, record = numbered
        try:
            return self.examples(record, f"{self.dataset}, row {number}"), None
        except _Bad as bad:
            return [], RowError(self.dataset, number, str(bad))

    def examples(self, record: Record | str, source: str) -> list[Example]:
        if isinstance(record, str):  # what the reader of the file has to say about it
            raise _Bad(record)
        size = self.size(record.image)
        return [self.example(record.image, query, answer, size, source) for query, answer in _questions(record, size)]

    def size(self, image: Any) -> tuple[int, int]:
        if isinstance(image, ScenePicture):
            return image.size, image.size
        try:
            return open_picture(image).size
        except ValueError as error:
            raise _Bad(f"no picture: {error}") from error

    def example(self, image: Any, query: str, answer: str, size: tuple[int, int], source: str) -> Example:
        try:
            prompt = self.template.build_prompt(query, image_size=size)
        except ValueError as error:
            raise _Bad(f"no question for a task: {error}") from error
        if self.answered and not answer.strip():
            raise _Bad("the answer is empty")
        length = len(self.template.tokenizer(answer)["input_ids"])
        if length > self.max_length:
            raise _Bad(f"the answer is too long: {length} tokens, with --max_length {self.max_length}")
        return Example(image, prompt.task.token, prompt.text, prompt.prompt, answer, source)


def _questions(record: Record, size: tuple[int, int]) -> list[tuple[str, str]]:
    """(query, answer) pairs of a row, boxes as location tokens."""
    if not record.objects:
        return [(record.query, record.response)]
    named = [_read_object(thing, size) for thing in record.objects]
    if "<bbox>" in record.query and "<ref-object>" in record.response:
        return [("<REGION_TO_DESCRIPTION>" + box, caption + box) for caption, boxes in named for box in boxes]
    if "<ref-object>" in record.query and "<bbox>" in record.response:
        phrases = " and ".join(dict.fromkeys(caption for caption, _ in named))
        return [("<OPEN_VOCABULARY_DETECTION>" + phrases, "".join(name + "".join(boxes) for name, boxes in named))]
    raise _Bad(
        "objects without a place: a row with objects has <bbox> in its query and <ref-object> in its response, or the "
        "other way round"
    )


def _read_object(thing: dict, size: tuple[int, int]) -> tuple[str, list[str]]:
    """Caption, and the location tokens of each of its boxes."""
    caption = str(thing.get("caption", "")).strip()
    if not caption:
        raise _Bad(f"an object without a caption: {json.dumps(thing, ensure_ascii=False)[:100]}")
    if thing.get("image", 0) not in (0, None):
        raise _Bad(f"more than one picture: an object of image {thing['image']}, but a row has one image")
    kind = thing.get("bbox_type", "real")
    if kind not in BOX_UNITS:
        raise _Bad(f"unknown bbox_type: {kind!r}, give {', '.join(BOX_UNITS)}")
    try:
        boxes = np.array(thing["bbox"], float).reshape(-1, 4)
    except (KeyError, TypeError, ValueError):
        raise _Bad(f"no box: {thing.get('bbox')!r}, give x0, y0, x1, y1") from None
    return caption, [_box_tokens(box, size) for box in boxes * BOX_UNITS[kind](size)]


def _box_tokens(box: np.ndarray, size: tuple[int, int]) -> str:
    """Pixels -> four location tokens; a box has an area and lies in its picture."""
    x0, y0, x1, y1 = box
    readable = f"({x0:g}, {y0:g}, {x1:g}, {y1:g}) in a picture of {size[0]} x {size[1]}"
    if not (x0 < x1 and y0 < y1):
        raise _Bad(f"a box without an area: {readable}")
    if min(x0, y0) < -OUTSIDE or x1 > size[0] + OUTSIDE or y1 > size[1] + OUTSIDE:
        raise _Bad(f"a box outside its picture: {readable}")
    return format_location_tokens(box, size)
