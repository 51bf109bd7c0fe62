"""The answer of one model to a question, and the code that gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..results import Instances, Result
from ..viewer.threshold import num_hidden

if TYPE_CHECKING:
    from .questions import Question


@dataclass(frozen=True, eq=False)
class Answer:
    """What one model has answered so far.

    Attributes:
        question: the question.
        model_name: the name of the model.
        image_seconds: time of the image encoder; None if the image was encoded before.
        text_seconds: time of the decoder.
        is_complete: whether the answer is complete.
        results: one result, or several; none as long as there is nothing to show.
    """

    question: Question
    model_name: str
    image_seconds: float | None
    text_seconds: float
    is_complete: bool
    results: list[Result]

    @property
    def count(self) -> int:
        """The number of instances."""
        return sum(len(result) for result in self.results if isinstance(result, Instances))

    @property
    def times(self) -> str:
        """The times of the image encoder and the decoder."""
        image = "cached" if self.image_seconds is None else f"{self.image_seconds:.2f} s"
        return f"image encoder {image} · decoder {self.text_seconds:.2f} s"


def answer_code(answers: Sequence[Answer], threshold: float = 0.0) -> str:
    """Return Python code whose last line is an expression for what is shown.

    That is the filtered result, or a list of results if there are several: of several tasks, or of two models.

    Args:
        answers: the answers to a question, one for each model; at least one.
        threshold: hides instances with a lower score.
    """
    question = answers[0].question
    names = [answer.model_name for answer in answers]
    compiled = ", compile=True" if question.is_compiled else ""
    expression = question.selection.code(question.image.code, question.text)
    is_list = question.selection.has_many or len(names) > 1
    if len(names) == 1:
        predictor = f"predictor = florence_lab.load({names[0]!r}{compiled})"
    else:
        predictor = f"predictors = [florence_lab.load(name{compiled}) for name in {names}]"
        each = f"{expression} for predictor in predictors"
        expression = f"sum(({each}), [])" if question.selection.has_many else f"[{each}]"
    lines = ["import florence_lab", predictor]
    if not any(num_hidden(result, threshold) for answer in answers for result in answer.results):
        return "\n".join([*lines, expression])
    kept = f"result[result.scores >= {threshold!r}]"
    if is_list:
        kept = f"[{kept} if hasattr(result, 'scores') else result for result in results]"
    return "\n".join([*lines, f"{'results' if is_list else 'result'} = {expression}", kept])
