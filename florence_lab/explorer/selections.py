"""The choices of the task menu: one task, several together, a caption that is grounded, or classes to detect.

A choice knows what it takes besides the image, how a predictor answers it, and the code that gives the same answer.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..detection.ontology import Ontology
from ..exceptions import PromptError, shorten
from ..results import Result
from ..results import Text as TextResult
from ..tasks import FREE_QUESTION, TASKS, InputKind, Task, get_task
from ..template.locations import Region
from ..template.prompts import build_prompt

if TYPE_CHECKING:
    from ..inference.generation import EncodedImage
    from ..predictor import Predictor

ALL_TASKS = "all-tasks"
"""The value of the menu for all tasks that take no input besides the image."""

DETECT_CLASSES = "detect-classes"
"""The value of the menu for the classes of the user."""

GROUNDING = "<CAPTION_TO_PHRASE_GROUNDING>"

_CAPTIONS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")
_CLASSES_EXAMPLE = "sheep, dog, house"

Text = str | Region | None
"""A phrase, a region in pixels, or None."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Selection(ABC):
    """A choice of the task menu.

    Attributes:
        value: identifies the choice: a task token, "" for a free-form question, or a word such as `ALL_TASKS`.
        title: its name in words.
        description: one line about it.
        input: what it takes besides the image.
        token: the task token that the menu shows beside the title; "" for none.
        example: an example of a phrase.
        has_many: whether the answer is a list of results.
    """

    value: str
    title: str
    description: str
    input: InputKind
    token: str = ""
    example: str = ""
    has_many: bool = False

    @property
    def label(self) -> str:
        """Its text in the menu."""
        return f"{self.title} · {self.token}" if self.token else self.title

    @property
    def name(self) -> str:
        """The choice in the names of files."""
        return re.sub(r"[<> ]+", "-", self.value).strip("-") or "question"

    def title_of(self, result: Result) -> str:
        """Return the name of what a result of the answer answers."""
        return get_task(result.task).title if self.has_many else self.title

    def token_of(self, result: Result) -> str:
        """Return the task token of a result of the answer; "" if it does not tell what was asked."""
        return result.task

    def validate(self, text: Text, image_size: Size) -> None:
        """Check the input before a model is loaded. Without an input there is nothing to check.

        Raises:
            ValueError: for a missing input, or one that is not accepted.
        """
        return

    @abstractmethod
    def run(self, predictor: Predictor, image: EncodedImage, text: Text) -> Iterator[list[Result]]:
        """Yield the growing list of results; an empty one if they appear together later."""

    @abstractmethod
    def code(self, image: str, text: Text) -> str:
        """Return an expression of Python for the result, or for the list of results.

        It uses the variable `predictor`.

        Args:
            image: an expression for the image.
            text: the input.
        """


@dataclass(frozen=True)
class OneTask(Selection):
    """One task, or a free-form question."""

    @classmethod
    def from_task(cls, task: Task) -> OneTask:
        """Return the choice of a task."""
        example = "" if task.input == "region" else task.example or ""  # that of a region is text for the model
        return cls(task.token, task.title, task.description, task.input, task.token, example)

    def validate(self, text: Text, image_size: Size) -> None:
        """Build the prompt."""
        task, given = self._query(text)
        build_prompt(task, given, image_size)

    def run(self, predictor: Predictor, image: EncodedImage, text: Text) -> Iterator[list[Result]]:
        """Yield the words of a text, or one instance after another."""
        for result in predictor.stream(image, *self._query(text)):
            yield [result]

    def code(self, image: str, text: Text) -> str:
        """Return a call of `Predictor.predict`."""
        task, given = self._query(text)
        return _predict_code(image, repr(task), None if given is None else repr(given))

    def _query(self, text: Text) -> tuple[str, Text]:
        """The arguments `task` and `text` of `Predictor.predict`.

        A free-form question that begins with a task token, such as `<DocVQA>What is the date?`, is a question of that token.
        """
        if not self.value and isinstance(text, str) and text.startswith("<"):
            return text, None
        return self.value, text


@dataclass(frozen=True)
class AllTasks(Selection):
    """All tasks that take no input besides the image, decoded together."""

    @property
    def tokens(self) -> list[str]:
        """The tasks."""
        return [task.token for task in TASKS.values() if task.input == "none"]

    def run(self, predictor: Predictor, image: EncodedImage, text: Text) -> Iterator[list[Result]]:
        """Yield the results together."""
        yield []
        yield predictor.predict_tasks(image, self.tokens, num_beams=1)

    def code(self, image: str, text: Text) -> str:
        """Return a call of `Predictor.predict_tasks`."""
        return f"predictor.predict_tasks({image}, {self.tokens}, num_beams=1)"


@dataclass(frozen=True)
class GroundedCaption(Selection):
    """A caption, which is the answer of `token`, and the boxes of its phrases."""

    def run(self, predictor: Predictor, image: EncodedImage, text: Text) -> Iterator[list[Result]]:
        """Yield the words of the caption, then one box after another.

        Raises:
            PromptError: for a caption without words.
        """
        caption: list[Result] = []
        for result in predictor.stream(image, self.token):
            caption = [result]
            yield caption
        words = "".join(result.text for result in caption if isinstance(result, TextResult))
        if not words.strip():
            raise PromptError("the caption is empty, so there is nothing to locate")
        for grounding in predictor.stream(image, GROUNDING, words):
            yield [*caption, grounding]

    def code(self, image: str, text: Text) -> str:
        """Return a list of two calls of `Predictor.predict`."""
        caption = _predict_code(image, repr(self.token))
        return f"[caption := {caption}, {_predict_code(image, repr(GROUNDING), 'caption.text')}]"


@dataclass(frozen=True)
class DetectClasses(Selection):
    """The classes that the user names, detected and verified, see `Predictor.detect`."""

    def token_of(self, result: Result) -> str:
        """Return no token: several tasks were asked."""
        return ""

    def validate(self, text: Text, image_size: Size) -> None:
        """Check the names of the classes."""
        Ontology.from_classes(_split_classes(text))

    def run(self, predictor: Predictor, image: EncodedImage, text: Text) -> Iterator[list[Result]]:
        """Yield the boxes together: they are verified and suppressed at the end."""
        yield []
        yield [predictor.detect(image, _split_classes(text))]

    def code(self, image: str, text: Text) -> str:
        """Return a call of `Predictor.detect`."""
        return f"predictor.detect({image}, {_split_classes(text)})"


def select(value: str) -> Selection:
    """Return the choice of a value of the menu.

    Raises:
        ValueError: for a misspelled task; the message names the nearest one.
    """
    special = {selection.value: selection for selection in _special_selections()}
    return special.get(value) or OneTask.from_task(get_task(value))


def task_menu() -> list[Selection]:
    """Return the choices, in the order of what they take: the image alone, a phrase, a region, a text of the user's own."""
    choices = [*map(OneTask.from_task, TASKS.values()), *_special_selections(), OneTask.from_task(FREE_QUESTION)]
    order: dict[InputKind, int] = {"none": 0, "phrase": 1, "region": 2, "any": 3}
    return sorted(choices, key=lambda choice: order[choice.input] if choice.value else len(order))


def _special_selections() -> list[Selection]:
    grounded = [
        GroundedCaption(
            f"grounded {token}",
            f"{get_task(token).title}, then ground it",
            "a caption, and boxes for each of its phrases",
            "none",
            token,
            has_many=True,
        )
        for token in _CAPTIONS
    ]
    return [
        *grounded,
        AllTasks(
            ALL_TASKS, "All tasks without input", "captions, boxes and text, decoded together", "none", has_many=True
        ),
        DetectClasses(
            DETECT_CLASSES,
            "Detect classes",
            "boxes for classes of your own, verified by the model",
            "phrase",
            example=_CLASSES_EXAMPLE,
        ),
    ]


def _predict_code(image: str, task: str, text: str | None = None) -> str:
    given = "" if text is None else f", {text}"
    return f"predictor.predict({image}, {task}{given}, num_beams=1)"


def _split_classes(text: Text) -> list[str]:
    names = [name.strip() for name in str(text or "").split(",")]
    if not all(names):
        raise PromptError(
            f"expected names of classes with commas between them, such as {_CLASSES_EXAMPLE}, got {shorten(text)}"
        )
    return names
