"""Whole datasets of questions, answered into a file; a run that was killed goes on where it was."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..data.datasets import load_examples
from ..data.examples import Example, image_key, open_picture
from ..data.validation import summarize_row_errors
from ..exceptions import DatasetError
from ..predictor import Predictor

_AT_ONCE = 16  # pictures asked together, and how much a kill can lose


def predict_dataset(predictor: Predictor, datasets: Sequence[str], folder: str | Path, **generation: Any) -> Path:
    """Answer every row of some datasets.

    Args:
        predictor: the model that is asked.
        datasets: as for training; rows need no response.
        folder: for `answers.jsonl`: a line for each row with `source`, `query`, `response` (as generated), `label` (the
            row's own response) and `result` (in pixels). Rows that are there already are not asked again.
        generation: settings for `generate`, as for `Predictor.predict`.

    Returns:
        The path of `answers.jsonl`.

    Raises:
        DatasetError: for a dataset that can't be read, or faulty rows; before anything is asked.
    """
    examples, problems = load_examples(datasets, predictor.processor.tokenizer, answered=False)
    if problems:
        raise DatasetError(f"{len(problems)} faulty rows: {summarize_row_errors(problems)}")
    path = Path(folder) / "answers.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _done(path)
    left = [example for example in examples if (example.source, _query(example)) not in done]
    with tqdm(total=len(examples), initial=len(examples) - len(left), unit="row") as bar:
        for start in range(0, len(left), _AT_ONCE):
            batch = left[start : start + _AT_ONCE]
            lines = _answer(predictor, batch, generation)
            with path.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
            bar.update(len(batch))
    return path


def _query(example: Example) -> str:
    """What tells the questions of a row apart: it asks one for each of its boxes."""
    return example.task + example.text if example.task else example.prompt


def _done(path: Path) -> set[tuple[str, str]]:
    """What is answered already; the last line goes if it is half a line, as a kill leaves it."""
    if not path.exists():
        return set()
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    return {(line["source"], line["query"]) for line in map(json.loads, whole.splitlines())}


def _answer(predictor: Predictor, examples: Sequence[Example], generation: dict[str, Any]) -> list[dict[str, Any]]:
    """A line for each of some examples; every picture encoded once, questions of one task asked together."""
    encoded, together = {}, defaultdict(list)
    for i, example in enumerate(examples):
        if image_key(example.image) not in encoded:
            encoded[image_key(example.image)] = predictor.encode_image(open_picture(example.image))
        together[example.task].append(i)
    lines: dict[int, dict[str, Any]] = {}
    for task, numbers in together.items():
        chosen = [examples[i] for i in numbers]
        images = [encoded[image_key(example.image)] for example in chosen]
        if task:
            texts = [example.text or None for example in chosen]
            results = predictor.predict_batch(images, task, texts, batch_size=len(chosen), **generation)
        else:  # questions in people's own words
            results = [predictor.predict(im, e.prompt, **generation) for im, e in zip(images, chosen, strict=True)]
        for i, example, result in zip(numbers, chosen, results, strict=True):
            lines[i] = {
                "source": example.source,
                "query": _query(example),
                "response": result.raw,
                "label": example.response,
                "result": result.to_dict(),
            }
    return [lines[i] for i in range(len(examples))]
