"""`florence-lab eval`: select the examples of a dataset and evaluate a model on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.datasets import check_datasets, load_examples, parse_datasets
from ..data.examples import Example
from ..data.readers.scenes import ScenesReader
from ..data.validation import RowValidator
from ..evaluation.absence import AbsenceEvaluation, ask_absence
from ..evaluation.absence_questions import ABSENCE_TASKS, AbsenceQuestion, sample_absence_questions
from ..evaluation.evaluator import Evaluation, evaluate
from ..evaluation.metrics import locates_phrase
from ..evaluation.suites import SuiteEvaluation, evaluate_scenes, evaluate_suite, get_suite, scene_examples
from ..evaluation.suites.published import get_split
from ..exceptions import ArgumentError, DatasetError
from ..predictor import Predictor
from ..tasks import get_task


@dataclass(frozen=True, eq=False)
class DatasetEvaluation:
    """What `florence-lab eval` measures.

    Attributes:
        evaluation: the metrics of the tasks.
        absence: the answers to questions about absent things; None if they were not asked.
    """

    evaluation: Evaluation
    absence: AbsenceEvaluation | None = None

    def to_text(self) -> str:
        """Return the tables to print."""
        tables = [self.evaluation.to_dataframe()]
        if self.absence is not None:
            tables.append(self.absence.to_dataframe())
        return "\n\n".join(t.to_string(index=False, float_format="{:.3f}".format, na_rep="-") for t in tables)

    def save(self, folder: str | Path) -> Path:
        """Write the files of `Evaluation.save` and `AbsenceEvaluation.save`."""
        path = self.evaluation.save(folder)
        return path if self.absence is None else self.absence.save(path)


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
    (spec,) = parse_datasets([dataset], split="held_out")
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
        examples = load_examples([spec], validator).require_valid()
        selected = [example for example in examples if tasks is None or example.prompt.task.token in tasks]
        if not selected:
            raise _no_example(dataset, tasks)
        questions = _sample_questions(examples, tasks, absent_names)
        evaluation = evaluate(predictor, selected, batch_size, **generate_kwargs)
    if absent_names is None:
        return DatasetEvaluation(evaluation)
    located = _locating_tasks(tasks)
    absence = ask_absence(predictor, questions, located, batch_size=batch_size, **generate_kwargs)
    return DatasetEvaluation(evaluation, absence)


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
