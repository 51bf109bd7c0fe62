"""TODO"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..results import Result
from ..visualization.gallery import gallery
from ..visualization.overlay import to_png

if TYPE_CHECKING:
    from .questions import Question

GALLERY_COLUMNS = 4  # of the eight tasks: two rows, to be seen on a screen together with the table


@dataclass(frozen=True, eq=False)
class _Reply:
    """What both kinds of answers have.

    Attributes:
        image_seconds: what the vision tower took; None if it had encoded the picture before.
        text_seconds: what reading the prompt and writing the answer took, without the time to draw it.
        whole: whether this is all of it.
    """

    question: Question
    model: str
    image_seconds: float | None
    text_seconds: float
    whole: bool

    @property
    def stem(self) -> str:
        """For the names of its files."""
        return f"{self.question.picture.name}-{self.question.task.strip('<>') or 'question'}"

    def _lines(self, call: str) -> str:
        """Three lines of Python, the last of which calls the predictor."""
        compiled = ", compile=True" if self.question.compiled else ""
        return f"import florence_lab\npredictor = florence_lab.load({self.model!r}{compiled})\npredictor.{call}"

    def _source(self, result: Result) -> dict[str, Any]:
        """Who said it of what, for a file."""
        return {"model": self.model, "image": {"name": self.question.picture.name, "size": result.image_size}}


@dataclass(frozen=True, eq=False)
class Answer(_Reply):
    """What one model has said so far to one question."""

    result: Result

    @property
    def has_scores(self) -> bool:
        """Whether a threshold makes a difference."""
        return getattr(self.result, "scores", None) is not None

    @property
    def count(self) -> int:
        """Instances; 0 for a text."""
        return len(getattr(self.result, "labels", ()))

    def shown(self, threshold: float = 0.0) -> Result:
        """The result without the instances below a confidence."""
        return self.result[self.result.scores >= threshold] if threshold and self.has_scores else self.result

    def hidden(self, threshold: float) -> str:
        """How many instances `shown` leaves out, in words; "" for none."""
        left = len(self.shown(threshold).labels) if self.has_scores else self.count
        return f"{self.count - left} of {self.count} less sure, hidden" if left < self.count else ""

    def overlay(self, threshold: float = 0.0) -> bytes:
        """A PNG of the picture with `shown(threshold)`."""
        return to_png(self.result.image, self.shown(threshold))

    def code(self, threshold: float = 0.0) -> str:
        """Three lines of Python that give `shown(threshold)` again."""
        text = "" if self.question.text is None else f", {self.question.text!r}"
        above = f"\nresult = result[result.scores >= {threshold:g}]" if self.shown(threshold) is not self.result else ""
        return self._lines(f"predict({self.question.picture.code}, {self.question.task!r}{text}, num_beams=1){above}")

    def files(self, threshold: float = 0.0) -> dict[str, tuple[str, bytes]]:
        """What a person may take home: file name -> (MIME type, content)."""
        result, stem = self.shown(threshold), self.stem
        coco = result.to_coco(file_name=self.question.picture.name)
        return {
            f"{stem}.png": ("image/png", self.overlay(threshold)),
            f"{stem}.json": ("application/json", _json(self._source(result) | _told(result))),
            f"{stem}-coco.json": ("application/json", _json(coco)),
        }


@dataclass(frozen=True, eq=False)
class Answers(_Reply):
    """What one model has said to `ALL_TASKS`: nothing yet, or everything. No threshold makes a difference."""

    results: list[Result]
    has_scores = False

    @property
    def count(self) -> int:
        """Results."""
        return len(self.results)

    def shown(self, threshold: float = 0.0) -> list[Result]:
        return self.results

    def hidden(self, threshold: float) -> str:
        return ""

    def overlay(self, threshold: float = 0.0) -> bytes:
        """A PNG of all results side by side."""
        return self._sheet

    @cached_property
    def _sheet(self) -> bytes:
        return gallery([(result.image, result) for result in self.results], GALLERY_COLUMNS)._repr_png_()

    def code(self, threshold: float = 0.0) -> str:
        """Three lines of Python that give the results again."""
        return self._lines(f"predict_many({self.question.picture.code}, {self.question.tasks}, num_beams=1)")

    def files(self, threshold: float = 0.0) -> dict[str, tuple[str, bytes]]:
        """What a person may take home: file name -> (MIME type, content)."""
        told = self._source(self.results[0]) | {"answers": [_told(result) for result in self.results]}
        return {
            f"{self.stem}.png": ("image/png", self.overlay()),
            f"{self.stem}.json": ("application/json", _json(told)),
        }


def _told(result: Result) -> dict[str, Any]:
    """One result, for a file."""
    words = {name: getattr(result, name) for name in ("task", "phrase", "prompt", "raw")}
    return words | {"result": result.to_dict()}


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()
