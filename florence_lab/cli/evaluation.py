"""`florence-lab eval`: select the examples of a dataset and evaluate a model on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..data.datasets import check_datasets, load_examples, parse_datasets
from ..data.readers.scenes import ScenesReader
from ..data.validation import RowValidator
from ..evaluation.evaluator import Evaluation, evaluate
from ..evaluation.suites import evaluate_scenes
from ..exceptions import DatasetError
from ..predictor import Predictor


def evaluate_dataset(
    load: Callable[[], Predictor],
    dataset: str,
    tasks: Sequence[str] | None = None,
    batch_size: int = 16,
    **generate_kwargs: Any,
) -> Evaluation:
    """Evaluate a model on a dataset, or on held-out scenes with all tasks.

    Args:
        load: returns the model. It is called after the name of the dataset is found to be valid.
        dataset: `scenes`, `scenes:COUNT`, or a dataset as for fine-tuning.
        tasks: task tokens; None evaluates all tasks of the dataset.
        batch_size, generate_kwargs: as for `evaluate`.

    Raises:
        DatasetError: for a dataset that cannot be read or contains invalid rows, or without an example of `tasks`.
    """
    (spec,) = parse_datasets([dataset], split="held_out")
    check_datasets([spec])
    predictor = load()
    if spec.kind == "scenes":
        evaluation = evaluate_scenes(predictor, ScenesReader(spec).seeds, tasks, batch_size, **generate_kwargs)
        if not evaluation.examples and not evaluation.errors:
            raise DatasetError(f"{dataset} has no example of {', '.join(tasks or ())}")
        return evaluation
    validator = RowValidator.for_model(predictor.model, predictor.processor)
    examples = load_examples([spec], validator).require_valid()
    selected = [example for example in examples if tasks is None or example.prompt.task.token in tasks]
    if not selected:
        raise DatasetError(f"{dataset} has no example of {', '.join(tasks or ())}")
    return evaluate(predictor, selected, batch_size, **generate_kwargs)
