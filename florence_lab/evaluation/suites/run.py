"""`evaluate_suite`: answer a published benchmark, score it officially, and compare with the model card."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from tqdm.auto import tqdm

from ...argument_validation import validate_arguments
from ...data.examples import Example
from ...exceptions import ArgumentError, DatasetError, shorten
from ...output_files import prepare_output_folder, write_text
from ...predictor import Predictor
from ...results import Result
from ...tasks import get_task
from ...template.prompts import build_prompt
from ..official import Difference, Interval, bootstrap_interval, paired_difference
from ..prediction_files import ANSWERS_FILE, read_predictions, write_predictions
from ..prediction_runs import predict_examples
from ..predictions import Prediction
from ..settings import describe_difference, describe_settings, read_settings, write_settings
from .base import DOCUMENTED_GENERATION, Suite, SuiteData, SuiteQuestion, SuiteScores
from .card import CardValue, card_value
from .published import get_split, get_suite

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

SUBMISSION_FILE = "submission.json"
_LIMIT_SEED = 0


@dataclass(frozen=True, eq=False)
class SuiteEvaluation:
    """The answers to a benchmark and its official numbers.

    Attributes:
        suite: the benchmark.
        split: the split.
        model_name: the name of the model.
        data: the questions that were asked.
        answers: the answer to each question; None where there is an error.
        num_questions: how many questions the split has.
        errors: question -> why it has no answer. Such a question counts as answered by nothing.
        settings: the model and the settings of generation, see `describe_settings`.
        folder: where the answers are, and where `save` writes.
    """

    suite: Suite
    split: str
    model_name: str
    data: SuiteData
    answers: Sequence[Result | None]
    num_questions: int
    folder: Path
    errors: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def scores(self) -> SuiteScores:
        """The official metrics."""
        return self.suite.score(self.data, self.answers)

    @cached_property
    def intervals(self) -> dict[str, Interval | None]:
        """Metric -> its 95% bootstrap interval over images; None where it has none."""
        groups = [question.group for question in self.data.questions]
        return {name: bootstrap_interval(estimate, groups) for name, estimate in self.scores.metrics.items()}

    @property
    def card(self) -> CardValue | None:
        """What the model card gives for the main metric."""
        return card_value(self.model_name, self.suite.name, self.split)

    def to_dataframe(self) -> pd.DataFrame:
        """Return a data frame with a row for each metric, in percent as in the model card.

        Its columns are `metric`, `value`, `low` and `high` (the interval), `model_card` and `difference` (ours minus the card's).
        """
        import pandas as pd

        rows = []
        for name, estimate in self.scores.metrics.items():
            interval = self.intervals[name] or Interval(math.nan, math.nan)
            card = self.card.value if self.card is not None and name == self.suite.main_metric else math.nan
            value = 100 * estimate.value
            rows.append((name, value, 100 * interval.low, 100 * interval.high, card, value - card))
        return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "model_card", "difference"])

    def to_text(self) -> str:
        """Return the tables to print."""
        asked = len(self.data.questions)
        lines = [f"{self.suite.name} · {self.split} · {self.model_name} · {asked} of {self.num_questions} questions"]
        if not self.scores.metrics:
            lines.append("the answers of this split are known to the server only")
        else:
            frame = self.to_dataframe()
            columns = [column for column in frame if not frame[column].isna().all()]
            lines.append(frame[columns].to_string(index=False, float_format="{:.1f}".format, na_rep="-"))
        if self.card is not None and self.card.note:
            lines.append(self.card.note)
        if self.card is not None and asked < self.num_questions:
            lines.append("a part of the questions is not comparable with the model card")
        if self.errors:
            key, error = next(iter(self.errors.items()))
            lines.append(f"{len(self.errors)} questions without answer count as wrong; the first is {key}: {error}")
        for title, table in self.scores.tables.items():
            shown = table.head(_MAX_ROWS).to_string(index=False, float_format="{:.3f}".format, na_rep="-")
            rest = f"\n… and {len(table) - _MAX_ROWS} more rows" if len(table) > _MAX_ROWS else ""
            lines.append(f"\n{title}\n{shown}{rest}")
        return "\n".join(lines)

    def save(self) -> Path:
        """Write `metrics.json`, `submission.json` for the official server or scorer, and the tables as CSV files.

        `answers.jsonl` is there already. Returns the folder.
        """
        metrics = {
            name: {
                "value": _finite_or_none(estimate.value),
                "interval": None if self.intervals[name] is None else list(self.intervals[name] or ()),
            }
            for name, estimate in self.scores.metrics.items()
        }
        card = None if self.card is None else {"metric": self.suite.main_metric, **self.card._asdict()}
        summary = {
            "suite": self.suite.name,
            "split": self.split,
            "model": self.model_name,
            "questions": len(self.data.questions),
            "questions_of_split": self.num_questions,
            "errors": len(self.errors),
            "metrics": metrics,
            "model_card": card,
        }
        submission = self.suite.submission(self.data, self.answers)
        write_text(self.folder / SUBMISSION_FILE, json.dumps(submission, ensure_ascii=False))
        write_text(self.folder / "metrics.json", json.dumps(summary, indent=2) + "\n")
        for title, table in self.scores.tables.items():
            write_text(self.folder / f"{title.replace(' ', '_')}.csv", table.to_csv(index=False))
        return self.folder

    @validate_arguments
    def compare(self, other: SuiteEvaluation) -> dict[str, Difference]:
        """Return metric -> the other run minus this one, by the paired bootstrap over images.

        Raises:
            ArgumentError: if the other run has other questions.
        """
        keys, others = ([q.key for q in run.data.questions] for run in (self, other))
        if (self.suite.name, self.split, keys) != (other.suite.name, other.split, others):
            raise ArgumentError("two runs are compared on the same questions, but they have others")
        groups = [question.group for question in self.data.questions]
        return {
            name: paired_difference(estimate, other.scores.metrics[name], groups)
            for name, estimate in self.scores.metrics.items()
        }


_MAX_ROWS = 100


@validate_arguments
def evaluate_suite(
    predictor: Predictor,
    name: str,
    root: str | Path,
    folder: str | Path,
    split: str | None = None,
    limit: int | None = None,
    batch_size: int = 16,
    task: str | None = None,
    **generate_kwargs: Any,
) -> SuiteEvaluation:
    """Answer a published benchmark and score the answers with its official code or rules.

    The answers are written as they come, below `folder`, in a folder for the suite, the split, the model and its settings. An
    interrupted call resumes there, and a call with a larger `limit` asks only what is missing.

    Args:
        predictor: the model.
        name: a key of `SUITES`.
        root: the folder with the published files.
        folder: the output folder.
        split: a split of the suite; by default its first.
        limit: how many questions to ask at most: a random choice, the same each time. By default all.
        batch_size: images in a batch, and prompts decoded together.
        task: token of the task to ask in place of the suite's own.
        generate_kwargs: as for `Predictor.predict`; by default `DOCUMENTED_GENERATION`.

    Raises (before the model runs):
        ArgumentError: for an unknown suite, split or task, and a folder that cannot be written to.
        DatasetError: for a file or an image that is missing, which the message names with the place where it is published.
        MissingToolError: if what scoring needs is not installed.
    """
    suite = get_suite(name)
    split = get_split(suite, split)
    if task is not None:
        suite = replace(suite, task=get_task(task).token)
    suite.check()
    data = suite.read(Path(root), split)
    num_questions = len(data.questions)
    data = replace(data, questions=choose_questions(data.questions, limit))
    check_images(data.questions, suite.image_url(split))
    settings = describe_settings(predictor, {**DOCUMENTED_GENERATION, **generate_kwargs}) | {"task": suite.task}
    target = prepare_output_folder("folder", Path(folder) / f"{name}-{split}" / _folder_name(predictor.name, settings))
    rows = _answer(
        predictor,
        suite,
        data.questions,
        target / ANSWERS_FILE,
        settings,
        batch_size,
        {**DOCUMENTED_GENERATION, **generate_kwargs},
    )
    answers, errors = _to_answers(data.questions, rows)
    return SuiteEvaluation(suite, split, predictor.name, data, answers, num_questions, target, errors, settings)


def choose_questions(questions: Sequence[SuiteQuestion], limit: int | None) -> Sequence[SuiteQuestion]:
    """Return a random choice of questions, in their order. A larger choice contains a smaller one."""
    if limit is None or limit >= len(questions):
        return questions
    order = list(range(len(questions)))
    random.Random(_LIMIT_SEED).shuffle(order)
    return [questions[i] for i in sorted(order[:limit])]


def check_images(questions: Sequence[SuiteQuestion], url: str) -> None:
    """Verify that all images exist.

    Raises:
        DatasetError: if some are missing; the message names the first, and where the images are published.
    """
    paths = dict.fromkeys(question.image for question in questions)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(paths)} images are missing; the first is {missing[0]}; they are published at {url}"
        )


def _folder_name(model: str, settings: Mapping[str, Any]) -> str:
    """A folder for the answers of a model with settings: another model or setting has another one."""
    compared = {key: value for key, value in settings.items() if key != "model"}
    digest = hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()[:8]
    name = "".join(c if c.isalnum() or c in "-._" else "-" for c in Path(model).name) or "model"
    return f"{name[:60]}-{digest}"


def _answer(
    predictor: Predictor,
    suite: Suite,
    questions: Sequence[SuiteQuestion],
    path: Path,
    settings: dict[str, Any],
    batch_size: int,
    generate_kwargs: dict[str, Any],
) -> dict[tuple[str, str], Prediction]:
    """Answer the questions that a file lacks, a batch at a time, and return all rows by key and text of the question."""
    rows = _read_cache(path, settings)
    remaining = [q for q in questions if (q.key, q.text) not in rows]
    by_image = groupby(remaining, key=lambda question: question.image)
    with tqdm(total=len(questions), initial=len(questions) - len(remaining), desc=suite.name, unit="question") as bar:
        # a group of groupby is empty once the next one is requested
        while batch := [q for group in islice((list(g) for _, g in by_image), batch_size) for q in group]:
            found = list(_predict(predictor, suite, batch, batch_size, generate_kwargs))
            write_predictions(path, found)
            rows |= {(row.source, row.text): row for row in found}
            bar.update(len(batch))
    return rows


def _read_cache(path: Path, settings: dict[str, Any]) -> dict[tuple[str, str], Prediction]:
    """The answers of an earlier call; those with an error are asked again."""
    recorded = read_settings(path)
    if recorded is None:
        if path.exists() and path.stat().st_size:
            raise ArgumentError(
                f"{path} has answers, but not the file of their settings beside it, so that their model is unknown; "
                "remove it, or choose another folder"
            )
        write_settings(path, settings)
        return {}
    if difference := describe_difference(recorded, settings):
        raise ArgumentError(f"{path} was made with other settings: {difference}; remove it, or choose another folder")
    return {(row.source, row.text): row for row in read_predictions(path) if not row.error}


def _predict(
    predictor: Predictor,
    suite: Suite,
    questions: Sequence[SuiteQuestion],
    batch_size: int,
    generate_kwargs: dict[str, Any],
) -> Iterator[Prediction]:
    examples = [
        Example(q.image, build_prompt(suite.task, q.text or None), "", q.key, q.image_size or _image_size(q.image))
        for q in questions
    ]
    outcomes = predict_examples(predictor, examples, batch_size, **generate_kwargs)
    for question, example, outcome in zip(questions, examples, outcomes, strict=True):
        # the text as the question has it: a prompt may change white space
        row = replace(Prediction.from_outcome(example, outcome), text=question.text)
        if isinstance(outcome, Result) and question.image_size not in (None, outcome.image_size):
            stated, found = (" x ".join(map(str, size)) for size in (question.image_size or (), outcome.image_size))
            row = replace(row, error=f"the annotations state {stated} pixels, but the image has {found}")
        yield row


def _image_size(path: Path) -> tuple[int, int]:
    """The size that the header of an image states; (1, 1) if it cannot be read, which the model reports."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError):
        return 1, 1


def _to_answers(
    questions: Sequence[SuiteQuestion], rows: Mapping[tuple[str, str], Prediction]
) -> tuple[list[Result | None], dict[str, str]]:
    answers: list[Result | None] = []
    errors: dict[str, str] = {}
    for question in questions:
        row = rows[question.key, question.text]
        if row.error:
            errors[question.key] = row.error
        answers.append(None if row.error else row.to_result())
    if errors:
        logger.warning("%d questions have no answer; the first is %s", len(errors), shorten(next(iter(errors.items()))))
    return answers, errors


def _finite_or_none(value: float) -> float | None:
    """JSON has no nan."""
    return value if math.isfinite(value) else None
