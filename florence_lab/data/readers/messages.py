"""Conversations as training files have them: ms-swift 3's `messages` and LLaVA's `conversations`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...exceptions import shorten, warn
from ..rows import BoxUnit, InvalidRow
from .boxes import read_box
from .files import parse_json

# the names of ms-swift, OpenAI and LLaVA
_ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}

_IMAGE_RE = re.compile(r"\A\s*<image>\s*|\s*<image>\s*\Z")
_PLACEHOLDER_RE = re.compile("<ref-object>|<bbox>")

BOX_TYPES: Mapping[str, BoxUnit] = {
    "real": "real",
    "norm1": "norm_1",
    "norm_1": "norm_1",
    "norm1000": "norm_1000",
    "norm_1000": "norm_1000",
}
"""`bbox_type` in the spellings of ms-swift 3 and 2 -> unit of the boxes."""


class Turn(NamedTuple):
    """A prompt with its answer.

    Attributes:
        query: the prompt.
        response: the answer; None if it is null.
        has_response: whether there is an answer at all.
        images: images that the messages themselves contain.
    """

    query: str
    response: Any
    has_response: bool
    images: list[Any]


class Filled(NamedTuple):
    """A turn whose `<ref-object>` are filled, and the boxes for its `<bbox>`."""

    query: Any
    response: Any
    boxes: tuple[tuple[float, ...], ...]
    unit: BoxUnit


def read_messages(messages: Any) -> Turn:
    """Return the only turn of a conversation.

    Args:
        messages: `{"role", "content"}` or LLaVA's `{"from", "value"}` each; or a JSON text of them. A content is a text, or a
            list of `{"type": "text", "text"}` and `{"type": "image", "image"}`.

    Raises:
        InvalidRow: for anything else, and for more than one turn.
    """
    messages = parse_json(messages) if isinstance(messages, str) else messages
    if not isinstance(messages, (list, tuple)):
        raise InvalidRow("invalid messages", f"expected a list of messages, but got {shorten(messages)}")
    contents: list[tuple[str, Any]] = []
    images: list[Any] = []
    for message in messages:
        role, content = _read_message(message, images)
        if role == "system":
            warn_of_system_prompt(content)
        else:
            contents.append((role, content))
    roles = [role for role, _ in contents]
    if roles.count("user") > 1:
        raise InvalidRow(
            "more than one turn",
            f"{roles.count('user')} prompts; Florence-2 answers single prompts: write a row for each",
        )
    if roles not in (["user"], ["user", "assistant"]):
        raise InvalidRow(
            "invalid messages", f"expected user and assistant, but got {', '.join(roles) or 'no messages'}"
        )
    query = contents[0][1]
    if not isinstance(query, str):
        raise InvalidRow("invalid messages", f"the content of the user is {shorten(query)}, not text")
    return Turn(query, contents[-1][1] if len(roles) > 1 else None, len(roles) > 1, images)


def warn_of_system_prompt(text: Any) -> None:
    """Warn of a system prompt, which chat formats often have and Florence-2 does not read. Rows are used without it."""
    if text and not (isinstance(text, str) and not text.strip()):
        warn("the system prompts of the rows are ignored: Florence-2 does not read one")  # the same text is shown once


def _read_message(message: Any, images: list[Any]) -> tuple[str, Any]:
    """Return role and content of a message, and append its images."""
    if not isinstance(message, Mapping):
        raise InvalidRow("invalid messages", f"expected an object with role and content, but got {shorten(message)}")
    name = message.get("role", message.get("from"))
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise InvalidRow("invalid messages", f"unknown role {shorten(name)}; expected {', '.join(_ROLES)}")
    if "content" not in message and "value" not in message:
        raise InvalidRow("invalid messages", f"a message without content: {shorten(message)}")
    content = message.get("content", message.get("value"))
    if isinstance(content, list) and content and all(isinstance(part, Mapping) and "type" in part for part in content):
        return role, "".join(_read_part(part, images) for part in content)
    return role, content


def _read_part(part: Mapping[str, Any], images: list[Any]) -> str:
    """Return the text of a part of a content, and append its image."""
    if part["type"] == "text" and isinstance(part.get("text"), str):
        return part["text"]
    if part["type"] in ("image", "image_url"):
        image = part.get(part["type"])
        image = image.get("url") if isinstance(image, Mapping) and "url" in image else image
        images += [image] if image else []
        return ""
    raise InvalidRow("invalid messages", f"expected a text or an image, but got {shorten(part)}")


def strip_image_placeholder(query: Any) -> Any:
    """Return a query without the `<image>` in front of it or behind it; Florence-2 has exactly one image."""
    return _IMAGE_RE.sub("", query, count=1) if isinstance(query, str) else query


def fill_placeholders(query: Any, response: Any, objects: Mapping[str, Any]) -> Filled:
    """Return a turn with the objects of ms-swift 3 in place of its placeholders.

    `<ref-object>` and `<bbox>` are replaced in the order in which they stand, in the query first. The boxes are left to the
    validation, which knows the size of the image.

    Args:
        query: the prompt. What is no text is left to the validation.
        response: the answer, likewise.
        objects: `{"ref": texts, "bbox": boxes, "bbox_type": "real" or "norm1", "image_id": 0 for each box}`.

    Raises:
        InvalidRow: if the numbers of placeholders and values differ, and for malformed values.
    """
    references, boxes = _read_references(objects.get("ref")), _read_boxes(objects.get("bbox"))
    found = [
        placeholder
        for text in (query, response)
        if isinstance(text, str)
        for placeholder in _PLACEHOLDER_RE.findall(text)
    ]
    for placeholder, key, values in (("<ref-object>", "ref", references), ("<bbox>", "bbox", boxes)):
        if found.count(placeholder) != len(values):
            raise InvalidRow(
                "placeholders do not fit the objects",
                f"{found.count(placeholder)} x {placeholder} for {len(values)} in {key!r} of objects",
            )
    unit = "real" if objects.get("bbox_type") is None else objects["bbox_type"]
    if not isinstance(unit, str) or unit not in BOX_TYPES:
        raise InvalidRow("unknown bbox_type", f"{shorten(unit)}; expected {', '.join(BOX_TYPES)}")
    ids = objects.get("image_id")
    if any(id_ not in (0, None) for id_ in (ids if isinstance(ids, list) else [ids])):
        raise InvalidRow("more than one image", f"image_id is {shorten(ids)}, but a row has one image, 0")
    remaining = iter(references)

    def fill(match: re.Match[str]) -> str:
        return next(remaining) if match[0] == "<ref-object>" else match[0]

    query, response = (_PLACEHOLDER_RE.sub(fill, text) if isinstance(text, str) else text for text in (query, response))
    return Filled(query, response, boxes, BOX_TYPES[unit])


def _read_references(references: Any) -> Sequence[str]:
    references = [] if references is None else [references] if isinstance(references, str) else references
    if not isinstance(references, list) or not all(isinstance(text, str) and text.strip() for text in references):
        raise InvalidRow("invalid objects", f"'ref' must be a list of texts, not {shorten(references)}")
    if any(_PLACEHOLDER_RE.search(text) for text in references):
        raise InvalidRow("invalid objects", f"'ref' contains a placeholder itself: {shorten(references)}")
    return references


def _read_boxes(boxes: Any) -> tuple[tuple[float, ...], ...]:
    boxes = [] if boxes is None else boxes
    if not isinstance(boxes, list):
        raise InvalidRow("invalid box", f"'bbox' must be a list of boxes, not {shorten(boxes)}")
    return tuple(read_box(box) for box in boxes)
