"""TODO"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..geometry import polygons_to_xyxy
from ..results import Boxes, Polygons, Quads, Result, Text
from ..tasks import Task, get_task
from .confidence import instance_score
from .locations import bins_to_pixels
from .vocabulary import _SEPARATORS, NOT_GROUNDABLE

if TYPE_CHECKING:
    from PIL import Image

    from .confidence import TokenProbabilities
    from .vocabulary import TokenSpan


@dataclass
class _Instance:
    """One thing as parsed: a label and the location bins that follow it, still without pixels."""

    label: str
    label_tokens: tuple[int, ...]
    outlines: list[list[TokenSpan]]  # location pieces; one list, or one per polygon
    is_polygon: bool = False

    @property
    def locations(self) -> list[TokenSpan]:
        return [piece for outline in self.outlines for piece in outline]


def _groups(pieces: Sequence[TokenSpan]) -> list[tuple[TokenSpan | None, list[TokenSpan]]]:
    """A label (None where there is none) and what follows it up to the next label; labels alone are passed over."""
    groups: list[tuple[TokenSpan | None, list[TokenSpan]]] = []
    for piece in pieces:
        is_words = piece.location is None and piece.text not in _SEPARATORS
        if is_words and piece.text.strip():
            groups.append((piece, []))
        elif not is_words:
            if not groups:
                groups.append((None, []))
            groups[-1][1].append(piece)
    return groups


def _things(body: Sequence[TokenSpan]) -> list[tuple[str, list[list[TokenSpan]]]]:
    """What follows a label: `<and>`, `<poly>` and `</poly>` part things, `<sep>` parts the outlines of one thing.

    Gives the mark in front of each thing ("" where there is none), and its outlines.
    """
    things: list[tuple[str, list[list[TokenSpan]]]] = [("", [[]])]
    for piece in body:
        if piece.location is not None:
            things[-1][1][-1].append(piece)
        elif piece.text == "<sep>":
            things[-1][1].append([])
        else:
            things.append((piece.text, [[]]))
    return things


def _read_boxes(
    label: TokenSpan | None, mark: str, outlines: list[list[TokenSpan]], coordinates: int = 4
) -> list[_Instance]:
    """Every four location tokens are one more box of the label in front of them; a cut-off box is dropped."""
    return [
        _instance(label, [outline[start : start + coordinates]])
        for outline in outlines
        for start in range(0, len(outline) - coordinates + 1, coordinates)
    ]


def _read_quads(label: TokenSpan | None, mark: str, outlines: list[list[TokenSpan]]) -> list[_Instance]:
    return _read_boxes(label, mark, outlines, coordinates=8)


def _read_polygons(label: TokenSpan | None, mark: str, outlines: list[list[TokenSpan]]) -> list[_Instance]:
    # a coordinate without its partner is cut off, and it takes three points to make an outline
    whole = [outline[: len(outline) // 2 * 2] for outline in outlines]
    whole = [outline for outline in whole if len(outline) >= 6]
    return [_instance(label, whole, is_polygon=True)] if whole else []


def _read_either(label: TokenSpan | None, mark: str, outlines: list[list[TokenSpan]]) -> list[_Instance]:
    """Open-vocabulary detection marks its polygons with `<poly>` or `<sep>`; what has no mark is boxes."""
    read = _read_polygons if mark == "<poly>" or len(outlines) > 1 else _read_boxes
    return read(label, mark, outlines)


def _instance(label: TokenSpan | None, outlines: list[list[TokenSpan]], is_polygon: bool = False) -> _Instance:
    return _Instance(label.text.strip() if label else "", label.tokens if label else (), outlines, is_polygon)


def _phrase_of_caption(label: str, caption: str) -> str:
    """A label that is no part of the caption, but for its doubled beginning (`thethe sheeps`), is cut down to that part."""
    caption = caption.lower()
    if label.lower() in caption:
        return label
    for i in range(1, len(label)):
        beginning, rest = label[:i].strip().lower(), label[i:].lower()
        if rest.startswith(beginning) and re.search(rf"\b{re.escape(rest)}", caption):
            return label[i:]
    return label


def _build_result(
    pieces: Sequence[TokenSpan],
    raw: str,
    task: str | Task,
    image_size: tuple[int, int],
    phrase: str = "",
    probabilities: TokenProbabilities | None = None,
    image: Image.Image | None = None,
) -> Result:
    task = task if isinstance(task, Task) else get_task(task)
    common = {
        "raw": raw,
        "image_size": image_size,
        "task": task.token,
        "prompt": task.prompt.replace("{input}", phrase),
        "phrase": phrase,
        "image": image,
    }
    if task.result == "text":
        words = "".join(piece.text for piece in pieces if piece.location is None and piece.text not in _SEPARATORS)
        return Text(text=words.strip(), **common)

    read, build = _PARSERS[task.result]
    instances = [
        instance
        for label, body in _groups(pieces)
        for mark, outlines in _things(body)
        for instance in read(label, mark, outlines)
    ]
    if task.result == "grounding":
        for instance in instances:
            instance.label = _phrase_of_caption(instance.label, phrase)
        instances = [instance for instance in instances if instance.label.lower() not in NOT_GROUNDABLE]
    common["labels"] = tuple(instance.label for instance in instances)
    if probabilities is not None:
        common["scores"] = np.array([_score(instance, probabilities) for instance in instances], np.float64)
    return build(instances, common)


def _pixels(locations: Sequence[TokenSpan], image_size: tuple[int, int]) -> np.ndarray:
    return bins_to_pixels([piece.location for piece in locations], image_size)


def _outlines_in_pixels(instance: _Instance, image_size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    return tuple(_pixels(outline, image_size).reshape(-1, 2) for outline in instance.outlines)


def _build_boxes(instances: Sequence[_Instance], common: dict[str, Any]) -> Boxes:
    size = common["image_size"]
    outlines = tuple(_outlines_in_pixels(i, size) if i.is_polygon else () for i in instances)
    # a box is the extent of two corners, of whichever the model named first
    boxes = [polygons_to_xyxy(o or _outlines_in_pixels(i, size)) for i, o in zip(instances, outlines, strict=True)]
    return Boxes(boxes=np.array(boxes, np.float64).reshape(-1, 4), polygons=outlines if any(outlines) else (), **common)


def _build_quads(instances: Sequence[_Instance], common: dict[str, Any]) -> Quads:
    quads = [_pixels(i.locations, common["image_size"]) for i in instances]
    return Quads(quads=np.array(quads, np.float64).reshape(-1, 4, 2), **common)


def _build_polygons(instances: Sequence[_Instance], common: dict[str, Any]) -> Polygons:
    return Polygons(polygons=tuple(_outlines_in_pixels(i, common["image_size"]) for i in instances), **common)


_PARSERS: dict[str, tuple[Callable[..., list[_Instance]], Callable[..., Result]]] = {
    "boxes": (_read_boxes, _build_boxes),
    "grounding": (_read_boxes, _build_boxes),
    "boxes_or_polygons": (_read_either, _build_boxes),
    "quads": (_read_quads, _build_quads),
    "polygons": (_read_polygons, _build_polygons),
}


def _score(instance: _Instance, probabilities: TokenProbabilities) -> float:
    locations = instance.locations
    at = [piece.tokens[0] for piece in locations]
    return instance_score(
        probabilities.chosen[list(instance.label_tokens)],
        probabilities.locations[at],
        np.array([piece.location for piece in locations]),
    )
