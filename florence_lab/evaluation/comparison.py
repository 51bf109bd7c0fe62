"""Comparing two runs on the same examples, by the paired bootstrap over images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..argument_validation import validate_arguments
from ..exceptions import ArgumentError
from .official import Difference, mean_estimate, paired_difference
from .prediction_files import ANSWERS_FILE, read_predictions
from .predictions import Prediction

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class TaskComparison:
    """Two runs on the examples of one task that both have answered.

    Attributes:
        task: the task token; "" for free-form questions.
        num_examples: the examples that both runs have scored.
        first, second: the mean score of each run, 0..1, see `MetricSuite.per_sample`.
        difference: second minus first, with its interval.
        num_better, num_worse: examples with a higher and with a lower score in the second run.
    """

    task: str
    num_examples: int
    first: float
    second: float
    difference: Difference
    num_better: int
    num_worse: int


@validate_arguments
def compare_runs(first: str | Path, second: str | Path) -> list[TaskComparison]:
    """Compare two runs of `evaluate` or `florence-lab eval` by task.

    Examples are paired by their source and query. The score is that of single answers: F1 of an image, word accuracy of a text …

    Args:
        first, second: the folders that the runs were saved to.

    Raises:
        DatasetError: for a folder without answers.
        ArgumentError: if the runs have no scored example in common.
    """
    return compare_predictions(*(read_predictions(Path(folder) / ANSWERS_FILE) for folder in (first, second)))


@validate_arguments
def compare_predictions(first: Sequence[Prediction], second: Sequence[Prediction]) -> list[TaskComparison]:
    """Compare two lists of scored predictions, see `compare_runs`."""
    scores = {(row.source, row.query, row.target): row for row in first if row.score is not None}
    pairs = [
        (scores[key], row)
        for row in second
        if row.score is not None and (key := (row.source, row.query, row.target)) in scores
    ]
    if not pairs:
        raise ArgumentError(f"the runs have no scored example in common: they have {len(first)} and {len(second)} rows")
    by_task: dict[str, list[tuple[Prediction, Prediction]]] = {}
    for pair in pairs:
        by_task.setdefault(pair[0].task, []).append(pair)
    return [_compare_task(task, rows) for task, rows in by_task.items()]


def _compare_task(task: str, pairs: Sequence[tuple[Prediction, Prediction]]) -> TaskComparison:
    a, b = ([float(row.score or 0) for row in rows] for rows in zip(*pairs, strict=True))
    estimates = mean_estimate(a), mean_estimate(b)
    groups = [row.image or row.source for row, _ in pairs]
    return TaskComparison(
        task,
        len(pairs),
        estimates[0].value,
        estimates[1].value,
        paired_difference(*estimates, groups),
        sum(y > x for x, y in zip(a, b, strict=True)),
        sum(y < x for x, y in zip(a, b, strict=True)),
    )


@validate_arguments
def comparison_table(comparisons: Sequence[TaskComparison]) -> pd.DataFrame:
    """Return a data frame with a row for each task: the scores of both runs, their difference, its interval and p-value."""
    import pandas as pd

    rows = []
    for each in comparisons:
        low, high = each.difference.interval or (math.nan, math.nan)
        rows.append(
            {
                "task": each.task or "question",
                "examples": each.num_examples,
                "first": each.first,
                "second": each.second,
                "difference": each.difference.value,
                "low": low,
                "high": high,
                "p": each.difference.p_value,
                "better": each.num_better,
                "worse": each.num_worse,
            }
        )
    return pd.DataFrame(rows)
