"""From spans of generated tokens to a typed result in pixels."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..geometry import polygons_to_xyxy
from ..results import Boxes, Instances, Polygons, Quads, Result, Text
from ..tasks import ResultKind
from .confidence import TokenProbabilities, instance_score
from .locations import bins_to_pixels
from .prompts import Prompt
from .vocabulary import NOT_GROUNDABLE, TokenSpan

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class ParsedInstance:
    """An instance as generated: its label, and its coordinates as location bins.

    Attributes:
        label: "" if there is none.
        label_positions: indices of the label's tokens in the generated sequence.
        contours: location spans; one list for a box or quad box, one per polygon otherwise.
        is_polygon: whether the contours are polygons.
    """

    label: str
    label_positions: tuple[int, ...]
    contours: list[list[TokenSpan]]
    is_polygon: bool = False

    @property
    def location_spans(self) -> list[TokenSpan]:
        """The location spans of all contours."""
        return [span for contour in self.contours for span in contour]

    def to_pixels(self, image_size: tuple[int, int]) -> tuple[np.ndarray, ...]:
        """Each contour as K x 2 pixels."""
        return tuple(bins_to_pixels([s.bin for s in c], image_size).reshape(-1, 2) for c in self.contours)


class ResultFormat(NamedTuple):
    """How answers of one kind are parsed.

    Attributes:
        parse: label, separator before the instance, and its location spans (one list per contour) -> instances.
        build: instances, and the fields that all results share -> result.
        coordinates: location tokens per instance; None if it varies.
    """

    parse: Callable[[TokenSpan | None, str, list[list[TokenSpan]]], list[ParsedInstance]]
    build: Callable[[Sequence[ParsedInstance], dict[str, Any]], Instances]
    coordinates: int | None


def build_result(
    spans: Sequence[TokenSpan],
    raw: str,
    prompt: Prompt,
    image_size: tuple[int, int],
    probabilities: TokenProbabilities | None = None,
    image: Image.Image | None = None,
    truncated: bool = False,
) -> Result:
    """Build the typed result of an answer.

    Args:
        spans: the answer, see `Vocabulary.split` and `split_text`.
        raw: the answer as generated.
        prompt: the prompt that the sequence answers.
        image_size: (width, height) in pixels.
        probabilities: of the generated tokens; without them the result has no scores.
        image: stored in the result.
        truncated: stored in the result.
    """
    task = prompt.task
    shared: dict[str, Any] = {
        "raw": raw,
        "image_size": image_size,
        "task": task.token,
        "prompt": prompt.prompt,
        "phrase": prompt.text,
        "image": image,
        "truncated": truncated,
    }
    if task.result == "text":
        return Text(text="".join(span.text for span in spans if span.is_text).strip(), **shared)

    instances = parse_instances(spans, task.result, prompt.text)
    shared["labels"] = np.array([i.label for i in instances], dtype=str)
    if probabilities is not None:
        shared["scores"] = np.array([_score_instance(i, probabilities) for i in instances], np.float64)
    return RESULT_FORMATS[task.result].build(instances, shared)


def parse_instances(spans: Sequence[TokenSpan], kind: ResultKind, phrase: str = "") -> list[ParsedInstance]:
    """Return the instances of an answer, in their order.

    Args:
        spans: the answer, see `Vocabulary.split` and `split_text`.
        kind: a key of `RESULT_FORMATS`.
        phrase: the caption whose phrases were grounded; other kinds ignore it.
    """
    instances = [
        instance
        for label, body in group_by_label(spans)
        for separator, contours in _split_instances(body)
        for instance in RESULT_FORMATS[kind].parse(label, separator, contours)
    ]
    if kind != "grounding":
        return instances
    instances = [replace(i, label=_restore_caption_phrase(i.label, phrase)) for i in instances]
    return [i for i in instances if i.label.lower() not in NOT_GROUNDABLE]


def drop_incomplete(result: Result) -> Result:
    """Remove from a growing result what the next token may still change.

    That is half of a multi-byte character at the end of a text, or a last polygon, which may get more vertices.
    """
    if isinstance(result, Text):
        return replace(result, text=result.text.rstrip("\ufffd"), raw=result.raw.rstrip("\ufffd"))
    if isinstance(result, (Boxes, Polygons)) and len(result) and result.polygons and len(result.polygons[-1]):
        return result[:-1]
    return result


def group_by_label(spans: Sequence[TokenSpan]) -> list[tuple[TokenSpan | None, list[TokenSpan]]]:
    """Return locations and separators by the label before them (None if there is none). Blank labels are skipped."""
    groups: list[tuple[TokenSpan | None, list[TokenSpan]]] = []
    for span in spans:
        if span.is_text and span.text.strip():
            groups.append((span, []))
        elif not span.is_text:
            if not groups:
                groups.append((None, []))
            groups[-1][1].append(span)
    return groups


def _split_instances(body: Sequence[TokenSpan]) -> list[tuple[str, list[list[TokenSpan]]]]:
    """Split the locations of one label into instances, and each instance into contours.

    `<and>`, `<poly>` and `</poly>` separate instances, `<sep>` separates the contours of one instance. Returns the separator
    before each instance ("" if there is none) and its contours.
    """
    instances: list[tuple[str, list[list[TokenSpan]]]] = [("", [[]])]
    for span in body:
        if span.bin is not None:
            instances[-1][1][-1].append(span)
        elif span.text == "<sep>":
            instances[-1][1].append([])
        else:
            instances.append((span.text, [[]]))
    return instances


def _parse_boxes(
    label: TokenSpan | None, separator: str, contours: list[list[TokenSpan]], coordinates: int = 4
) -> list[ParsedInstance]:
    """Parse each four locations as a box. A truncated last box is dropped."""
    return [
        _make_instance(label, [contour[start : start + coordinates]])
        for contour in contours
        for start in range(0, len(contour) - coordinates + 1, coordinates)
    ]


def _parse_quads(label: TokenSpan | None, separator: str, contours: list[list[TokenSpan]]) -> list[ParsedInstance]:
    return _parse_boxes(label, separator, contours, coordinates=8)


def _parse_polygons(label: TokenSpan | None, separator: str, contours: list[list[TokenSpan]]) -> list[ParsedInstance]:
    # an x without its y was truncated, and a polygon has at least three vertices
    complete = [contour[: len(contour) // 2 * 2] for contour in contours]
    complete = [contour for contour in complete if len(contour) >= 6]
    return [_make_instance(label, complete, is_polygon=True)] if complete else []


def _parse_boxes_or_polygons(
    label: TokenSpan | None, separator: str, contours: list[list[TokenSpan]]
) -> list[ParsedInstance]:
    """Open-vocabulary detection marks polygons with `<poly>` or `<sep>`; everything else is boxes."""
    parse = _parse_polygons if separator == "<poly>" or len(contours) > 1 else _parse_boxes
    return parse(label, separator, contours)


def _make_instance(
    label: TokenSpan | None, contours: list[list[TokenSpan]], is_polygon: bool = False
) -> ParsedInstance:
    return ParsedInstance(label.text.strip() if label else "", label.positions if label else (), contours, is_polygon)


def _restore_caption_phrase(label: str, caption: str) -> str:
    """Remove a doubled beginning (`thethe sheep`) from a label that is no phrase of the caption."""
    caption = caption.lower()
    if label.lower() in caption:
        return label
    for i in range(max(1, len(label) - len(caption)), len(label)):  # a longer rest is no part of the caption
        beginning, rest = label[:i].strip().lower(), label[i:].lower()
        if rest.startswith(beginning) and re.search(rf"\b{re.escape(rest)}", caption):
            return label[i:]
    return label


def _build_boxes(instances: Sequence[ParsedInstance], shared: dict[str, Any]) -> Boxes:
    contours = [instance.to_pixels(shared["image_size"]) for instance in instances]
    # the corners of a box may come in any order
    boxes = np.array([polygons_to_xyxy(c) for c in contours], np.float64).reshape(-1, 4)
    polygons = tuple(c if i.is_polygon else () for i, c in zip(instances, contours, strict=True))
    return Boxes(boxes=boxes, polygons=polygons if any(polygons) else (), **shared)


def _build_quads(instances: Sequence[ParsedInstance], shared: dict[str, Any]) -> Quads:
    quads = [instance.to_pixels(shared["image_size"])[0] for instance in instances]
    return Quads(quads=np.array(quads, np.float64).reshape(-1, 4, 2), **shared)


def _build_polygons(instances: Sequence[ParsedInstance], shared: dict[str, Any]) -> Polygons:
    return Polygons(polygons=tuple(instance.to_pixels(shared["image_size"]) for instance in instances), **shared)


RESULT_FORMATS: dict[str, ResultFormat] = {
    "boxes": ResultFormat(_parse_boxes, _build_boxes, 4),
    "grounding": ResultFormat(_parse_boxes, _build_boxes, 4),
    "boxes_or_polygons": ResultFormat(_parse_boxes_or_polygons, _build_boxes, None),
    "quads": ResultFormat(_parse_quads, _build_quads, 8),
    "polygons": ResultFormat(_parse_polygons, _build_polygons, None),
}
"""`Task.result` -> its format. `text` has no instances and needs none."""


def _score_instance(instance: ParsedInstance, probabilities: TokenProbabilities) -> float:
    locations = instance.location_spans
    return instance_score(
        probabilities.generated[list(instance.label_positions)],
        probabilities.locations[[span.positions[0] for span in locations]],
        np.array([span.bin for span in locations]),
    )
