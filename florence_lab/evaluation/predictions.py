"""`Prediction`, a row of `answers.jsonl`, and the prediction of whole datasets into such a file."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from ..data.datasets import load_examples
from ..data.examples import Example, SceneReference
from ..data.validation import RowValidator
from ..exceptions import ImageError, PromptError
from ..results import Result
from ..tasks import split_query

if TYPE_CHECKING:
    from ..inference.generation import EncodedImage
    from ..predictor import Predictor

ANSWERS_FILE = "answers.jsonl"

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

    @classmethod
    def from_outcome(cls, example: Example, outcome: Outcome, score: float | None = None) -> Prediction:
        """Return the row of an example and its result or exception."""
        row = cls(
            source=example.source,
            image=_image_name(example),
            task=example.prompt.task.token,
            text=example.prompt.text,
            target=example.target,
            score=score,
        )
        if isinstance(outcome, Result):
            return replace(row, response=outcome.raw, result=outcome.to_dict())
        return replace(row, error=str(outcome))

    @property
    def query(self) -> str:
        """The query as `Predictor.predict` takes it: the task token with the text behind it, or the free-form question."""
        return self.task + self.text

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
        if "task" not in row and "query" not in row:
            raise ValueError(
                f"expected a row with 'task' or 'query', got the keys {', '.join(map(repr, row)) or 'none'}"
            )
        row = {name: row[key] for key, name in _EARLIER_KEYS.items() if key in row} | row
        if "task" not in row:
            task, text = split_query(row["query"])
            row |= {"task": task.token, "text": text}
        return cls(**{name: row[name] for name in cls.__dataclass_fields__ if row.get(name) is not None})


def read_predictions(path: str | Path) -> list[Prediction]:
    """Read a file that `predict_dataset`, `Evaluation.save` or `florence-lab infer` wrote."""
    with Path(path).open(encoding="utf-8") as file:
        return [Prediction.from_json(json.loads(line)) for line in file if line.strip()]


def write_predictions(path: str | Path, predictions: Iterable[Prediction]) -> None:
    """Append rows to a JSON lines file."""
    lines = (json.dumps(prediction.to_json(), ensure_ascii=False) + "\n" for prediction in predictions)
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("".join(lines))


def predict_dataset(
    predictor: Predictor, datasets: Sequence[str], folder: str | Path, batch_size: int = 16, **generate_kwargs: Any
) -> Path:
    """Answer all rows of datasets and append the predictions to `answers.jsonl`.

    An interrupted call resumes: rows that the file contains are not predicted again, those with an `error` included.

    Args:
        predictor: the model.
        datasets: as for fine-tuning; the rows need no response, and scenes are held-out ones by default.
        folder: where `answers.jsonl` is written, one `Prediction` a line.
        batch_size: examples predicted and written together.
        generate_kwargs: as for `Predictor.predict`.

    Returns:
        The path of `answers.jsonl`.

    Raises:
        DatasetError: for a dataset that cannot be read or contains invalid rows; before the model runs.
        ValueError: for a batch size below 1.
    """
    check_batch_size(batch_size)
    validator = RowValidator.for_model(predictor.model, predictor.processor, require_target=False)
    examples = load_examples(datasets, validator, split="held_out").require_valid()
    path = Path(folder) / ANSWERS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    completed = _completed_rows(path)
    remaining = [example for example in examples if (example.source, example.prompt.query) not in completed]
    with tqdm(total=len(examples), initial=len(examples) - len(remaining), unit="row") as bar:
        for start in range(0, len(remaining), batch_size):
            batch = remaining[start : start + batch_size]
            outcomes = predict_examples(predictor, batch, batch_size, **generate_kwargs)
            write_predictions(path, map(Prediction.from_outcome, batch, outcomes))
            bar.update(len(batch))
    return path


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


def check_batch_size(batch_size: int) -> None:
    """Raise a ValueError for a batch size below 1."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, got {batch_size}")


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


def _image_name(example: Example) -> str:
    if isinstance(example.image, SceneReference):
        return str(example.image.seed)
    return str(example.image) if isinstance(example.image, (str, Path)) else ""


def _completed_rows(path: Path) -> set[tuple[str, str]]:
    """(source, query) of the rows of a file. An incomplete last line, left by an interrupted run, is removed."""
    if not path.exists():
        return set()
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)
    return {(row.source, row.query) for row in read_predictions(path)}
