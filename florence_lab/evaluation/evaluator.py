"""TODO"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from ..results import Result
from .metrics import AGREEMENT, METRICS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from ..data.examples import Question
    from ..predictor import Predictor


@dataclass(frozen=True)
class Evaluation:
    """Questions and answers, in the same order.

    Attributes:
        model: the name of the model that was asked.
        questions: what was asked, with the right answers.
        answers: what it answered.
    """

    model: str
    questions: list[Question]
    answers: list[Result]

    def pairs(self, task: str) -> tuple[list[Any], list[Any]]:
        """The answers to a task, and the right ones."""
        chosen = [i for i, question in enumerate(self.questions) if question.task == task]
        return [self.answers[i] for i in chosen], [self.questions[i].truth for i in chosen]

    def metrics(self) -> dict[str, dict[str, float]]:
        """Task token -> metric -> value, see `METRICS`; tasks in the order in which they were first asked."""
        tasks = dict.fromkeys(question.task for question in self.questions)
        return {task: METRICS[task](*self.pairs(task)) for task in tasks}

    def to_dataframe(self) -> pd.DataFrame:
        """A row per metric: `task`, `metric`, `value`, `questions`."""
        import pandas as pd

        rows = [
            {"task": task, "metric": name, "value": value, "questions": len(self.pairs(task)[0])}
            for task, values in self.metrics().items()
            for name, value in values.items()
        ]
        return pd.DataFrame(rows, columns=["task", "metric", "value", "questions"])

    def agreement(self) -> np.ndarray:
        """How far each answer agrees with the right one, 0 to 1, see `AGREEMENT`."""
        pairs = zip(self.questions, self.answers, strict=True)
        return np.array([AGREEMENT[question.task](answer, question.truth) for question, answer in pairs])

    def worst(self, tasks: int = 8, each: int = 3) -> Figure:
        """A contact sheet of the worst answers: a row per task, those tasks first whose worst answers are the worst.

        Args:
            tasks: rows, at most.
            each: answers per task.
        """
        from ..visualization.gallery import gallery

        agreement = self.agreement()
        of_task = defaultdict(list)
        for i in np.argsort(agreement, kind="stable"):
            of_task[self.questions[i].task].append(i)
        rows = sorted((indices[:each] for indices in of_task.values()), key=lambda row: agreement[row].mean())
        chosen = [i for row in rows[:tasks] for i in row]
        return gallery([(self.questions[i].image, self.answers[i]) for i in chosen], columns=each)

    def save(self, folder: str | Path) -> Path:
        """Writes `metrics.json`, `answers.jsonl` (each question, its answer, the truth, how far they agree), `worst.png`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        summary = {"model": self.model, "questions": len(self.questions), "metrics": self.metrics()}
        (folder / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        with (folder / "answers.jsonl").open("w", encoding="utf-8") as file:
            for question, answer, value in zip(self.questions, self.answers, self.agreement(), strict=True):
                row = {"image": question.name, "task": question.task, "text": question.text}
                row |= {"answer": answer.raw, "truth": question.truth.raw, "agreement": round(float(value), 4)}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.worst().savefig(folder / "worst.png")
        return folder


def evaluate(
    predictor: Predictor,
    questions: Iterable[Question],
    batch_size: int = 16,
    total: int | None = None,
    **generation: Any,
) -> Evaluation:
    """Ask a model questions whose answers are known.

    Args:
        predictor: the model.
        questions: of one picture after the other; see `scene_examples`.
        batch_size: how many pictures are asked together.
        total: how many questions there are, for the progress bar, where `questions` can't tell.
        generation: settings for `generate`, as for `Predictor.predict`.
    """
    asked: list[Question] = []
    answers: list[Result] = []
    pictures = groupby(questions, key=lambda question: id(question.image))
    with tqdm(total=total, desc=predictor.name, unit="question") as bar:
        while batch := [list(group) for _, group in islice(pictures, batch_size)]:
            encoded = {id(group[0].image): predictor.encode_image(group[0].image) for group in batch}
            together = defaultdict(list)
            for question in (question for group in batch for question in group):
                together[question.task].append(question)
            for task, same in together.items():
                images = [encoded[id(question.image)] for question in same]
                texts = [question.text for question in same]
                answers += predictor.predict_batch(images, task, texts, batch_size=len(same), **generation)
                asked += same
                bar.update(len(same))
    return Evaluation(predictor.name, asked, answers)
