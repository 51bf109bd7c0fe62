"""TODO"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from ..images import load_image
from ..results import Result
from ..scenes import draw_scene
from ..template.prompts import Prompt
from ..template.template import FlorenceTemplate


@dataclass(frozen=True)
class Question:
    """One question with its right answer.

    Attributes:
        image: the picture. Questions about one picture follow one another and share the object, so that it is encoded once.
        task: a task token.
        text: the phrase, or the region as location tokens, of a task that takes one.
        truth: the right answer.
        name: what to call the picture, its file or its seed.
    """

    image: Image.Image
    task: str
    text: str | None
    truth: Result
    name: str = ""


class ScenePicture(NamedTuple):
    """A picture that is drawn when it is needed."""

    seed: int
    size: int


@dataclass(frozen=True)
class Example:
    """One question about one picture, ready to be trained on.

    Attributes:
        image: what `open_picture` takes.
        task: the task token; empty for a free question.
        text: the phrase, or the region as location tokens; empty where the task takes none.
        prompt: the sentence that the model reads.
        response: the answer, in Florence-2's own grammar.
        source: where it stands, `train.jsonl, row 12`.
    """

    image: Any
    task: str
    text: str
    prompt: str
    response: str
    source: str


def open_picture(image: Any) -> Image.Image:
    """The picture of an example, upright RGB: drawn, or read as `load_image` does.

    Raises:
        ImageError: if it can't be read.
    """
    return draw_scene(*image).image if isinstance(image, ScenePicture) else load_image(image)


def image_key(image: Any) -> Any:
    """What is the same for the questions about one picture: its path or its seed; or the object, which the rows share."""
    return image if isinstance(image, (str, Path, tuple, bytes)) else id(image)


def as_questions(examples: Iterable[Example]) -> list[Question]:
    """Examples as evaluation asks them, with their responses as the truth; free questions have no measure.

    Each picture is opened once for the questions about it that follow one another, and kept in memory.
    """
    questions: list[Question] = []
    shown: Any = None
    template = FlorenceTemplate()
    for example in examples:
        if example.task:
            if not questions or image_key(example.image) != shown:
                shown, picture = image_key(example.image), open_picture(example.image)
            truth = template.parse_text(example.response, Prompt.from_task(example.task, example.text), picture.size)
            questions.append(Question(picture, example.task, example.text or None, truth, example.source))
    return questions
