"""From a query to the prompt that the model reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..argument_validation import validate_arguments, validate_fields, validate_text, validate_value
from ..exceptions import ArgumentError, PromptError, shorten, warn
from ..tasks import Task, get_task, split_query
from .locations import (
    BOX_TOLERANCE,
    LOCATION_RE,
    REGION_FORMATS,
    Region,
    RegionFormat,
    format_location_tokens,
    parse_location_tokens,
    to_pixels,
)

_REGION_RE = re.compile(rf"(?:{LOCATION_RE.pattern}){{4}}")
_CJK_RE = re.compile(r"[\u3400-\u9fff]")
_SPECIAL_TOKEN_RE = re.compile(r"<image>|</?s>|<pad>|<unk>|<mask>")
_REGION_FORMS = "a region: (x0, y0, x1, y1) in pixels, or four location tokens <loc_0> … <loc_999>"


@dataclass(frozen=True)
class Prompt:
    """A validated question about an image.

    Attributes:
        task: the task.
        text: the phrase, or the region as four location tokens; "" if the task takes neither.
        prompt: the text that the model reads.
    """

    task: Task
    text: str
    prompt: str

    def __post_init__(self) -> None:
        validate_fields(self)

    @classmethod
    @validate_arguments
    def from_task(cls, task: str | Task, text: str = "") -> Prompt:
        """Fill the text into the prompt of a task, without validation."""
        task = task if isinstance(task, Task) else get_task(task)
        return cls(task, text, task.prompt.replace("{input}", text))

    @property
    def query(self) -> str:
        """The query that gives this prompt: the task token with the text behind it, or the free-form question."""
        return self.task.token + self.text


def build_prompt(
    query: str,
    text: str | Region | None = None,
    image_size: tuple[int, int] | None = None,
    warn_of_language: bool = True,
    region_format: RegionFormat = "xyxy",
) -> Prompt:
    """Return the prompt of a query.

    The prompt of a token that is not registered is the token with the text behind it, as both stand:
    `"<DocVQA>What is the date?"`. Fine-tunes were trained on such prompts, with or without a blank between the two.

    Args:
        query: a task token, alone or followed by its phrase (`"<OPEN_VOCABULARY_DETECTION>a sheep"`), or a free-form
            question.
        text: the phrase, or the region as four numbers or as four location tokens.
        image_size: (width, height). Without it a region in pixels is accepted only if some image can contain it, and the
            prompt is then not complete.
        warn_of_language: warn of a phrase in Chinese, on which Florence-2 was not trained.
        region_format: the units of a region of four numbers, see `REGION_FORMATS`. A region may exceed the image by
            `BOX_TOLERANCE` pixels; it is clipped.

    Raises:
        PromptError: for a misspelled task, and for a missing input or one that the task does not accept.
    """
    if not isinstance(query, str):
        raise PromptError(f"expected a task token such as '<OD>', or a question, but got {shorten(query)}")
    try:
        validate_value("region_format", region_format, RegionFormat)
    except ArgumentError as error:
        raise PromptError(str(error)) from None
    _check_characters(query)
    try:
        task, phrase = split_query(query)
    except ValueError as error:
        raise PromptError(str(error)) from None
    value = "" if text is None else text
    if isinstance(value, str):
        _check_characters(value)
    if phrase.strip() and not (isinstance(value, str) and not value.strip()):
        raise PromptError(
            f"{task.name}: the input was given twice, {phrase!r} in the query and {shorten(value)} as text"
        )
    if task.input in ("region", "any") and not isinstance(value, str):
        box = region_to_pixels(task, value, image_size, region_format)
        phrase += format_location_tokens(box, image_size or (1, 1))
    else:
        phrase = _INPUT_VALIDATORS[task.input](task, phrase + value if isinstance(value, str) else value, image_size)
    if warn_of_language and _CJK_RE.search(phrase):
        warn(f"Florence-2 was not trained on Chinese; its answer to {phrase!r} may be meaningless")
    return Prompt.from_task(task, phrase)


def _check_characters(text: str) -> None:
    """Raise a `PromptError` for text that cannot be encoded, or that contains a token with a meaning of its own."""
    try:
        validate_text("the prompt", text)
    except ArgumentError as error:
        raise PromptError(str(error)) from None
    if match := _SPECIAL_TOKEN_RE.search(text):
        raise PromptError(f"the prompt {shorten(text)} contains the special token {match[0]}; leave it out")


def _validate_no_input(task: Task, value: str | Region, image_size: tuple[int, int] | None) -> str:
    if not isinstance(value, str) or value.strip():
        raise PromptError(f"{task.name} takes no input, but got {shorten(value)}")
    return ""


def _validate_any(task: Task, value: str | Region, image_size: tuple[int, int] | None) -> str:
    return str(value)  # blanks, too: the prompt is what the user wrote


def _validate_phrase(task: Task, value: str | Region, image_size: tuple[int, int] | None) -> str:
    if not isinstance(value, str):
        raise PromptError(f"{task.name} takes a phrase, but got {shorten(value)}")
    if not value.strip():
        example = f", as in {task.token}a sheep" if task.token else ""
        raise PromptError(f"{task.name} needs a phrase{example}")
    return value.strip()


def _validate_region_tokens(task: Task, value: str | Region, image_size: tuple[int, int] | None) -> str:
    tokens = str(value).strip()
    if not tokens:
        raise PromptError(f"{task.name} needs {_REGION_FORMS}")
    if not _REGION_RE.fullmatch(tokens):
        raise PromptError(f"{task.name} takes {_REGION_FORMS}; got {shorten(value)}")
    x0, y0, x1, y1 = parse_location_tokens(tokens)
    if x0 > x1 or y0 > y1:
        raise PromptError(f"the region {tokens}{_of_image(image_size)} is inverted: x0 <= x1 and y0 <= y1 must hold")
    return tokens


def region_to_pixels(
    task: Task, value: Region, image_size: tuple[int, int] | None, region_format: RegionFormat = "xyxy"
) -> np.ndarray:
    """Return a region of four numbers as a box (x0, y0, x1, y1) in pixels, clipped to the image.

    Args:
        task: the task, for messages.
        value: four numbers.
        image_size: (width, height); without it, the box is that of an image of 1 x 1 pixels.
        region_format: the units of the numbers.

    Raises:
        PromptError: for anything but a box within the image.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()  # a tensor that may require a gradient
    try:
        region = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        region = np.empty(0)
    if region.shape != (4,):
        others = "a text, or " if task.input == "any" else ""
        raise PromptError(f"{task.name} takes {others}{_REGION_FORMS}; got {shorten(value)}")
    size = image_size or (1, 1)
    box = to_pixels(region, region_format, size)
    _check_box(region, box, region_format, image_size)
    return np.clip(box, 0, np.tile(size, 2))


def _check_box(
    region: np.ndarray, box: np.ndarray, region_format: RegionFormat, image_size: tuple[int, int] | None
) -> None:
    """Raise a `PromptError` for a region that is not a box within the image.

    Args:
        region: as it was given, for messages.
        box: (x0, y0, x1, y1) in pixels.
        region_format: the units of the region.
        image_size: (width, height); without it, only what no image can contain is refused.
    """
    units = "" if region_format == "xyxy" else f" in {region_format}"
    shown = f"the region ({', '.join(f'{value:g}' for value in region)}){units}{_of_image(image_size)}"
    if not np.isfinite(box).all():
        raise PromptError(f"{shown} contains a value that is not a finite number")
    is_in_pixels = region_format in ("xyxy", "xywh")
    if is_in_pixels and (np.abs(region) <= 1).all():
        raise PromptError(
            f"{shown} is not larger than one pixel; pass region_format='norm_1' if the numbers are fractions of the sides"
        )
    far = np.tile(image_size, 2) if image_size else np.full(4, np.inf if is_in_pixels else 1.0)
    if (box < -BOX_TOLERANCE).any() or (box > far + BOX_TOLERANCE).any():
        others = ", ".join(name for name in REGION_FORMATS if name != region_format)
        raise PromptError(f"{shown} lies partly outside the image; other units are region_format = {others}")
    x0, y0, x1, y1 = np.clip(box, 0, far)
    if x1 <= x0 or y1 <= y0:
        raise PromptError(f"{shown} is empty or inverted: {_ORDER[region_format]} must hold")


def _of_image(image_size: tuple[int, int] | None) -> str:
    return f" of an image of {image_size[0]} x {image_size[1]} pixels" if image_size else ""


_INPUT_VALIDATORS: dict[str, Callable[[Task, str | Region, tuple[int, int] | None], str]] = {
    "none": _validate_no_input,
    "phrase": _validate_phrase,
    "region": _validate_region_tokens,
    "any": _validate_any,
}

_ORDER = dict.fromkeys(REGION_FORMATS, "x0 < x1 and y0 < y1") | {"xywh": "width > 0 and height > 0"}
