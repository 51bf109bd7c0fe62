"""TODO"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..inference.generation import interruptible
from ..predictor import Predictor
from .answers import Answer, Answers
from .listening import listening
from .questions import ALL_TASKS, Question

if TYPE_CHECKING:
    from .images import Picture


class Stopped(Exception):
    """Nobody wants the answer any more."""


_COMPUTING = threading.Lock()  # one answer at a time: two would only slow each other down


def ask(
    question: Question, model: str, predictor: Predictor, stop: threading.Event
) -> Iterator[Answer] | Iterator[Answers]:
    """Growing answers of one model; the last is whole. The picture is encoded unless this predictor has done so before.

    Raises:
        Stopped: soon after `stop` is set, whatever the model is at; only a compiled tower ends its look first.
        ValueError: as `Predictor.stream`.
    """
    with _COMPUTING, interruptible(predictor.model, stop.is_set):
        seconds = _look(question.picture, predictor)
        answered = _answer_together if question.task == ALL_TASKS.token else _answer_growing
        yield from answered(question, model, predictor, seconds)


def _look(picture: Picture, predictor: Predictor) -> float | None:
    """Has the picture encoded; the seconds it took, None if it was before."""
    if predictor in picture.encoded:
        return None
    start = time.perf_counter()
    with listening():  # `what_it_knows` has told already
        picture.encoded[predictor] = predictor.encode_image(picture.image)
    return time.perf_counter() - start


def _answer_growing(
    question: Question, model: str, predictor: Predictor, image_seconds: float | None
) -> Iterator[Answer]:
    with listening():  # `Question.check` has told already
        growing = predictor.stream(question.picture.encoded[predictor], question.task, question.text)
    seconds, result, whole = 0.0, None, False
    while not whole:
        start = time.perf_counter()
        grown = next(growing, None)
        seconds += time.perf_counter() - start
        result, whole = result if grown is None else grown, grown is None
        yield Answer(question, model, image_seconds, seconds, whole, result)


def _answer_together(
    question: Question, model: str, predictor: Predictor, image_seconds: float | None
) -> Iterator[Answers]:
    yield Answers(question, model, image_seconds, 0.0, False, [])
    start = time.perf_counter()
    results = predictor.predict_tasks(question.picture.encoded[predictor], question.tasks, num_beams=1)
    yield Answers(question, model, image_seconds, time.perf_counter() - start, True, results)
