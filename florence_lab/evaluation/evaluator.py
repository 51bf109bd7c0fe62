"""`evaluate`: run a model on labelled examples; `Evaluation`: its predictions, metrics and worst results."""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from ..argument_validation import validate_arguments, validate_fields, validate_value
from ..data.examples import Example
from ..exceptions import ImageError, PromptError, summarize_error
from ..output_files import prepare_output_folder, replace_file, write_text
from ..predictor import Predictor
from ..results import Result
from ..tasks import Metric, Task
from .metrics import METRIC_SUITES, MetricSuite, metric_suite, task_metrics
from .prediction_files import ANSWERS_FILE, write_predictions
from .prediction_runs import predict_examples
from .predictions import Prediction
from .settings import describe_settings, settings_path, write_settings

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

FREE_QUESTION_NAME = "question"
"""Name of free-form questions, whose task token is empty, in tables and flat metric names."""


class FailedExample(NamedTuple):
    """An example without prediction: its image cannot be opened, or the model does not accept its prompt."""

    example: Example
    error: ImageError | PromptError


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Examples with their predictions.

    Attributes:
        model_name: the name of the model.
        examples: N examples, in the order in which they were given.
        predictions: their N results, without images.
        errors: the examples that have no prediction. They do not count in any metric.
        metric_suites: the metrics by `Task.metric`.
        settings: the model and the settings of generation, see `describe_settings`; None if they are unknown.
    """

    model_name: str
    examples: Sequence[Example]
    predictions: Sequence[Result]
    errors: Sequence[FailedExample] = ()
    metric_suites: Mapping[Metric, MetricSuite] = field(default_factory=lambda: METRIC_SUITES, repr=False)
    settings: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        validate_fields(self)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """Task token -> task, in the order of their first example. The token of free-form questions is ""."""
        return {example.prompt.task.token: example.prompt.task for example in self.examples}

    @validate_arguments
    def for_task(self, task: str) -> tuple[list[Any], list[Any]]:
        """Return the predictions and the ground truths of a task token, both in the order of the examples."""
        indices = [i for i, example in enumerate(self.examples) if example.prompt.task.token == task]
        return [self.predictions[i] for i in indices], [self.ground_truths[i] for i in indices]

    @cached_property
    def ground_truths(self) -> list[Result]:
        """The N ground truths; of several references to an example, the one with which its prediction agrees best."""
        return [self._closest(*pair) for pair in zip(self.examples, self.predictions, strict=True)]

    def _closest(self, example: Example, prediction: Result) -> Result:
        if not example.references:
            return example.ground_truth
        per_sample = metric_suite(example.prompt.task, self.metric_suites).per_sample
        scores = np.nan_to_num([per_sample(prediction, truth) for truth in example.ground_truths], nan=-1)
        return example.ground_truths[int(scores.argmax())]

    @cached_property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Task token -> metric -> value; nan where a metric is undefined. See `florence_lab.evaluation.metrics`."""
        return {
            token: task_metrics(task, *self.for_task(token), self.metric_suites) for token, task in self.tasks.items()
        }

    def flat_metrics(self) -> dict[str, float]:
        """Return the metrics under the names that `--metric_for_best_model` takes: `"OD/mAP@0.5"` -> value."""
        return {_flat(task, name): value for task, values in self.metrics.items() for name, value in values.items()}

    def to_dataframe(self) -> pd.DataFrame:
        """Return a data frame with a row for each metric: `task`, `metric`, `value`, `examples` (their number)."""
        import pandas as pd

        rows = [
            {
                "task": task or FREE_QUESTION_NAME,
                "metric": name,
                "value": value,
                "examples": len(self.for_task(task)[0]),
            }
            for task, values in self.metrics.items()
            for name, value in values.items()
        ]
        return pd.DataFrame(rows, columns=["task", "metric", "value", "examples"])

    @cached_property
    def sample_scores(self) -> np.ndarray:
        """N float64: how well each prediction agrees with its ground truth, 0..1 or nan, see `MetricSuite.per_sample`."""
        rows = zip(self.examples, self.predictions, self.ground_truths, strict=True)
        scores = [metric_suite(e.prompt.task, self.metric_suites).per_sample(p, truth) for e, p, truth in rows]
        return np.array(scores, float)

    @validate_arguments
    def plot_worst(self, num_tasks: int = 8, num_per_task: int = 3) -> Figure:
        """Show the predictions with the lowest scores: one row for each task, the tasks with the lowest scores first.

        Args:
            num_tasks: maximum number of rows.
            num_per_task: maximum number of predictions in a row.
        """
        from ..visualization.gallery import gallery

        by_task = defaultdict(list)
        for i in np.argsort(self.sample_scores, kind="stable"):  # nan comes last
            by_task[self.examples[i].prompt.task.token].append(int(i))
        scores = np.nan_to_num(self.sample_scores, nan=1)
        rows = sorted((indices[:num_per_task] for indices in by_task.values()), key=lambda row: scores[row].mean())
        worst = [i for row in rows[:num_tasks] for i in row]
        return gallery([(self.examples[i].load_image(), self.predictions[i]) for i in worst], columns=num_per_task)

    @validate_arguments
    def save(self, folder: str | Path) -> Path:
        """Write `metrics.json`, `answers.jsonl` (one `Prediction` a line, failed examples last) and `worst.png`.

        Files of an earlier evaluation are replaced. `answers.settings.json` records the model and the settings. A picture
        that cannot be drawn, for example because an image file is gone, is a message in the log.

        Raises:
            ArgumentError: if the folder cannot be written to.
        """
        folder = prepare_output_folder("folder", folder)
        metrics = {
            task: {name: _finite_or_none(value) for name, value in of.items()} for task, of in self.metrics.items()
        }
        summary = {
            "model": self.model_name,
            "questions": len(self.examples),
            "errors": len(self.errors),
            "metrics": metrics,
        }
        with replace_file(folder / ANSWERS_FILE) as temporary:
            write_predictions(temporary, self.rows())
        settings_path(folder / ANSWERS_FILE).unlink(missing_ok=True)
        if self.settings is not None:
            write_settings(folder / ANSWERS_FILE, self.settings)
        write_text(folder / "metrics.json", json.dumps(summary, indent=2) + "\n")
        try:
            with replace_file(folder / "worst.png") as temporary:
                self.plot_worst().savefig(temporary)
        except Exception as error:  # an image that is gone, or whatever Matplotlib cannot draw
            logger.warning("%s could not be drawn: %s", folder / "worst.png", summarize_error(error))
        return folder

    def rows(self) -> Iterable[Prediction]:
        """Yield the rows of `answers.jsonl`: the predictions with their scores, then the failed examples."""
        for example, prediction, score in zip(self.examples, self.predictions, self.sample_scores, strict=True):
            yield Prediction.from_outcome(example, prediction, _finite_or_none(round(float(score), 4)))
        for example, error in self.errors:
            yield Prediction.from_outcome(example, error)


@validate_arguments
def evaluate(
    predictor: Predictor,
    examples: Iterable[Example],
    batch_size: int = 16,
    metric_suites: Mapping[Metric, MetricSuite] | None = None,
    **generate_kwargs: Any,
) -> Evaluation:
    """Run a model on labelled examples and collect its predictions.

    Args:
        predictor: the model.
        examples: examples with targets. Those about one image should be consecutive, so that it is encoded once.
        batch_size: images in memory at a time, and prompts decoded together; at least 1.
        metric_suites: the metrics by `Task.metric`; by default `METRIC_SUITES`.
        generate_kwargs: as for `Predictor.predict`.

    Returns:
        The predictions in the order of the examples. Examples whose image cannot be opened, or whose prompt the model does
        not accept, are in its `errors`.

    Raises:
        ArgumentError: for a batch size below 1, or an unknown argument in `generate_kwargs`.
    """
    evaluated: list[Example] = []
    predictions: list[Result] = []
    errors: list[FailedExample] = []
    images = groupby(examples, key=lambda example: validate_value("an example", example, Example).image_key)
    total = len(examples) if isinstance(examples, Sized) else None
    with tqdm(total=total, desc=predictor.name, unit="example") as bar:
        # a group of groupby is empty once the next one is requested
        while batch := [e for group in islice((list(group) for _, group in images), batch_size) for e in group]:
            outcomes = predict_examples(predictor, batch, batch_size, **generate_kwargs)
            for example, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Result):
                    evaluated.append(example)
                    predictions.append(outcome)
                else:
                    errors.append(FailedExample(example, outcome))
            bar.update(len(batch))
    if errors:
        first = errors[0]
        logger.warning(
            "%d examples have no prediction; the first is %s: %s", len(errors), first.example.source, first.error
        )
    return Evaluation(
        predictor.name,
        evaluated,
        predictions,
        errors,
        metric_suites or METRIC_SUITES,
        describe_settings(predictor, generate_kwargs),
    )


@validate_arguments
def metric_names(tasks: Iterable[Task], metric_suites: Mapping[Metric, MetricSuite] = METRIC_SUITES) -> list[str]:
    """Return the names that `Evaluation.flat_metrics` gives for tasks, `"OD/mAP@0.5"` …, without evaluating anything."""
    return [_flat(task.token, name) for task in tasks for name in task_metrics(task, [], [], metric_suites)]


def _flat(task: str, metric: str) -> str:
    return f"{task.strip('<>') or FREE_QUESTION_NAME}/{metric}"


def _finite_or_none(value: float) -> float | None:
    """JSON has no nan."""
    return value if math.isfinite(value) else None
