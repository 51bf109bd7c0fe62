"""`predict_dataset`: answers to whole datasets in a file, and `predict_examples` for those in memory."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..argument_validation import validate_arguments
from ..data.datasets import load_examples
from ..data.examples import Example
from ..data.validation import RowValidator
from ..exceptions import ArgumentError, DatasetError, ImageError, PromptError
from ..inference.generation import EncodedImage
from ..output_files import prepare_output_folder, write_bytes
from ..predictor import Predictor
from .prediction_files import ANSWERS_FILE, read_lines, write_predictions
from .predictions import Outcome, Prediction, image_digest, image_name
from .settings import describe_difference, describe_settings, read_settings, write_settings

logger = logging.getLogger(__name__)


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
    rows = read_lines(path) if path.exists() else []
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
