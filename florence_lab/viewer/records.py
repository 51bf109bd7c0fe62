"""Results as the plain values that the front end draws: instances, and the generated text cut into segments."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, MutableMapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from ..results import Boxes, Instances, Polygons, Quads, Result, Text
from ..tasks import TASKS, ResultKind, get_task
from ..template.locations import LOCATION_RE, bins_to_pixels, parse_location_tokens, pixels_to_bins
from ..template.parsing import ParsedInstance, parse_instances
from ..template.vocabulary import RESERVED_TOKENS, SEPARATORS, TokenSpan, split_text

Styles = MutableMapping[str | int, int]
"""Label -> index of its color and dash. Pass one mapping for all answers that are shown together, so that they agree."""

Segment = list[Any]
"""`[text, kind, indices of the instances it belongs to]`; the kind is "text", "x", "y" or "mark"."""

_SMALL_SIDE = 100
"""Images with a shorter side have coordinates of two decimals: a hundredth of a bin is still visible when they are enlarged."""

_TOKEN_RE = re.compile(f"({'|'.join([LOCATION_RE.pattern, *SEPARATORS, *map(re.escape, RESERVED_TOKENS)])})")
_RESERVED = frozenset(RESERVED_TOKENS)
_REGION_RE = re.compile(f"(?:{LOCATION_RE.pattern}){{4}}")

_KINDS: dict[type[Result], ResultKind] = {Quads: "quads", Polygons: "polygons", Boxes: "boxes"}
"""How the answer of a task that is not registered was parsed."""

_Key = tuple[tuple[int, ...], ...]
"""The coordinates of an instance as location bins, one tuple for each contour, by which instances are recognized."""


def answer_record(
    result: Result,
    *,
    id: int = 0,
    image: str = "",
    model: str = "",
    times: str = "",
    complete: bool = True,
    task_name: str | None = None,
    text: str | None = None,
    regions: Sequence[Sequence[float]] | None = None,
    styles: Styles | None = None,
) -> dict[str, Any]:
    """Return an entry of `Viewer.answers`.

    Args:
        result: the result.
        id: identifies the answer.
        image: name of the image.
        model: name of the model.
        times: how long the model took, in words.
        complete: False while the answer grows.
        task_name: the task in words; by default its title.
        text: what was asked besides the task; by default the phrase of the result, regions in pixels.
        regions: the regions that were asked about, (x0, y0, x1, y1) in pixels each; by default those in the phrase.
        styles: the numbering of labels, which new labels are added to.
    """
    record = {
        "id": id,
        "task": result.task,
        "task_name": _task_title(result) if task_name is None else task_name,
        "text": phrase_in_words(result) if text is None else text,
        "image": image,
        "model": model,
        "times": times,
        "complete": complete,
        "truncated": result.truncated,
        "kind": "instances" if isinstance(result, Instances) else "text",
        "answer": result.text if isinstance(result, Text) else "",
        "prompt": result.prompt,
        "regions": phrase_regions(result).round(1).tolist() if regions is None else [list(r) for r in regions],
    }
    styles = {} if styles is None else styles
    instances = instance_records(result, styles) if isinstance(result, Instances) else []
    return record | {"instances": instances, "segments": segments(result)}


def instance_records(result: Instances, styles: Styles) -> list[dict[str, Any]]:
    """Return the instances of a result.

    Each is a dict: `label`; `score` or None; `box`, four pixels; `contours`, lists x, y, x, y … of pixels, none for a box;
    `filled`, whether the contours are the outline of a mask; `style`, the index of color and dash.
    """
    decimals = 1 if min(result.image_size) >= _SMALL_SIDE else 2
    labels = result.class_names.tolist()
    scores = [None] * len(labels) if result.scores is None else result.scores.tolist()
    boxes = result.xyxy.round(decimals).tolist()
    is_quad = isinstance(result, Quads)
    return [
        {
            "label": label,
            "score": score,
            "box": box,
            "contours": [contour.round(decimals).ravel().tolist() for contour in contours],
            "filled": bool(contours) and not is_quad,
            "style": number,
        }
        for label, score, box, contours, number in zip(
            labels, scores, boxes, result.contours, number_styles(result, styles), strict=True
        )
    ]


def number_styles(result: Instances, styles: Styles) -> list[int]:
    """Return the style of each instance, and add new labels to the numbering. Unlabelled instances all differ.

    Classes that were asked for have the number of the class, which is the same in all images.
    """
    class_ids = result.class_ids if isinstance(result, Boxes) else None
    numbers = []
    for i, label in enumerate(result.class_names.tolist()):
        free = max(styles.values(), default=-1) + 1
        numbers.append(styles.setdefault(label or i, free if class_ids is None else int(class_ids[i])))
    return numbers


def phrase_regions(result: Result) -> np.ndarray:
    """Return the regions in the phrase of a result: N x 4 pixels (x0, y0, x1, y1)."""
    bins = [parse_location_tokens(match[0]) for match in _REGION_RE.finditer(result.phrase)]
    return bins_to_pixels(np.reshape(bins, (-1, 4)), result.image_size)


def phrase_in_words(result: Result) -> str:
    """Return the phrase of a result with `region (x0, y0, x1, y1)` in pixels in place of location tokens."""
    boxes = iter(phrase_regions(result))
    return _REGION_RE.sub(lambda match: "region ({:.0f}, {:.0f}, {:.0f}, {:.0f})".format(*next(boxes)), result.phrase)


def _task_title(result: Result) -> str:
    is_known = not result.task or result.task in TASKS
    return get_task(result.task).title if is_known else result.task


def segments(result: Result) -> list[Segment]:
    """Cut the generated text of a result into segments, whose texts joined are `result.raw`.

    The parser of answers says which tokens an instance consists of. An instance of the result is the one that was parsed from
    the same coordinates: selections, other orders and other labels keep their tokens. An instance that is not in the text, as
    in a ground truth without text, has no segment.
    """
    _, spans = split_text(result.raw)
    pieces, numbers = _cut(result.raw)
    if _join(pieces, numbers) != [span.text for span in spans]:
        return [[result.raw, "text", []]]  # leaving out a reserved token makes another token of what stands around it
    owners = _span_owners(result, spans) if isinstance(result, Instances) else {}
    kinds = list(_span_kinds(spans))
    return [
        [piece, "mark", []] if number is None else [piece, kinds[number], owners.get(number, [])]
        for piece, number in zip(pieces, numbers, strict=True)
    ]


def _cut(raw: str) -> tuple[list[str], list[int | None]]:
    """Return the pieces of a text, and the index of the span that each is part of.

    It is None for reserved tokens, which may stand within the text of one span.
    """
    pieces: list[str] = []
    numbers: list[int | None] = []
    count, is_text = 0, False
    for i, piece in enumerate(_TOKEN_RE.split(raw)):
        is_token = i % 2 == 1
        if not piece:
            continue
        pieces.append(piece)
        if is_token and piece in _RESERVED:
            numbers.append(None)
            continue
        count += is_token or not is_text  # text behind a reserved token continues the text before it
        is_text = not is_token
        numbers.append(count - 1)
    return pieces, numbers


def _join(pieces: Sequence[str], numbers: Sequence[int | None]) -> list[str]:
    """Return the texts of the spans that the pieces are part of."""
    texts: defaultdict[int, str] = defaultdict(str)
    for piece, number in zip(pieces, numbers, strict=True):
        if number is not None:
            texts[number] += piece
    return list(texts.values())


def _span_kinds(spans: Sequence[TokenSpan]) -> Iterator[str]:
    """Yield the kind of each span. The first location after a label or a separator is an x; blanks are no label."""
    is_x = True
    for span in spans:
        if span.bin is not None:
            yield "x" if is_x else "y"
            is_x = not is_x
        else:
            yield "text" if span.is_text else "mark"
            is_x = is_x if span.is_text and not span.text.strip() else True


def _span_owners(result: Instances, spans: Sequence[TokenSpan]) -> dict[int, list[int]]:
    """Return span -> the instances of the result that it belongs to. Positions in `spans` count the spans."""
    owners: defaultdict[int, list[int]] = defaultdict(list)
    answers = _split_answers(spans) if _is_classified(result) else [spans]
    parsed = [i for answer in answers for i in parse_instances(answer, _parsed_kind(result), result.phrase)]
    for number, instance in _match(result, parsed):
        for position in {*instance.label_positions, *(span.positions[0] for span in instance.location_spans)}:
            owners[position].append(number)  # in ascending order
    return owners


def _is_classified(result: Instances) -> bool:
    """Whether a result is one of `Predictor.detect`, whose text holds the answers to several questions, one a line."""
    return isinstance(result, Boxes) and result.class_ids is not None


def _split_answers(spans: Sequence[TokenSpan]) -> list[list[TokenSpan]]:
    answers: list[list[TokenSpan]] = [[]]
    for span in spans:
        if span.is_text and "\n" in span.text:
            answers.append([])
        answers[-1].append(span)
    return answers


def _parsed_kind(result: Instances) -> ResultKind:
    if isinstance(result, Boxes) and any(result.contours):
        return "boxes_or_polygons"  # `Predictor.detect` names a task of boxes whatever it has asked
    task = TASKS.get(result.task)
    return _KINDS[type(result)] if task is None or task.result == "text" else task.result


def _match(result: Instances, parsed: Sequence[ParsedInstance]) -> Iterator[tuple[int, ParsedInstance]]:
    """Yield instances of the result with what they were parsed from.

    Of several instances at one place the one with the same label is taken, and equal ones in their order. If no label decides,
    as after `with_labels`, there is no match.
    """
    at: defaultdict[_Key, list[ParsedInstance]] = defaultdict(list)
    for instance in parsed:
        at[_parsed_key(instance, result)].append(instance)
    taken: defaultdict[tuple[_Key, str], int] = defaultdict(int)
    for number, (key, label) in enumerate(zip(_result_keys(result), result.labels.tolist(), strict=True)):
        candidates = at.get(key, [])
        same = [candidate for candidate in candidates if candidate.label == label]
        if not same and _is_classified(result):  # a region without a label got its class
            same = [candidate for candidate in candidates if not candidate.label]
        if not same and len({candidate.label for candidate in candidates}) == 1:
            same = candidates
        if same:
            # `Predictor.detect` may return one box for several classes: the last one is taken again
            yield number, same[min(taken[key, same[0].label], len(same) - 1)]
            taken[key, same[0].label] += 1


def _parsed_key(instance: ParsedInstance, result: Instances) -> _Key:
    contours = tuple(tuple(span.bin or 0 for span in contour) for contour in instance.contours)
    if instance.is_polygon or isinstance(result, Quads):
        return contours
    x, y = sorted(contours[0][0::2]), sorted(contours[0][1::2])  # the corners of a box may come in any order
    return ((x[0], y[0], x[-1], y[-1]),)


def _result_keys(result: Instances) -> list[_Key]:
    boxes = [tuple(box) for box in pixels_to_bins(result.xyxy, result.image_size).tolist()]
    all_contours = [contour for contours in result.contours for contour in contours]
    if not all_contours:
        return [(box,) for box in boxes]
    flat = pixels_to_bins(np.concatenate(all_contours), result.image_size).ravel().tolist()
    ends = [0, *accumulate(2 * len(contour) for contour in all_contours)]
    bins = iter([tuple(flat[start:end]) for start, end in pairwise(ends)])
    return [
        tuple(next(bins) for _ in contours) if contours else (box,)
        for box, contours in zip(boxes, result.contours, strict=True)
    ]
