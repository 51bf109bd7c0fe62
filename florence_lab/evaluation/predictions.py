"""`Prediction`: a prompt about an image with the model's answer, a row of `answers.jsonl`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..argument_validation import validate_arguments, validate_value
from ..data.examples import Example, ImageSource, SceneReference
from ..exceptions import DatasetError, ImageError, PromptError, shorten
from ..results import Boxes, Instances, Result
from ..tasks import split_query
from ..template.prompts import build_prompt
from ..template.template import FlorenceTemplate

Outcome = Result | ImageError | PromptError
"""A result, or the exception of a failed example."""

_EARLIER_KEYS = {"label": "target", "truth": "target", "answer": "response", "agreement": "score"}
"""Key in the rows of earlier versions -> field of `Prediction`. They are still written, for programs that read them."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A prompt about an image with the model's answer.

    Attributes:
        source: where the example comes from, `"train.jsonl, row 12"`.
        image: the path or URL of the image, or the seed of a scene; "" for an image in memory.
        task: the task token; "" for a free-form question.
        text: the phrase, the region as location tokens, or the question; "" if the task takes none.
        response: the generated text in Florence-2's answer grammar; "" if there is no result.
        target: the text that the model should generate; "" if it is unknown.
        result: the answer in pixels, as `Result.to_dict` gives it; None if there is no result.
        score: how well the answer agrees with the target, 0..1, see `MetricSuite.per_sample`; None if unknown or undefined.
        error: why there is no result; "" if there is one.
        truncated: whether the answer ends because it reached the maximum length.
        image_digest: hash of the image file, see `Example.image_digest`; "" if it is unknown.
        image_size: (width, height) of the image in pixels; None if there is no result.
    """

    source: str = ""
    image: str = ""
    task: str = ""
    text: str = ""
    response: str = ""
    target: str = ""
    result: dict[str, Any] | None = None
    score: float | None = None
    error: str = ""
    truncated: bool = False
    image_digest: str = ""
    image_size: tuple[int, int] | None = None

    @classmethod
    @validate_arguments
    def from_outcome(cls, example: Example, outcome: Outcome, score: float | None = None) -> Prediction:
        """Return the row of an example and its result or exception."""
        row = cls(
            source=example.source,
            image=image_name(example.image),
            task=example.prompt.task.token,
            text=example.prompt.text,
            target=example.target,
            score=score,
            image_digest=image_digest(example),
        )
        if isinstance(outcome, Result):
            return replace(
                row,
                response=outcome.raw,
                result=outcome.to_dict(),
                truncated=outcome.truncated,
                image_size=outcome.image_size,
            )
        return replace(row, error=str(outcome))

    @property
    def query(self) -> str:
        """The query as `Predictor.predict` takes it: the task token with the text behind it, or the free-form question."""
        return self.task + self.text

    def to_result(self) -> Result:
        """Return the answer as a typed result in pixels, with scores if they are known.

        Raises:
            DatasetError: if there is no result, or the row does not have the size of the image, as rows of earlier versions.
        """
        if self.error or self.image_size is None:
            reason = self.error or "it does not state the size of the image"
            raise DatasetError(f"the answer to {self.source or self.query} has no result: {reason}")
        prompt = build_prompt(self.task, self.text or None)
        result = FlorenceTemplate().parse_text(self.response, prompt, self.image_size)
        return replace(_with_scores(result, self.result), truncated=self.truncated)

    def to_json(self) -> dict[str, Any]:
        """Return the row as a dictionary of JSON values."""
        row = vars(self) | {"query": self.query}
        return row | {key: row[name] for key, name in _EARLIER_KEYS.items()}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Prediction:
        """Return the prediction of a row, of this or an earlier version. Unknown keys are ignored.

        Raises:
            ValueError: if the row has neither `task` nor `query`.
        """
        if not isinstance(row, dict):
            raise ValueError(f"expected an object with 'task' or 'query', got {shorten(row)}")
        if "task" not in row and "query" not in row:
            raise ValueError(
                f"expected a row with 'task' or 'query', got the keys {', '.join(map(repr, row)) or 'none'}"
            )
        row = {name: row[key] for key, name in _EARLIER_KEYS.items() if key in row} | row
        if isinstance(row.get("response"), dict):  # {prompt: response} of `florence-lab infer --images`
            row["response"] = "".join(map(str, row["response"].values()))
        row = {name: value for name, value in row.items() if value is not None}
        for name, expected in _TYPES.items():
            if name in row and not isinstance(row[name], expected):
                raise ValueError(f"the field {name!r} has another type: {shorten(row[name])}")
        if "task" not in row:
            task, text = split_query(row["query"])
            row |= {"task": task.token, "text": text}
        if "image_size" in row:
            row |= {"image_size": validate_value("image_size", tuple(row["image_size"]), tuple[int, int])}
        return cls(**{name: row[name] for name in cls.__dataclass_fields__ if name in row})


_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("source", "image", "task", "text", "query", "response", "target", "error", "image_digest"), str),
    "result": dict,
    "score": (int, float),
    "truncated": bool,
    "image_size": list,
}
"""Field of a row -> the type of its JSON value, unless it is null."""


def _with_scores(result: Result, answer: dict[str, Any] | None) -> Result:
    """Add the scores that the dictionary of a result has, in the order of its instances."""
    values = next(iter((answer or {}).values()), None)
    if not isinstance(result, Instances) or not isinstance(values, dict) or "scores" not in values:
        return result
    scores = values["scores"]
    if isinstance(result, Boxes) and result.polygons:  # the dictionary has boxes first, then outlined instances
        rest, outlined = iter(scores), iter(values.get("polygons_scores", ()))
        scores = [next(outlined if parts else rest, None) for parts in result.polygons]
    return result if len(scores) != len(result) or None in scores else replace(result, scores=np.array(scores, float))


def image_digest(example: Example) -> str:
    """Return a hash of the image file of an example; "" for a URL, a drawn scene, and a file that cannot be read."""
    source = example.image
    if isinstance(source, str) and "://" in source:
        return ""
    try:
        data = (
            source
            if isinstance(source, bytes)
            else Path(source).read_bytes()
            if isinstance(source, (str, Path))
            else b""
        )
    except (OSError, ValueError):
        return ""
    return hashlib.sha256(data).hexdigest()[:16] if data else ""


def image_name(image: ImageSource) -> str:
    """Return the path or URL of an image, or the seed of a scene; "" for an image in memory."""
    if isinstance(image, SceneReference):
        return str(image.seed)
    return str(image) if isinstance(image, (str, Path)) else ""
