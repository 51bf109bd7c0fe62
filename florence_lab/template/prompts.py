"""From a query to the prompt that the model reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..exceptions import PromptError, warn
from ..tasks import Task, get_task, split_query
from .locations import LOCATION_RE, Region, format_location_tokens, parse_location_tokens

_REGION_RE = re.compile(rf"(?:{LOCATION_RE.pattern}){{4}}")
_CJK_RE = re.compile(r"[\u3400-\u9fff]")
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

    @classmethod
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
) -> Prompt:
    """Return the prompt of a query.

    Args:
        query: a task token, alone or followed by its phrase (`"<OPEN_VOCABULARY_DETECTION>a sheep"`), or a free-form
            question.
        text: the phrase, or the region as (x0, y0, x1, y1) in pixels or as four location tokens.
        image_size: (width, height). Without it a region in pixels is accepted only if some image can contain it, and the
            prompt is then not complete.
        warn_of_language: warn of a phrase in Chinese, on which Florence-2 was not trained.

    Raises:
        PromptError: for an unknown task, and for a missing input or one that the task does not accept.
    """
    if not isinstance(query, str):
        raise PromptError(f"expected a task token such as '<OD>', or a question, but got {query!r}")
    try:
        task, phrase = split_query(query)
    except ValueError as error:
        raise PromptError(str(error)) from None
    value = "" if text is None else text
    if phrase and not (isinstance(value, str) and not value.strip()):
        raise PromptError(f"{task.name}: the input was given twice, {phrase!r} in the query and {value!r} as text")
    phrase = _INPUT_VALIDATORS[task.input](task, phrase or value, image_size)
    if warn_of_language and _CJK_RE.search(phrase):
        warn(f"Florence-2 was not trained on Chinese; its answer to {phrase!r} may be meaningless")
    return Prompt.from_task(task, phrase)


def _validate_no_input(task: Task, value: str | Region, image_size: tuple[int, int] | None) -> str:
    if not isinstance(value, str) or value.strip():
        raise PromptError(f"{task.name} takes no input, but got {value!r}")
    return ""


def _validate_phrase(task: Task, value: str | Region, image_size: tuple[int, int] | None) -> str:
    if not isinstance(value, str):
        raise PromptError(f"{task.name} takes a phrase, but got {value!r}")
    if not value.strip():
        example = f", as in {task.token}a sheep" if task.token else ""
        raise PromptError(f"{task.name} needs a phrase{example}")
    return value.strip()


def _validate_region(task: Task, value: str | Region, image_size: tuple[int, int] | None) -> str:
    if isinstance(value, str):
        return _validate_region_tokens(task, value.strip(), image_size)
    try:
        region = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        region = np.empty(0)
    if region.shape != (4,):
        raise PromptError(f"{task.name} takes {_REGION_FORMS}; got {value!r}")
    _check_box(region, image_size)
    return format_location_tokens(region, image_size or (1, 1))


def _validate_region_tokens(task: Task, value: str, image_size: tuple[int, int] | None) -> str:
    if not value:
        raise PromptError(f"{task.name} needs {_REGION_FORMS}")
    if not _REGION_RE.fullmatch(value):
        raise PromptError(f"{task.name} takes {_REGION_FORMS}; got {value!r}")
    x0, y0, x1, y1 = parse_location_tokens(value)
    if x0 > x1 or y0 > y1:
        raise PromptError(f"the region {value}{_of_image(image_size)} is inverted: x0 <= x1 and y0 <= y1 must hold")
    return value


def _check_box(region: np.ndarray, image_size: tuple[int, int] | None) -> None:
    x0, y0, x1, y1 = region.tolist()
    shown = f"the region ({x0:g}, {y0:g}, {x1:g}, {y1:g}){_of_image(image_size)}"
    if not np.isfinite(region).all():
        raise PromptError(f"{shown} contains a value that is not a finite number")
    if x1 <= x0 or y1 <= y0:
        raise PromptError(f"{shown} is empty or inverted: x0 < x1 and y0 < y1 must hold")
    if x0 < 0 or y0 < 0 or (image_size and (x1 > image_size[0] or y1 > image_size[1])):
        raise PromptError(f"{shown} lies partly outside the image")


def _of_image(image_size: tuple[int, int] | None) -> str:
    return f" of an image of {image_size[0]} x {image_size[1]} pixels" if image_size else ""


_INPUT_VALIDATORS: dict[str, Callable[[Task, str | Region, tuple[int, int] | None], str]] = {
    "none": _validate_no_input,
    "phrase": _validate_phrase,
    "region": _validate_region,
}
