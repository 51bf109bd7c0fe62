"""How good a model is: its answers beside the right ones, in the field's metrics.

    evaluation = evaluate(load("florence-2-nano"), scene_questions(HELD_OUT_SEEDS[:500]))
    evaluation.to_dataframe()

mAP is COCO's (torchmetrics over pycocotools), words are counted by jiwer, calibration is torchmetrics'. What is our own is
which answer counts as right, and that is `is_right` and `AGREEMENT`.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from .results import Boxes, Polygons, Quads, Result, Text
from .scenes import HELD_OUT_SEEDS, caption_counts, draw_scene
from .tasks import TASKS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .predictor import Predictor

LEAST_IOU = 0.5
"""From which intersection over union on a box counts as found: that of PASCAL VOC, and of COCO's mAP@0.5."""


@dataclass(frozen=True)
class Question:
    """One question with its right answer.

    Attributes:
        image: the picture. Questions about one picture follow one another and share the object, so that it is encoded once.
        task: a task token.
        text: the phrase, or the region as location tokens, of a task that takes one.
        truth: the right answer.
        name: what to call the picture, its file or its seed.
    """

    image: Image.Image
    task: str
    text: str | None
    truth: Result
    name: str = ""


def held_out(dataset: str) -> range:
    """The seeds of `"scenes"` (500 of them) or `"scenes:COUNT"`: held-out ones, which no training sees.

    Raises:
        ValueError: for anything else.
    """
    name, colon, count = dataset.partition(":")
    number = int(count) if count.isdecimal() else 0 if colon else 500
    if name != "scenes" or not 0 < number <= len(HELD_OUT_SEEDS):
        raise ValueError(f"unknown dataset {dataset!r}: give scenes, or scenes:COUNT with 1 to {len(HELD_OUT_SEEDS)}")
    return HELD_OUT_SEEDS[:number]


def scene_questions(
    seeds: Iterable[int] = HELD_OUT_SEEDS[:500], tasks: Sequence[str] | None = None, size: int = 512
) -> Iterator[Question]:
    """Every task asked once about each scene, where it can be asked.

    Args:
        seeds: one scene each. A model that was trained on scenes is asked about `HELD_OUT_SEEDS`.
        tasks: task tokens; all by default.
        size: pixels a side.
    """
    for seed in seeds:
        scene = draw_scene(seed, size)
        dice = random.Random(seed)
        for task in tasks or TASKS:
            for text in scene.queries(task, dice)[:1]:
                yield Question(scene.image, task, text, scene.answer(task, text), str(seed))


# ---------------------------------------------------------------------- what is right


def is_right(answer: Result, truth: Result, by_label: bool = True) -> np.ndarray:
    """Which instances of an answer are right: N booleans.

    Right is what overlaps an instance of the truth by an IoU of 0.5 or more and, with `by_label`, has its very label. No
    two instances share one of the truth; as many as can be are matched.

    Args:
        answer, truth: both `Boxes` or both `Quads`.
    """
    from scipy.optimize import linear_sum_assignment

    near = iou(answer, truth) >= LEAST_IOU
    if by_label:
        near &= np.array(answer.labels, object)[:, None] == np.array(truth.labels, object)[None, :]
    right = np.zeros(len(answer), bool)
    rows, columns = linear_sum_assignment(near, maximize=True)
    right[rows] = near[rows, columns]
    return right


def iou(answer: Boxes | Quads, truth: Boxes | Quads) -> np.ndarray:
    """N x M intersections over unions: of upright boxes, or of the pixels within quads."""
    if isinstance(answer, Boxes):
        import torch
        from torchvision.ops import box_iou

        # one that is turned inside out (x1 < x0) meets nothing
        return np.nan_to_num(box_iou(torch.tensor(answer.boxes), torch.tensor(truth.boxes)).numpy())
    ours, theirs = (_masks([(quad,) for quad in result.quads], result.image_size) for result in (answer, truth))
    shared = ours @ theirs.T
    return shared / np.maximum(1, ours.sum(1)[:, None] + theirs.sum(1)[None, :] - shared)


def _masks(outlines: Sequence[tuple[np.ndarray, ...]], image_size: tuple[int, int]) -> np.ndarray:
    """N x pixels float32, 1 within."""
    from .results import polygons_to_mask

    masks = [polygons_to_mask(outline, image_size).ravel() for outline in outlines]
    return np.array(masks, np.float32).reshape(len(masks), image_size[0] * image_size[1])


def _f1(answer: Result, truth: Result, by_label: bool = True) -> float:
    said = len(answer) + len(truth)
    return 2 * float(is_right(answer, truth, by_label).sum()) / said if said else 1.0


def _proposed(answer: Boxes, truth: Boxes) -> float:
    """The share of the true boxes that are proposed, whatever they are called."""
    return float(is_right(answer, truth, by_label=False).sum()) / max(1, len(truth))


def _mask_iou(answer: Polygons, truth: Polygons) -> float:
    """Of all that is outlined, several things together."""
    ours, theirs = answer.masks.any(0), truth.masks.any(0)
    return float((ours & theirs).sum() / max(1, (ours | theirs).sum()))


def _same_text(answer: Text, truth: Text) -> float:
    return float(answer.text == truth.text)


def _same_things(answer: Text, truth: Text) -> float:
    """Whether a caption names the same categories, each with the same number; for captions of scenes."""
    return float(caption_counts(answer.text) == caption_counts(truth.text))


def _words_right(answer: Text, truth: Text) -> float:
    return max(0.0, 1 - _word_errors([answer.text], [truth.text]))


def _word_errors(said: list[str], true: list[str]) -> float:
    """Words that were replaced, left out or made up, for each word that is there (WER)."""
    import jiwer

    if not any(true):
        return float(any(said))
    return jiwer.wer(true, said)


AGREEMENT: dict[str, Callable[[Any, Any], float]] = {
    "<CAPTION>": _same_things,
    "<DETAILED_CAPTION>": _same_things,
    "<MORE_DETAILED_CAPTION>": _same_things,
    "<OD>": _f1,
    "<DENSE_REGION_CAPTION>": _f1,
    "<REGION_PROPOSAL>": _proposed,
    "<OCR>": _words_right,
    "<OCR_WITH_REGION>": _f1,
    "<CAPTION_TO_PHRASE_GROUNDING>": _f1,
    "<REFERRING_EXPRESSION_SEGMENTATION>": _mask_iou,
    "<OPEN_VOCABULARY_DETECTION>": _f1,
    "<REGION_TO_SEGMENTATION>": _mask_iou,
    "<REGION_TO_CATEGORY>": _same_text,
    "<REGION_TO_DESCRIPTION>": _same_text,
    "<REGION_TO_OCR>": _words_right,
}
"""Task -> how far an answer agrees with the truth, 0 to 1. It ranks answers, the best first and the worst last."""


# ---------------------------------------------------------------------- metrics of many answers

Answers = Sequence[Any]
"""Results of one task; the truths have the same length and order."""


def mean_average_precision(answers: Answers, truths: Answers) -> dict[str, float]:
    """COCO's mAP, at an IoU of 0.5 and averaged over 0.5 to 0.95.

    Instances without a score count as certain. As in COCO, a label that occurs in no truth is left out.
    """
    import torch
    from torchmetrics.detection import MeanAveragePrecision

    names = {name: i for i, name in enumerate(sorted({name for r in (*answers, *truths) for name in r.labels}))}

    def as_tensors(result: Boxes) -> dict[str, torch.Tensor]:
        scores = np.ones(len(result)) if result.scores is None else result.scores
        return {
            "boxes": torch.tensor(result.boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor([names[name] for name in result.labels], dtype=torch.long),
            "scores": torch.tensor(scores, dtype=torch.float32),
        }

    metric = MeanAveragePrecision(backend="pycocotools")
    metric.update([as_tensors(answer) for answer in answers], [as_tensors(truth) for truth in truths])
    found = metric.compute()
    return {"mAP@0.5": float(found["map_50"]), "mAP@[.5:.95]": float(found["map"])}


def confidences(answers: Answers, truths: Answers) -> tuple[np.ndarray, np.ndarray]:
    """The confidence of every instance of all answers, N float64, and whether it is right, N booleans."""
    pairs = [(a.scores, is_right(a, t)) for a, t in zip(answers, truths, strict=True) if a.scores is not None]
    scores, right = zip(*pairs, strict=True) if pairs else ((), ())
    return np.concatenate([*scores, []]), np.concatenate([*right, []]).astype(bool)


def calibration_error(answers: Answers, truths: Answers) -> float:
    """Expected calibration error: how far confidence is from the share that is right, over 15 bins (Guo et al., 2017).

    Raises:
        ValueError: if no answer has an instance with a confidence.
    """
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    scores, right = confidences(answers, truths)
    if not len(scores):
        raise ValueError("there is no instance with a confidence")
    return float(binary_calibration_error(torch.tensor(scores), torch.tensor(right).long(), n_bins=15))


def _detection(answers: Answers, truths: Answers) -> dict[str, float]:
    found = mean_average_precision(answers, truths) | _instances(answers, truths)
    scored = any(a.scores is not None and len(a) for a in answers)
    return found | ({"ECE": calibration_error(answers, truths)} if scored else {})


def _instances(answers: Answers, truths: Answers) -> dict[str, float]:
    """Precision, recall and F1 at an IoU of 0.5, of all instances together."""
    right = sum(int(is_right(a, t).sum()) for a, t in zip(answers, truths, strict=True))
    said, real = sum(map(len, answers)), sum(map(len, truths))
    return {
        "precision@0.5": right / max(1, said),
        "recall@0.5": right / max(1, real),
        "F1@0.5": 2 * right / max(1, said + real),
    }


def _proposals(answers: Answers, truths: Answers) -> dict[str, float]:
    found = sum(int(is_right(a, t, by_label=False).sum()) for a, t in zip(answers, truths, strict=True))
    return {"recall@0.5": found / max(1, sum(map(len, truths)))}


def _words(answers: Answers, truths: Answers) -> dict[str, float]:
    errors = _word_errors([a.text for a in answers], [t.text for t in truths])
    return {"words right": max(0.0, 1 - errors)}


def _mean_of(name: str, agreement: Callable[[Any, Any], float]) -> Callable[[Answers, Answers], dict[str, float]]:
    return lambda answers, truths: {
        name: float(np.mean([agreement(a, t) for a, t in zip(answers, truths, strict=True)]))
    }


METRICS: dict[str, Callable[[Answers, Answers], dict[str, float]]] = {
    "<CAPTION>": _mean_of("things right", _same_things),
    "<DETAILED_CAPTION>": _mean_of("things right", _same_things),
    "<MORE_DETAILED_CAPTION>": _mean_of("things right", _same_things),
    "<OD>": _detection,
    "<DENSE_REGION_CAPTION>": _instances,
    "<REGION_PROPOSAL>": _proposals,
    "<OCR>": _words,
    "<OCR_WITH_REGION>": _instances,
    "<CAPTION_TO_PHRASE_GROUNDING>": _instances,
    "<REFERRING_EXPRESSION_SEGMENTATION>": _mean_of("mask IoU", _mask_iou),
    "<OPEN_VOCABULARY_DETECTION>": _instances,
    "<REGION_TO_SEGMENTATION>": _mean_of("mask IoU", _mask_iou),
    "<REGION_TO_CATEGORY>": _mean_of("right", _same_text),
    "<REGION_TO_DESCRIPTION>": _mean_of("right", _same_text),
    "<REGION_TO_OCR>": _words,
}
"""Task -> its metrics, by name. All are shares, 0 to 1; all but ECE are the better the higher.

`things right`: captions that name every category with its number. `words right`: 1 - WER, so that made-up words count too.
"""


# ---------------------------------------------------------------------- asking


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
        from .draw import gallery

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
        questions: of one picture after the other; see `scene_questions`.
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


# ---------------------------------------------------------------------- pictures of it


def draw_precision_recall(answers: Answers, truths: Answers, ax: Axes) -> None:
    """Precision over recall at an IoU of 0.5 as the least confidence goes from 1 to 0, labels counted."""
    scores, right = confidences(answers, truths)
    hits = np.cumsum(right[np.argsort(-scores, kind="stable")])
    said = np.arange(1, len(hits) + 1)
    ax.step(hits / max(1, sum(map(len, truths))), hits / said, where="post", color="C0")
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title="precision over recall")
    ax.grid(alpha=0.3)


def draw_calibration(answers: Answers, truths: Answers, ax: Axes, bins: int = 10) -> None:
    """The share that is right over confidence; on the diagonal, confidence can be taken at its word."""
    scores, right = confidences(answers, truths)
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.digitize(scores, edges) - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    shares = np.bincount(which, weights=right, minlength=bins) / np.maximum(1, counts)
    ax.bar(edges[:-1], shares, width=1 / bins, align="edge", color="C0", edgecolor="white", alpha=0.85)
    ax.plot((0, 1), (0, 1), "--", color="0.4")
    for left, share, count in zip(edges, shares, counts, strict=False):
        if count:
            ax.text(left + 0.5 / bins, share + 0.01, str(count), ha="center", va="bottom", fontsize=8)
    ax.set(xlim=(0, 1), ylim=(0, 1.08), xlabel="confidence", ylabel="share that is right", title="calibration")
