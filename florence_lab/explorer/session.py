"""Running a question on a model, with answers that grow."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..exceptions import capture_warnings
from ..results import Result
from .answer import Answer
from .images import SourceImage
from .questions import Question

if TYPE_CHECKING:
    from ..predictor import Predictor

compute_lock = threading.Lock()
"""Held while a model computes. Two models at once would only slow each other down."""


def answer_question(
    question: Question, model_name: str, predictor: Predictor, stop: threading.Event
) -> Iterator[Answer]:
    """Yield growing answers of one model; the last one is complete.

    The image is encoded unless the predictor has encoded it before.

    Args:
        question: the question.
        model_name: the name of the model, for the answers.
        predictor: the model.
        stop: set by another thread to end the computation.

    Raises:
        GenerationInterrupted: after `stop` is set, before the next layer of the model. A compiled image encoder is not
            interrupted.
        PromptError: as `Predictor.stream`.
    """
    from ..inference.generation import interruptible  # imports torch, and the panel is shown before that

    with compute_lock, interruptible(predictor.model, stop.is_set):
        image_seconds = _encode_once(question.image, predictor)
        growing = question.selection.run(predictor, question.image.encoded[predictor], question.text)
        seconds = 0.0
        results: list[Result] = []
        is_complete = False
        while not is_complete:
            start = time.perf_counter()
            with capture_warnings():  # the panel shows those of `Question.validate`, and the viewer truncated answers
                grown = next(growing, None)
            seconds += time.perf_counter() - start  # without the time to show the answer
            is_complete = grown is None
            results = results if grown is None else grown
            yield Answer(question, model_name, image_seconds, seconds, is_complete, results)


def _encode_once(image: SourceImage, predictor: Predictor) -> float | None:
    """Encode an image and return the seconds; None if the predictor has encoded it before."""
    if predictor in image.encoded:
        return None
    start = time.perf_counter()
    with capture_warnings():  # the panel shows `domain_notice`
        image.encoded[predictor] = predictor.encode_image(image.image)
    return time.perf_counter() - start
