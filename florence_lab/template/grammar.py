"""Validation of target texts: whether a text is a whole answer in Florence-2's answer grammar.

`template/parsing.py` accepts what models generate and drops what is incomplete. A target must be complete: `validate_target` accepts
a text if and only if parsing it loses nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ..exceptions import ArgumentError, shorten
from ..results import Instances
from ..tasks import Task
from .locations import LOCATION_RE, NUM_BINS
from .parsing import build_result, group_by_label
from .prompts import Prompt
from .vocabulary import RESERVED_TOKENS, TokenSpan, split_text

_RESERVED_RE = re.compile("|".join(RESERVED_TOKENS))

# what looks like a location token: `<loc_0010>`, `<loc_1000>`, `<loc_-1>`, `<LOC_5>`, `<loc 5>`, `<loc_12`
_LOCATION_LIKE_RE = re.compile(r"<\s*loc(?:\s*[_\d-][^<>\s]*>?|>)", re.IGNORECASE)

_NUMBER_RE = re.compile(r"\d+")

_PIXELS_HINT = f"; write numbers as location tokens, x / width * {NUM_BINS} and y / height * {NUM_BINS}, as in sheep<loc_10><loc_20>…"

_LABELLED_RESULTS = ("grounding", "boxes_or_polygons", "quads")


class _Group(NamedTuple):
    """A label ("" if there is none) with the location tokens and separators behind it."""

    label: str
    body: list[TokenSpan]

    def __str__(self) -> str:
        return shorten(self.label) if self.label else "an instance without a label"


def validate_target(target: str, prompt: Prompt) -> str:
    """Return a target as the model is to generate it: complete, without blanks around labels and location tokens.

    Targets of free-form questions, and of task tokens that are not registered, are any text. "" is valid for all tasks: it teaches that there is nothing to find.

    Args:
        target: for example `"cat<loc_52><loc_333><loc_932><loc_774>"`.
        prompt: the prompt that the target answers.

    Raises:
        ArgumentError: if the text is no whole answer; the message names the part that is wrong, and what would do.
    """
    if not target.strip():
        return ""
    check_tokens(target)
    task = prompt.task
    if task.is_free_text:
        return target
    if task.result == "text":
        return _validate_text(target, prompt)
    spans = [span for span in split_text(target)[1] if span.text.strip()]
    groups = [_Group(label.text.strip() if label else "", body) for label, body in group_by_label(spans)]
    _check_labels(task, groups)
    for group in groups:
        _BODY_CHECKS[task.result](task, group)
    if task.result == "grounding":
        _check_groundable(spans, groups, prompt)
    return "".join(span.text.strip() for span in spans)


def requires_label(task: Task) -> bool:
    """Return whether each instance of an answer to the task needs a label."""
    return task.result in _LABELLED_RESULTS or (task.result == "boxes" and task.coco_label in ("category", "caption"))


def check_tokens(text: str) -> None:
    """Verify that a text contains no reserved token, and nothing that only looks like a location token.

    Raises:
        ArgumentError: if it does; the message names the token.
    """
    if reserved := _RESERVED_RE.search(text):
        raise ArgumentError(f"{reserved.group()} is a token of the tokenizer's own; remove it from {shorten(text)}")
    for match in _LOCATION_LIKE_RE.finditer(text):
        if not LOCATION_RE.fullmatch(match.group()):
            raise ArgumentError(
                f"{shorten(match.group())} is no location token; they are <loc_0> … <loc_{NUM_BINS - 1}>"
            )


def _validate_text(target: str, prompt: Prompt) -> str:
    """Check the answer of a task that answers with text. Behind it, a task about a region may repeat the region."""
    task, text, region = prompt.task, target, ""
    if task.input == "region" and target.rstrip().endswith(prompt.text):
        text, region = target.rstrip().removesuffix(prompt.text).strip(), prompt.text
    markup = "".join(span.text for span in split_text(text)[1] if not span.is_text)
    if markup:
        allowed = (
            f"with text, and behind it {prompt.text} or no location" if task.input == "region" else "with text only"
        )
        raise ArgumentError(f"{task.name} answers {allowed}, but got {shorten(markup)} in {shorten(target)}")
    if not text:
        raise ArgumentError(f"{task.name} answers with text, but got {shorten(target)}")
    return text + region


def _check_labels(task: Task, groups: Sequence[_Group]) -> None:
    """Verify that each label has locations, and that no label is missing. Only the first group can be without one."""
    for group in groups:
        if not any(span.bin is not None for span in group.body):
            hint = _PIXELS_HINT if len(_NUMBER_RE.findall(group.label)) >= 4 else ""
            raise ArgumentError(f"no location follows {group} in the answer to {task.name}{hint}")
    if groups[0].label:
        return
    if requires_label(task):
        body = _join(groups[0].body)
        raise ArgumentError(f"{task.name} needs a label in front of {body}, as in sheep{body}")
    if len(groups) > 1:
        raise ArgumentError(
            f"{_join(groups[0].body)} has no label, but {groups[1]} is one: either all instances have a label or none"
        )


def _check_groundable(spans: Sequence[TokenSpan], groups: Sequence[_Group], prompt: Prompt) -> None:
    """Verify that the parser drops no phrase: pronouns, and phrases such as `the image`, have no boxes."""
    boxes = sum(len(group.body) for group in groups) // 4
    result = build_result(spans, "", prompt, (NUM_BINS, NUM_BINS))
    if isinstance(result, Instances) and len(result) < boxes:
        labels = ", ".join(shorten(group.label) for group in groups)
        raise ArgumentError(f"pronouns, and phrases such as 'the image', have no boxes; remove them from {labels}")


def _check_boxes(task: Task, group: _Group) -> None:
    _check_no_separators(task, group.body, group)
    _check_box_corners(task, group.body, group)


def _check_box_corners(task: Task, locations: Sequence[TokenSpan], group: _Group) -> None:
    _check_count(task, locations, group, 4, "box x0, y0, x1, y1")
    for start in range(0, len(locations), 4):
        box = locations[start : start + 4]
        x0, y0, x1, y1 = (span.bin or 0 for span in box)
        if x0 > x1 or y0 > y1:
            raise ArgumentError(f"{_join(box)} behind {group} has swapped corners: x0 <= x1 and y0 <= y1 must hold")


def _check_quads(task: Task, group: _Group) -> None:
    _check_no_separators(task, group.body, group)
    _check_count(task, group.body, group, 8, "quad box of four corners x, y")


def _check_no_separators(task: Task, body: Sequence[TokenSpan], group: _Group) -> None:
    for span in body:
        if span.bin is None:
            raise ArgumentError(f"{span.text} behind {group} has no place in an answer to {task.name}")


def _check_count(task: Task, locations: Sequence[TokenSpan], group: _Group, count: int, name: str) -> None:
    if not locations or len(locations) % count:
        raise ArgumentError(
            f"{len(locations)} locations behind {group} are incomplete: {_join(locations)!r}; {task.name} has {count} for "
            f"each {name}"
        )


def _check_polygons(task: Task, group: _Group) -> None:
    for _, contours in _split_instances(group):
        for contour in contours:
            _check_polygon(contour, group)


def _check_boxes_or_polygons(task: Task, group: _Group) -> None:
    """Polygons stand between `<poly>` and `</poly>`, or have `<sep>` between them. All others are boxes."""
    _check_no_separators(task, [span for span in group.body if span.text == "<and>"], group)
    for separator, contours in _split_instances(group):
        if separator == "<poly>" or len(contours) > 1:
            for contour in contours:
                _check_polygon(contour, group)
        else:
            _check_box_corners(task, contours[0], group)


def _check_polygon(contour: Sequence[TokenSpan], group: _Group) -> None:
    if len(contour) % 2 or len(contour) < 6:
        raise ArgumentError(
            f"{len(contour)} locations of a polygon behind {group} are incomplete: {_join(contour)!r}; a polygon has three or "
            "more pairs x, y"
        )


def _split_instances(group: _Group) -> Iterator[tuple[str, list[list[TokenSpan]]]]:
    """Yield the separator before each instance ("" if there is none), and its contours, which `<sep>` separates."""
    instances: list[tuple[str, list[list[TokenSpan]]]] = [("", [[]])]
    for span in group.body:
        separator, contours = instances[-1]
        if span.bin is not None:
            contours[-1].append(span)
        elif span.text == "<sep>":
            contours.append([])
        elif (separator == "<poly>") != (span.text == "</poly>"):
            raise ArgumentError(f"{span.text} behind {group} is out of place: <poly> and </poly> must come in pairs")
        else:
            instances.append((span.text, [[]]))
    if instances[-1][0] == "<poly>":
        raise ArgumentError(f"</poly> is missing behind {group}: <poly> and </poly> must come in pairs")
    following = [separator for separator, _ in instances[1:]] + [""]
    for (separator, contours), next_separator in zip(instances, following, strict=True):
        # nothing has to stand before <poly> and behind </poly>
        if contours != [[]] or separator not in ("", "</poly>") or next_separator not in ("", "<poly>"):
            yield separator, contours


def _join(spans: Sequence[TokenSpan]) -> str:
    text = "".join(span.text for span in spans)
    return text if len(text) <= 80 else f"{text[:77]}..."


_BODY_CHECKS: dict[str, Callable[[Task, _Group], None]] = {
    "boxes": _check_boxes,
    "grounding": _check_boxes,
    "boxes_or_polygons": _check_boxes_or_polygons,
    "quads": _check_quads,
    "polygons": _check_polygons,
}
"""`Task.result` -> the check of what follows a label."""
