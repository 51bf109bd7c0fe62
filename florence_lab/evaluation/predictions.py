"""`Prediction`, a row of `answers.jsonl`, and the prediction of whole datasets into such a file."""

from __future__ import annotations

import codecs
import hashlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..argument_validation import validate_arguments, validate_value
from ..data.datasets import load_examples
from ..data.examples import Example, ImageSource, SceneReference
from ..data.validation import RowValidator
from ..exceptions import ArgumentError, DatasetError, ImageError, PromptError, shorten, summarize_error
from ..inference.generation import EncodedImage
from ..output_files import prepare_output_folder, write_bytes
from ..predictor import Predictor
from ..results import Boxes, Instances, Result
from ..tasks import split_query
from ..template.prompts import build_prompt
from ..template.template import FlorenceTemplate
from .settings import describe_difference, describe_settings, read_settings, write_settings

ANSWERS_FILE = "answers.jsonl"

logger = logging.getLogger(__name__)

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


@validate_arguments
def read_predictions(path: str | Path) -> list[Prediction]:
    """Read a file that `predict_dataset`, `Evaluation.save` or `florence-lab infer` wrote.

    A last line that an interrupted run has left incomplete is ignored.

    Raises:
        DatasetError: for a file that cannot be read, and for a line that is no prediction; the message names it.
    """
    return [prediction for _, prediction in _read_lines(Path(path))]


@validate_arguments
def write_predictions(path: str | Path, predictions: Iterable[Prediction]) -> None:
    """Append predictions to a JSON lines file, see `append_rows`."""
    append_rows(path, (prediction.to_json() for prediction in predictions))


def append_rows(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Append rows to a JSON lines file in UTF-8.

    Lone surrogates, as in the name of a file that is not UTF-8, are escaped, so that they are read as they were. A last line
    that an interrupted run has left incomplete is removed.
    """
    path = Path(path)
    _end_last_line(path)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with path.open("ab") as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def _read_lines(path: Path) -> list[tuple[bytes, Prediction]]:
    """The lines of a file without blank ones, each with its prediction."""
    try:
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    rows = []
    # not splitlines: texts may contain other separators, such as U+2028
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            if line.strip():
                rows.append((line, Prediction.from_json(json.loads(line.decode("utf-8")))))
        except (ValueError, RecursionError) as error:
            is_last = number == content.count(b"\n") + 1
            if is_last and _is_torn(line):
                logger.warning("%s: the last line is incomplete and is ignored", path)
            else:
                raise DatasetError(f"{path}, line {number} is not a prediction: {summarize_error(error)}") from error
    return rows


def _is_torn(line: bytes) -> bool:
    """Whether a line without end is what an interrupted run leaves: a part of a row, or the zeros of a file system."""
    return line.lstrip(b"\0")[:1] in (b"", b"{")


def _end_last_line(path: Path) -> None:
    """End the last line of a file, or remove it if it is incomplete."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        content = file.read()
        start = content.rfind(b"\n") + 1
        try:
            json.loads(content[start:].decode("utf-8"))
        except (ValueError, RecursionError):
            if _is_torn(content[start:]):
                file.truncate(start)
                return
        file.write(b"\n")


@validate_arguments
def predict_dataset(
    predictor: Predictor,
    datasets: Sequence[str],
    folder: str | Path,
    batch_size: int = 16,
    *,
    file_name: str | Path = ANSWERS_FILE,
    **generate_kwargs: Any,
) -> Path:
    """Answer all rows of datasets and append the predictions to `answers.jsonl`.

    An interrupted call resumes: rows that the file contains are not predicted again, those with an `error` included, unless
    their prompt, their target or their image has changed. The model and its settings are recorded beside the file, in
    `answers.settings.json`.

    Args:
        predictor: the model.
        datasets: as for fine-tuning; the rows need no response, and scenes are held-out ones by default.
        folder: where `answers.jsonl` is written, one `Prediction` a line.
        batch_size: examples predicted and written together.
        file_name: the name of the file, instead of `answers.jsonl`.
        generate_kwargs: as for `Predictor.predict`.

    Returns:
        The path of the file.

    Raises (before the model runs):
        ArgumentError: for a batch size below 1, a folder that cannot be written to, and a folder with answers of another model
            or of other settings.
        DatasetError: for a dataset that cannot be read or contains invalid rows, and for an `answers.jsonl` with other content.
    """
    path = prepare_output_folder("folder", folder) / file_name
    validator = RowValidator.for_model(predictor.model, predictor.processor, require_target=False)
    examples = load_examples(datasets, validator, split="held_out").require_valid()
    remaining = _resume(path, examples, describe_settings(predictor, generate_kwargs))
    with tqdm(total=len(examples), initial=len(examples) - len(remaining), unit="row") as bar:
        for start in range(0, len(remaining), batch_size):
            batch = remaining[start : start + batch_size]
            outcomes = predict_examples(predictor, batch, batch_size, **generate_kwargs)
            write_predictions(path, map(Prediction.from_outcome, batch, outcomes))
            bar.update(len(batch))
    return path


def _resume(path: Path, examples: Sequence[Example], settings: dict[str, Any]) -> list[Example]:
    """The examples without an answer in a file, from which answers to changed examples and a half line are removed."""
    rows = _read_lines(path) if path.exists() else []
    if not rows:
        write_settings(path, settings)
    elif (recorded := read_settings(path)) is None:
        logger.warning("%s is of an earlier version, which did not record the model; its answers are kept", path)
    elif difference := describe_difference(recorded, settings):
        raise ArgumentError(
            f"{path} was made with other settings: {difference}; choose another folder, or remove the file to answer anew"
        )
    kept, remaining = _match(path, [prediction for _, prediction in rows], examples)
    content = b"".join(rows[index][0] + b"\n" for index in sorted(kept))
    if path.exists() and path.read_bytes() != content:
        write_bytes(path, content)
    if len(kept) < len(rows):
        logger.info(
            "%s: %d rows whose prompt, target or image has changed are answered anew", path, len(rows) - len(kept)
        )
    return remaining


def _match(path: Path, rows: Sequence[Prediction], examples: Sequence[Example]) -> tuple[set[int], list[Example]]:
    """The indices of the rows that are valid, rows of other datasets included, and the examples without a row."""
    indices: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if not row.source:
            raise DatasetError(
                f"{path}, row {index + 1} is not the answer to a row of a dataset: it has no 'source'; choose another folder"
            )
        indices[row.source, row.query].append(index)
    sources = {example.source for example in examples}
    kept = {index for index, row in enumerate(rows) if row.source not in sources}
    remaining: list[Example] = []
    for example in examples:
        same = indices[example.source, example.prompt.query]
        answer = next((index for index in same if _answers(rows[index], example)), None)
        if answer is None:
            remaining.append(example)
        else:
            same.remove(answer)
            kept.add(answer)
    return kept, remaining


def _answers(row: Prediction, example: Example) -> bool:
    """Whether a row is the answer to an example of the same source and query, whose image may have been exchanged."""
    digest = image_digest(example)
    if row.target != example.target or (row.error and row.image_digest != digest):
        return False
    if row.image_digest and digest:
        return row.image_digest == digest
    return row.image in ("", image_name(example.image))


@validate_arguments
def predict_examples(
    predictor: Predictor, examples: Sequence[Example], batch_size: int = 16, **generate_kwargs: Any
) -> list[Outcome]:
    """Answer examples of any tasks. Each image is encoded once, and the prompts of one task are decoded together.

    Args:
        predictor: the model.
        examples: N examples; their images are in memory together.
        batch_size: prompts decoded together, at least 1.
        generate_kwargs: as for `Predictor.predict`.

    Returns:
        For each example, in order, its result without the image. Images that cannot be opened and prompts that the model
        does not accept have the exception instead.
    """
    images: dict[Hashable, EncodedImage | ImageError] = {}
    outcomes: dict[int, Outcome] = {}
    indices_by_task: dict[str, list[int]] = defaultdict(list)
    for i, example in enumerate(examples):
        if example.image_key not in images:
            images[example.image_key] = _encode(predictor, example)
        image = images[example.image_key]
        error = image if isinstance(image, ImageError) else _prompt_error(predictor, example)
        if error is None:
            indices_by_task[example.prompt.task.token].append(i)
        else:
            outcomes[i] = error
    for task, indices in indices_by_task.items():
        results = predictor.predict_batch(
            [images[examples[i].image_key] for i in indices],
            task,
            [examples[i].prompt.text for i in indices],
            batch_size,
            keep_images=False,
            **generate_kwargs,
        )
        outcomes |= dict(zip(indices, results, strict=True))
    return [outcomes[i] for i in range(len(examples))]


def _encode(predictor: Predictor, example: Example) -> EncodedImage | ImageError:
    try:
        return predictor.encode_image(example.load_image())
    except ImageError as error:
        return error


def _prompt_error(predictor: Predictor, example: Example) -> PromptError | None:
    """Return the error of an invalid prompt, else None. `predict_batch` would raise it for the whole batch."""
    try:
        predictor.build_prompt(example.image_size, example.prompt.task.token, example.prompt.text)
    except PromptError as error:
        return error
    return None


def image_name(image: ImageSource) -> str:
    """Return the path or URL of an image, or the seed of a scene; "" for an image in memory."""
    if isinstance(image, SceneReference):
        return str(image.seed)
    return str(image) if isinstance(image, (str, Path)) else ""
