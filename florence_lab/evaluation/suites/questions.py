"""VQAv2, TextVQA and DocVQA: answers to questions, by the rules of each benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...exceptions import shorten
from ..official import anls, mean_estimate, textvqa_accuracy, vqa_accuracy
from .base import Answers, PublishedFile, Suite, SuiteData, SuiteQuestion, SuiteScores, answer_text, read_entries

_VQA = "https://visualqa.org/download.html"
_TEXTVQA_DATA = "https://dl.fbaipublicfiles.com/textvqa"
_DOCVQA = "https://rrc.cvc.uab.es/?ch=17&com=downloads"


@dataclass(frozen=True)
class AnswerSuite(Suite):
    """Questions about images with one or several accepted answers.

    Attributes:
        accuracy: (answer, references) -> 0..1.
        id_key: the name of a question's id in the file for the server.
    """

    accuracy: Callable[[str, Sequence[str]], float] = vqa_accuracy
    id_key: str = "question_id"

    def score(self, data: SuiteData, answers: Answers) -> SuiteScores:
        """Return the main metric, also by the kind of question if the files state it; nothing without published answers."""
        if any(question.truth["answers"] is None for question in data.questions):
            return SuiteScores({})
        pairs = list(zip(data.questions, answers, strict=True))
        values = [self.accuracy(answer_text(answer), q.truth["answers"]) for q, answer in pairs]
        return SuiteScores({self.main_metric: mean_estimate(values)}, _by_kind(data, values, self.main_metric))

    def submission(self, data: SuiteData, answers: Answers) -> list[dict[str, Any]]:
        """Return the file of the evaluation server: the id of each question, and `answer`."""
        pairs = zip(data.questions, answers, strict=True)
        return [{self.id_key: question.truth["id"], "answer": answer_text(answer)} for question, answer in pairs]


class Vqav2Suite(AnswerSuite):
    """VQAv2. The answers of test-dev are known to the server only."""

    def read_files(self, root: Path, split: str) -> SuiteData:
        """Return all questions of a split."""
        year = "val2014" if split == "val" else f"{split}2015"
        path = PublishedFile((f"v2_OpenEnded_mscoco_{year}_questions.json",), _VQA).find(root)
        folder = self._images(split).find(root)
        truths = {}
        if split == "val":
            annotations = PublishedFile((f"v2_mscoco_{year}_annotations.json",), _VQA).find(root)
            truths = {e["question_id"]: e for e in read_entries(annotations, "annotations", ("question_id", "answers"))}
        questions = []
        for entry in read_entries(path, "questions", ("question_id", "image_id", "question")):
            known = truths.get(entry["question_id"])
            truth = {
                "id": entry["question_id"],
                "answers": [answer["answer"] for answer in known["answers"]] if known else None,
                "kind": str(known.get("answer_type", "")) if known else "",
            }
            image = folder / f"COCO_{folder.name}_{int(entry['image_id']):012d}.jpg"
            questions.append(_question(entry["question_id"], image, entry["question"], entry["image_id"], truth))
        return SuiteData(questions)

    def _images(self, split: str) -> PublishedFile:
        name = "val2014" if split == "val" else "test2015"
        return PublishedFile((name, f"images/{name}"), f"http://images.cocodataset.org/zips/{name}.zip")

    def image_url(self, split: str) -> str:
        """Return the address of the images."""
        return self._images(split).url


class TextvqaSuite(AnswerSuite):
    """TextVQA, version 0.5.1."""

    def read_files(self, root: Path, split: str) -> SuiteData:
        """Return all questions of a split."""
        name = f"TextVQA_0.5.1_{split}.json"
        path = PublishedFile((name,), f"{_TEXTVQA_DATA}/data/{name}").find(root)
        folder = self._images(split).find(root)
        questions = []
        for entry in read_entries(path, "data", ("question_id", "image_id", "question")):
            truth = {"id": entry["question_id"], "answers": entry.get("answers"), "kind": ""}
            image = folder / f"{entry['image_id']}.jpg"
            questions.append(_question(entry["question_id"], image, entry["question"], entry["image_id"], truth))
        return SuiteData(questions)

    def _images(self, split: str) -> PublishedFile:
        folder, archive = ("test_images", "test_images") if split == "test" else ("train_images", "train_val_images")
        return PublishedFile((folder, f"{archive}/{folder}"), f"{_TEXTVQA_DATA}/images/{archive}.zip")

    def image_url(self, split: str) -> str:
        """Return the address of the images."""
        return self._images(split).url


class DocvqaSuite(AnswerSuite):
    """DocVQA, task 1 (single pages)."""

    def read_files(self, root: Path, split: str) -> SuiteData:
        """Return all questions of a split."""
        name = f"{split}_v1.0" + ("_withQT.json" if split == "val" else ".json")
        path = PublishedFile((f"spdocvqa_qas/{name}", name, f"{split}/{split}_v1.0.json"), _DOCVQA).find(root)
        folder = self._images(split).find(root)
        questions = []
        for entry in read_entries(path, "data", ("questionId", "question", "image")):
            kinds = entry.get("question_types") or [""]
            truth = {"id": entry["questionId"], "answers": entry.get("answers"), "kind": str(kinds[0])}
            image = folder / Path(entry["image"]).name
            questions.append(_question(entry["questionId"], image, entry["question"], entry["image"], truth))
        return SuiteData(questions)

    def _images(self, split: str) -> PublishedFile:
        return PublishedFile(("spdocvqa_images", f"{split}/documents", "documents"), _DOCVQA)

    def image_url(self, split: str) -> str:
        """Return the address of the images."""
        return _DOCVQA


def _question(id_: Any, image: Path, text: str, image_id: Any, truth: dict[str, Any]) -> SuiteQuestion:
    answers = truth["answers"]
    if answers is not None and not (isinstance(answers, list) and all(isinstance(answer, str) for answer in answers)):
        raise ValueError(f"the answers to question {id_} must be texts, got {shorten(answers)}")
    return SuiteQuestion(f"question {id_}", image, text, image_id, truth)


def _by_kind(data: SuiteData, values: Sequence[float], metric: str) -> dict[str, Any]:
    """The metric by the kind of question, if the files state kinds."""
    import pandas as pd

    kinds = [question.truth["kind"] for question in data.questions]
    if not any(kinds):
        return {}
    frame = pd.DataFrame({"kind": kinds, metric: [100 * value for value in values]})
    grouped = frame.groupby("kind")[metric].agg(["mean", "size"]).reset_index()
    return {f"{metric} by kind of question": grouped.set_axis(["kind", metric, "questions"], axis=1)}


ANSWER_SUITES = (
    Vqav2Suite("vqav2", "VQAv2", "<VQA>", ("val", "test-dev", "test"), "accuracy"),
    TextvqaSuite("textvqa", "TextVQA", "<VQA>", ("val", "test"), "accuracy", textvqa_accuracy),
    DocvqaSuite("docvqa", "DocVQA, task 1", "<DocVQA>", ("val", "test"), "ANLS", anls, "questionId"),
)
"""The prompts of the two tasks are not documented; `--tasks` asks another one."""
