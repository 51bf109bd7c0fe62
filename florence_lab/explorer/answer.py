"""The answer of one model to a question, with its overlay, code and files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..results import Instances, Result
from ..visualization.gallery import gallery
from ..visualization.overlay import to_png

if TYPE_CHECKING:
    from .questions import Question

_GALLERY_COLUMNS = 4  # the eight tasks without input fill two rows, which fit on a screen


@dataclass(frozen=True, eq=False)
class Answer:
    """What one model has answered so far.

    Attributes:
        question: the question.
        model_name: the name of the model.
        image_seconds: time of the image encoder; None if the image was encoded before.
        text_seconds: time of the decoder.
        is_complete: whether the answer is complete.
        results: one result, or one for each task if several are run together; empty as long as these are not complete.
    """

    question: Question
    model_name: str
    image_seconds: float | None
    text_seconds: float
    is_complete: bool
    results: list[Result]

    @property
    def is_combined(self) -> bool:
        """Whether several tasks are run together. A score threshold has no effect then."""
        return self.question.selection.is_combined

    @property
    def stem(self) -> str:
        """The stem of the names of its files."""
        return f"{self.question.image.name}-{self.question.selection.name}"

    @property
    def scores(self) -> np.ndarray | None:
        """The scores to which a threshold applies; None if there are none."""
        if self.is_combined or not self.results:
            return None
        return getattr(self.results[0], "scores", None)

    @property
    def count(self) -> int:
        """The number of results if several tasks are run together, else the number of instances."""
        if self.is_combined:
            return len(self.results)
        return sum(len(result) for result in self.results if isinstance(result, Instances))

    def filtered(self, threshold: float = 0.0) -> list[Result]:
        """Return the results without the instances whose score is below a threshold."""
        if not threshold or self.scores is None:
            return self.results
        (result,) = self.results
        assert isinstance(result, Instances)
        return [result[self.scores >= threshold]]

    def num_hidden(self, threshold: float) -> int:
        """Return the number of instances whose score is below a threshold."""
        return 0 if self.scores is None else int((self.scores < threshold).sum())

    def overlay(self, threshold: float = 0.0) -> bytes:
        """Return a PNG of the image with the filtered result, or of all results side by side.

        Raises:
            ValueError: if there is no result yet.
        """
        if not self.results:
            raise ValueError("the answer has no result yet")
        if self.is_combined:
            return self._gallery
        (result,) = self.filtered(threshold)
        return to_png(result.image, result)

    @cached_property
    def _gallery(self) -> bytes:
        return gallery([(result.image, result) for result in self.results], _GALLERY_COLUMNS).to_png()

    def code(self, threshold: float = 0.0) -> str:
        """Return Python code whose last line is an expression for the filtered result, or for the list of results."""
        question = self.question
        compiled = ", compile=True" if question.is_compiled else ""
        lines = ["import florence_lab", f"predictor = florence_lab.load({self.model_name!r}{compiled})"]
        if self.is_combined:
            return "\n".join(
                [*lines, f"predictor.predict_tasks({question.image.code}, {question.tokens}, num_beams=1)"]
            )
        task, text = question.query
        given = "" if text is None else f", {text!r}"
        predict = f"predictor.predict({question.image.code}, {task!r}{given}, num_beams=1)"
        if not self.num_hidden(threshold):
            return "\n".join([*lines, predict])
        return "\n".join([*lines, f"result = {predict}", f"result[result.scores >= {threshold!r}]"])

    def files(self, threshold: float = 0.0) -> dict[str, tuple[str, bytes]]:
        """Return the files for download: file name -> (MIME type, content)."""
        image_size = self.results[0].image_size
        source = {"model": self.model_name, "image": {"name": self.question.image.name, "size": image_size}}
        files = {f"{self.stem}.png": ("image/png", self.overlay(threshold))}
        if self.is_combined:
            content = source | {"answers": [_result_record(result) for result in self.results]}
            return files | {f"{self.stem}.json": ("application/json", _to_json(content))}
        (result,) = self.filtered(threshold)
        coco = result.to_coco(file_name=self.question.image.name)
        return files | {
            f"{self.stem}.json": ("application/json", _to_json(source | _result_record(result))),
            f"{self.stem}-coco.json": ("application/json", _to_json(coco)),
        }


def _result_record(result: Result) -> dict[str, Any]:
    fields = {name: getattr(result, name) for name in ("task", "phrase", "prompt", "raw")}
    return fields | {"result": result.to_dict()}


def _to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()
