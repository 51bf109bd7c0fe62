"""TODO"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tqdm.contrib.concurrent import thread_map

from ..exceptions import DatasetError
from ..template.template import FlorenceTemplate
from .examples import Question, as_questions
from .readers import _records
from .validation import _Check, summarize_row_errors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from .examples import Example
    from .rows import RowError


def check_datasets(datasets: Sequence[str]) -> None:
    """Refuse what is no dataset, or isn't there, before anything large is loaded. Raises `DatasetError`."""
    for dataset in datasets:
        _records(dataset.partition("#")[0])


def load_examples(
    datasets: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int = 1024,
    seed: int = 42,
    answered: bool = True,
) -> tuple[list[Example], list[RowError]]:
    """Read datasets, and check every row: its picture, its question, its boxes, its answer.

    Args:
        datasets: see the top of this file.
        tokenizer: to count the tokens of answers.
        max_length: the longest answer, in tokens, with `<s>` and `</s>`.
        seed: for samples.
        answered: whether a row without an answer is faulty; to be asked, it needs none.

    Returns:
        The examples, in the order of their rows, and the rows that are none.

    Raises:
        DatasetError: for a dataset that isn't there, or is none.
    """
    examples, problems = [], []
    for dataset in datasets:
        name, _, count = dataset.partition("#")
        numbered = list(enumerate(_records(name), start=1))
        if count:
            numbered = _sample(numbered, count, dataset, seed)
        check = _Check(name, FlorenceTemplate(tokenizer), max_length, answered)
        for found in thread_map(check, numbered, desc=f"checking {name}", unit="row", chunksize=16):
            kept, problem = found
            examples += kept
            problems += [problem] if problem else []
    return examples, problems


def read_questions(
    dataset: str, tokenizer: PreTrainedTokenizerBase, tasks: Sequence[str] | None = None
) -> list[Question]:
    """A dataset as `evaluate` asks it.

    Args:
        dataset: see the top of this file.
        tokenizer: of the model that is asked.
        tasks: task tokens; all by default.

    Raises:
        DatasetError: for a dataset that can't be read, for faulty rows, or if nothing is asked.
    """
    examples, problems = load_examples([dataset], tokenizer)
    if problems:
        raise DatasetError(f"{len(problems)} faulty rows: {summarize_row_errors(problems)}")
    questions = as_questions(example for example in examples if not tasks or example.task in tasks)
    if not questions:
        raise DatasetError(f"{dataset} asks nothing of {', '.join(tasks or ['any task'])}")
    return questions


def _sample(numbered: list[tuple[int, Any]], count: str, dataset: str, seed: int) -> list[tuple[int, Any]]:
    if not count.isdecimal() or int(count) == 0:
        raise DatasetError(f"{dataset!r}: behind # stands how many rows to take, as in {dataset.partition('#')[0]}#500")
    chosen = random.Random(seed).sample(range(len(numbered)), min(int(count), len(numbered)))
    return [numbered[i] for i in sorted(chosen)]
