"""`evaluate_absence`: whether a model answers nothing where nothing is, and whether its scores tell present from absent things."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ..argument_validation import validate_arguments, validate_fields
from ..data.examples import Example, image_key, load_image_source
from ..exceptions import ArgumentTypeError, ImageError, PromptError, shorten
from ..output_files import prepare_output_folder, replace_file, write_text
from ..predictor import Predictor
from ..results import Instances
from ..template.prompts import build_prompt
from .absence_questions import (
    ABSENCE_STRATEGIES,
    ABSENCE_TASKS,
    AbsenceQuestion,
    AbsenceStrategy,
    check_locating_task,
    sample_absence_questions,
)
from .evaluator import FailedExample, evaluate
from .plots import plot_roc
from .prediction_files import append_rows
from .predictions import image_name
from .reliability import area_under_roc
from .settings import describe_settings

if TYPE_CHECKING:
    import pandas as pd

    from ..visualization.figures import NotebookFigure

logger = logging.getLogger(__name__)

AbsenceMethod = Callable[[Image.Image, list[str]], Instances]
"""(image, names) -> instances whose labels are names, such as `Predictor.detect`."""

_METHOD_TASK = "<OPEN_VOCABULARY_DETECTION>"
_PANEL_INCHES = 4.2


@dataclass(frozen=True, eq=False)
class AbsenceAnswer:
    """A question with its answer.

    Attributes:
        question: what was asked.
        task: the token of the task that was asked, or the name of another method.
        result: the instances that were found; none if the answer is that there is nothing.
    """

    question: AbsenceQuestion
    task: str
    result: Instances

    def __post_init__(self) -> None:
        validate_fields(self)

    @property
    def score(self) -> float:
        """The highest score of an instance, 0..1: 0 without instances, and 1 for instances without scores."""
        if not len(self.result):
            return 0.0
        return 1.0 if self.result.scores is None else float(self.result.scores.max())

    def to_json(self) -> dict[str, Any]:
        """Return the answer as a dictionary of JSON values."""
        question = self.question
        return {
            "source": question.source,
            "image": image_name(question.image),
            "task": self.task,
            "name": question.name,
            "is_present": question.is_present,
            "strategies": list(question.strategies),
            "score": round(self.score, 6),
            "response": self.result.raw,
            "result": self.result.to_dict(),
        }


@dataclass(frozen=True, eq=False)
class AbsenceEvaluation:
    """Questions about present and absent things with a model's answers.

    Attributes:
        model_name: the name of the model.
        answers: the answers, those about one image together.
        errors: questions without an answer. They do not count in any metric.
        settings: the model and the settings of generation, see `describe_settings`; None if they are unknown.
    """

    model_name: str
    answers: Sequence[AbsenceAnswer]
    errors: Sequence[FailedExample] = ()
    settings: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        validate_fields(self)

    @cached_property
    def metrics(self) -> dict[tuple[str, str], dict[str, float]]:
        """(task, strategy) -> metric -> value, see `absence_metrics`."""
        return {key: absence_metrics(answers) for key, answers in self._groups.items()}

    @cached_property
    def _groups(self) -> dict[tuple[str, str], list[AbsenceAnswer]]:
        """(task, strategy) -> its answers, in the order of tasks and strategies."""
        groups: dict[tuple[str, str], list[AbsenceAnswer]] = defaultdict(list)
        for answer in self.answers:
            for strategy in answer.question.strategies:
                groups[answer.task, strategy].append(answer)
        tasks = list(dict.fromkeys(task for task, _ in groups))
        strategies = [*ABSENCE_STRATEGIES, *sorted({s for _, s in groups} - set(ABSENCE_STRATEGIES))]
        return {(task, s): groups[task, s] for task in tasks for s in strategies if (task, s) in groups}

    def to_dataframe(self) -> pd.DataFrame:
        """Return a data frame with a row for each task and strategy, and the metrics as columns."""
        import pandas as pd

        rows = [{"task": task, "strategy": strategy} | values for (task, strategy), values in self.metrics.items()]
        return pd.DataFrame(rows, columns=["task", "strategy", *absence_metrics([])])

    def plot_roc(self) -> NotebookFigure:
        """Show the ROC curves of the scores: one plot for each task, one curve for each strategy.

        The point on a curve is the model as it comes: all questions with an answer count as present.
        """
        from ..visualization.figures import NotebookFigure

        tasks = list(dict.fromkeys(task for task, _ in self._groups)) or [""]
        figure = NotebookFigure(_PANEL_INCHES * len(tasks), _PANEL_INCHES, layout="constrained")
        for task, ax in zip(tasks, figure.subplots(1, len(tasks), squeeze=False)[0], strict=True):
            for (_, strategy), answers in ((key, a) for key, a in self._groups.items() if key[0] == task):
                plot_roc(*_scores(answers), ax, strategy)
            ax.set_title(task, fontsize=9)
        return figure

    @validate_arguments
    def save(self, folder: str | Path) -> Path:
        """Write `absence.json` (metrics and settings), `absence.jsonl` (one answer a line) and `roc.png`.

        Files of an earlier evaluation are replaced.

        Raises:
            ArgumentError: if the folder cannot be written to.
        """
        folder = prepare_output_folder("folder", folder)
        rows = json.loads(self.to_dataframe().to_json(orient="records"))  # nan becomes null
        summary = {"model": self.model_name, "errors": len(self.errors), "settings": self.settings, "metrics": rows}
        with replace_file(folder / "absence.jsonl") as temporary:
            append_rows(temporary, (answer.to_json() for answer in self.answers))
        write_text(folder / "absence.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        with replace_file(folder / "roc.png") as temporary:
            self.plot_roc().savefig(temporary)
        return folder


def absence_metrics(answers: Sequence[AbsenceAnswer]) -> dict[str, float]:
    """Return the metrics of the answers to questions about present and absent things.

    A question with an instance in its answer is answered by yes. As in POPE, yes is the positive answer.

    Returns:
        `present` and `absent`, the numbers of questions; `accuracy`, `precision`, `recall` (the share of the present things
        for which something was found), `F1`, `yes_ratio` (the share of yes among all answers); `no_target_accuracy` (the
        share of the absent things for which nothing was found); and `AUROC` of `AbsenceAnswer.score`. A share of nothing
        is nan.
    """
    scores, is_present = _scores(answers)
    says_yes = np.array([len(answer.result) > 0 for answer in answers], bool)
    found = int((says_yes & is_present).sum())
    return {
        "present": int(is_present.sum()),
        "absent": int((~is_present).sum()),
        "accuracy": _mean(says_yes == is_present),
        "precision": _mean(is_present[says_yes]),
        "recall": _mean(says_yes[is_present]),
        "F1": 2 * found / total if (total := int(says_yes.sum() + is_present.sum())) else float("nan"),
        "yes_ratio": _mean(says_yes),
        "no_target_accuracy": _mean(~says_yes[~is_present]),
        "AUROC": area_under_roc(scores, is_present),
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _scores(answers: Sequence[AbsenceAnswer]) -> tuple[np.ndarray, np.ndarray]:
    """N scores, and N bool: whether the thing that is asked for is present."""
    scores = np.array([answer.score for answer in answers], np.float64)
    return scores, np.array([answer.question.is_present for answer in answers], bool)


@validate_arguments
def evaluate_absence(
    predictor: Predictor,
    examples: Iterable[Example],
    tasks: Sequence[str] = ABSENCE_TASKS,
    strategies: Sequence[AbsenceStrategy] = ABSENCE_STRATEGIES,
    num_questions: int = 6,
    names: Sequence[str] = (),
    methods: Mapping[str, AbsenceMethod] | None = None,
    batch_size: int = 16,
    seed: int = 0,
    **generate_kwargs: Any,
) -> AbsenceEvaluation:
    """Ask a model about present and absent things, as POPE does (Li et al., 2023, arXiv 2305.10355).

    Args:
        predictor: the model.
        examples: labelled examples with `<OD>` answers, see `sample_absence_questions`.
        tasks: the tasks to ask; by default the three published ones that locate a phrase. `()` for `methods` only.
        strategies, num_questions, names, seed: as for `sample_absence_questions`.
        methods: name -> another way to answer: a function of an image and the names to look for that returns instances whose
            labels are these names. All names that an image is asked for are passed together.
        batch_size: images in memory at a time, and prompts decoded together; at least 1.
        generate_kwargs: as for `Predictor.predict`.

    Raises:
        ArgumentError: for an invalid argument, before the model runs.
        DatasetError: if the examples give no question.

    Example:
        >>> methods = {"detect": predictor.detect, "unverified": functools.partial(predictor.detect, verify=False)}
        >>> evaluate_absence(predictor, examples, methods=methods).to_dataframe()
    """
    questions = sample_absence_questions(examples, tasks or ABSENCE_TASKS, strategies, num_questions, names, seed)
    return ask_absence(predictor, questions, tasks, methods, batch_size, **generate_kwargs)


@validate_arguments
def ask_absence(
    predictor: Predictor,
    questions: Sequence[AbsenceQuestion],
    tasks: Sequence[str] = ABSENCE_TASKS,
    methods: Mapping[str, AbsenceMethod] | None = None,
    batch_size: int = 16,
    **generate_kwargs: Any,
) -> AbsenceEvaluation:
    """Ask a model questions of `sample_absence_questions`.

    Args:
        predictor: the model.
        questions: the questions. Those about one image should be consecutive, so that it is encoded once.
        tasks, methods, batch_size, generate_kwargs: as for `evaluate_absence`.
    """
    located = [check_locating_task(task).token for task in dict.fromkeys(tasks)]
    examples: dict[tuple[Hashable, str, str], Example] = {}
    asked: list[tuple[AbsenceQuestion, Example]] = []
    for question in questions:
        for task in located:
            if question.task in ("", task):
                key = image_key(question.image), task, question.name
                example = examples.setdefault(key, _to_example(question, task))  # strategies may share it
                asked.append((question, example))
    evaluation = evaluate(predictor, list(examples.values()), batch_size, **generate_kwargs)
    pairs = zip(evaluation.examples, evaluation.predictions, strict=True)
    found = {id(example): result for example, result in pairs if isinstance(result, Instances)}
    answers = [
        AbsenceAnswer(question, example.prompt.task.token, found[id(example)])
        for question, example in asked
        if id(example) in found
    ]
    errors = list(evaluation.errors)
    for name, method in (methods or {}).items():
        answered, failed = _ask_method(name, method, questions)
        answers += answered
        errors += failed
    return AbsenceEvaluation(predictor.name, answers, errors, describe_settings(predictor, generate_kwargs))


def _ask_method(
    name: str, method: AbsenceMethod, questions: Sequence[AbsenceQuestion]
) -> tuple[list[AbsenceAnswer], list[FailedExample]]:
    """Return the answers of a method, and the questions about images that it cannot answer."""
    answers: list[AbsenceAnswer] = []
    errors: list[FailedExample] = []
    by_image: dict[Hashable, list[AbsenceQuestion]] = defaultdict(list)
    for question in questions:
        if question.task in ("", _METHOD_TASK):
            by_image[image_key(question.image)].append(question)
    for of_image in tqdm(by_image.values(), desc=name, unit="image"):
        try:
            result = method(load_image_source(of_image[0].image), list(dict.fromkeys(q.name for q in of_image)))
        except (ImageError, PromptError) as error:
            logger.warning("%s: %s has no answer: %s", name, of_image[0].source, error)
            errors += [FailedExample(_to_example(question, _METHOD_TASK), error) for question in of_image]
            continue
        if not isinstance(result, Instances):
            raise ArgumentTypeError(f"the method {name!r} must return instances, such as boxes, got {shorten(result)}")
        answers += [AbsenceAnswer(q, name, result[result.labels == q.name]) for q in of_image]
    return answers, errors


def _to_example(question: AbsenceQuestion, task: str) -> Example:
    """The question in the words of a task. The target is not used."""
    prompt = build_prompt(task, question.name, question.image_size, warn_of_language=False)
    return Example(question.image, prompt, "", question.source, question.image_size)
