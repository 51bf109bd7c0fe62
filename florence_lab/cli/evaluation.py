"""`florence-lab eval`: select the examples of a dataset and evaluate a model on them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.datasets import check_datasets, load_examples, parse_datasets
from ..data.examples import Example
from ..data.readers import recognize_dataset
from ..data.readers.coco import CocoReader
from ..data.readers.scenes import ScenesReader
from ..data.spec import DatasetSpec
from ..data.validation import RowValidator, merge_references
from ..evaluation.absence import AbsenceEvaluation, ask_absence
from ..evaluation.absence_questions import ABSENCE_TASKS, AbsenceQuestion, sample_absence_questions
from ..evaluation.coco_file import coco_file_scores
from ..evaluation.comparison import TaskComparison, compare_predictions, comparison_table
from ..evaluation.errors import count_errors
from ..evaluation.evaluator import Evaluation, evaluate
from ..evaluation.metrics import locates_phrase
from ..evaluation.official import CocoScores
from ..evaluation.prediction_files import ANSWERS_FILE, read_predictions
from ..evaluation.report import write_report
from ..evaluation.suites import SuiteEvaluation, evaluate_scenes, evaluate_suite, get_suite, scene_examples
from ..evaluation.suites.published import get_split
from ..exceptions import ArgumentError, DatasetError, summarize_error
from ..output_files import write_text
from ..predictor import Predictor
from ..tasks import get_task

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class DatasetEvaluation:
    """What `florence-lab eval` measures.

    Attributes:
        evaluation: the metrics of the tasks.
        absence: the answers to questions about absent things; None if they were not asked.
        coco: the official numbers of detection on a COCO file; None for other data sets.
        comparisons: with an earlier run, see `compare_runs`.
    """

    evaluation: Evaluation
    absence: AbsenceEvaluation | None = None
    coco: CocoScores | None = None
    comparisons: Sequence[TaskComparison] = ()

    def to_text(self) -> str:
        """Return the tables to print."""
        tables = {"": self.evaluation.to_dataframe()}
        if self.absence is not None:
            tables["absent things"] = self.absence.to_dataframe()
        tables |= {f"kinds of errors, {task}": table for task, table in self._error_tables()}
        if self.coco is not None:
            tables["official numbers on the COCO file (pycocotools)"] = pd.DataFrame([self.coco.values])
            if self.coco.names is not None:
                tables["labels and their categories"] = self.coco.names.to_dataframe().head(_MAX_LABELS)
        if self.comparisons:
            tables["compared with the earlier run (first), mean score of an answer"] = comparison_table(
                self.comparisons
            )
        return "\n\n".join(
            f"{title}\n{table.to_string(index=False, float_format='{:.3f}'.format, na_rep='-')}".strip("\n")
            for title, table in tables.items()
        )

    def _error_tables(self) -> Iterator[tuple[str, pd.DataFrame]]:
        for token, task in self.evaluation.tasks.items():
            if task.metric == "detection" or (task.metric is None and task.result == "boxes"):
                yield token, pd.DataFrame([count_errors(*self.evaluation.for_task(token))])

    def compare(self, folder: str | Path) -> DatasetEvaluation:
        """Return the evaluation with a comparison with an earlier run that was saved to a folder.

        Raises:
            DatasetError, ArgumentError: as `compare_runs`.
        """
        earlier = read_predictions(Path(folder) / ANSWERS_FILE)
        return replace(self, comparisons=compare_predictions(earlier, list(self.evaluation.rows())))

    def save(self, folder: str | Path) -> Path:
        """Write the files of `Evaluation.save` and `AbsenceEvaluation.save`, `report.html`, and `coco.json` for a COCO file."""
        path = self.evaluation.save(folder)
        write_report(self.evaluation, path / "report.html", self.comparisons)
        if self.coco is not None:
            values = {name: None if math.isnan(value) else value for name, value in self.coco.values.items()}
            content = {"metrics": values, "categories": self.coco.by_category}
            write_text(path / "coco.json", json.dumps(content, indent=2) + "\n")
        return path if self.absence is None else self.absence.save(path)


_MAX_LABELS = 100


def evaluate_dataset(
    load: Callable[[], Predictor],
    dataset: str,
    tasks: Sequence[str] | None = None,
    batch_size: int = 16,
    absent_names: Sequence[str] | None = None,
    **generate_kwargs: Any,
) -> DatasetEvaluation:
    """Evaluate a model on a dataset, or on held-out scenes with all tasks.

    Args:
        load: returns the model. It is called after the name of the dataset is found to be valid.
        dataset: `scenes`, `scenes:COUNT`, or a dataset as for fine-tuning.
        tasks: task tokens; None evaluates all tasks of the dataset.
        batch_size, generate_kwargs: as for `evaluate`.
        absent_names: further names for the questions about absent things; None asks no such questions. They are asked with
            those of `tasks` that locate a phrase, or with all published ones if there are none.

    Raises:
        DatasetError: for a dataset that cannot be read or contains invalid rows, or without an example of `tasks`; and for
            one that gives no question about absent things. The latter is raised before the model answers.
    """
    (parsed,) = parse_datasets([dataset], split="held_out")
    spec = recognize_dataset(parsed)
    if spec.kind == "coco":  # images without annotations are asked about, too, as pycocotools evaluates them
        spec = replace(spec, options={"empty": "ask", **spec.options})
    check_datasets([spec])
    predictor = load()
    if spec.kind == "scenes":
        seeds = ScenesReader(spec).seeds
        labelled = () if absent_names is None else scene_examples(seeds, ["<OD>", *_locating_tasks(tasks)])
        questions = _sample_questions(labelled, tasks, absent_names)
        evaluation = evaluate_scenes(predictor, seeds, tasks, batch_size, **generate_kwargs)
        if not evaluation.examples and not evaluation.errors:
            raise _no_example(dataset, tasks)
    else:
        validator = RowValidator.for_model(predictor.model, predictor.processor)
        examples = merge_references(load_examples([spec], validator).require_valid())
        selected = [example for example in examples if tasks is None or example.prompt.task.token in tasks]
        if not selected:
            raise _no_example(dataset, tasks)
        questions = _sample_questions(examples, tasks, absent_names)
        evaluation = evaluate(predictor, selected, batch_size, **generate_kwargs)
    coco = _official_numbers(spec, evaluation)
    if absent_names is None:
        return DatasetEvaluation(evaluation, coco=coco)
    located = _locating_tasks(tasks)
    absence = ask_absence(predictor, questions, located, batch_size=batch_size, **generate_kwargs)
    return DatasetEvaluation(evaluation, absence, coco)


def _official_numbers(spec: DatasetSpec, evaluation: Evaluation) -> CocoScores | None:
    """The numbers of pycocotools; None unless the data set is a COCO file with objects."""
    if spec.kind != "coco":
        return None
    reader = CocoReader(spec)
    if reader.has_captions:
        return None
    try:
        return coco_file_scores(evaluation, reader.path, reader.folder)
    except Exception as error:  # what pycocotools does not accept must not cost the answers
        logger.warning("pycocotools cannot evaluate %s: %s", reader.path, summarize_error(error))
        return None


def evaluate_benchmark(
    load: Callable[[], Predictor],
    name: str,
    root: str | None,
    folder: str,
    split: str | None = None,
    limit: int | None = None,
    tasks: Sequence[str] | None = None,
    batch_size: int = 16,
    **generate_kwargs: Any,
) -> SuiteEvaluation:
    """Evaluate a model on a published benchmark, see `evaluate_suite`.

    Args:
        load: returns the model. It is called after the files of the benchmark are found.
        name: a key of `SUITES`.
        root: the folder with the published files.
        folder, split, limit, batch_size, generate_kwargs: as for `evaluate_suite`.
        tasks: at most one task token, which is asked in place of the suite's own.

    Raises:
        ArgumentError: without a root, and for several tasks.
        DatasetError: as `evaluate_suite`.
    """
    suite = get_suite(name)
    if root is None:
        raise ArgumentError(f"--suite {name} needs --root, the folder with the published files")
    if tasks is not None and len(tasks) > 1:
        raise ArgumentError(f"--suite asks one task, but --tasks gives {', '.join(tasks)}")
    suite.check()
    suite.read(Path(root), get_split(suite, split))  # before a model is loaded
    return evaluate_suite(
        load(), name, root, folder, split, limit, batch_size, tasks[0] if tasks else None, **generate_kwargs
    )


def _locating_tasks(tasks: Sequence[str] | None) -> list[str]:
    """Return the tasks that locate a phrase; all published ones if there are none."""
    return [task for task in tasks or () if locates_phrase(get_task(task))] or list(ABSENCE_TASKS)


def _sample_questions(
    examples: Iterable[Example], tasks: Sequence[str] | None, absent_names: Sequence[str] | None
) -> list[AbsenceQuestion]:
    if absent_names is None:
        return []
    return sample_absence_questions(examples, _locating_tasks(tasks), names=absent_names)


def _no_example(dataset: str, tasks: Sequence[str] | None) -> DatasetError:
    return DatasetError(f"{dataset} has no example of {', '.join(tasks or ())}")
