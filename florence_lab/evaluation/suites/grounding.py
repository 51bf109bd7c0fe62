"""Flickr30k Entities: phrase grounding by the protocol of `flickr_eval.py` of MDETR."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...exceptions import DatasetError, summarize_error
from ...results import Result
from ..official import grounding_recall, merge_boxes, normalize_label, ratio_estimate
from ..official.boxes import RECALL_RANKS
from .base import Answers, PublishedFile, Suite, SuiteData, SuiteQuestion, SuiteScores, answer_instances

_ENTITIES = "https://github.com/BryanPlummer/flickr30k_entities"
_ANNOTATIONS = PublishedFile(("Annotations",), f"{_ENTITIES} (annotations.zip)")
_SENTENCES = PublishedFile(("Sentences",), f"{_ENTITIES} (annotations.zip)")
_IMAGES = PublishedFile(
    ("flickr30k-images", "flickr30k_images", "images"), "https://shannon.cs.illinois.edu/DenotationGraph/ (on request)"
)

# [/EN#1/people/scene A man] of the sentence files
_PHRASE_RE = re.compile(r"\[/EN#(\d+)((?:/[^\s/\]]+)*)\s+([^\]]*)\]")


class Phrase(NamedTuple):
    """A phrase of a sentence with its true boxes.

    Attributes:
        text: as it stands in the sentence.
        boxes: M x 4 float64, (x0, y0, x1, y1) in pixels; at least one.
        kinds: the coarse categories, "people", "scene" …
    """

    text: str
    boxes: np.ndarray
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class FlickrSuite(Suite):
    """Sentences of Flickr30k, of which each phrase with boxes is to be located."""

    def read_files(self, root: Path, split: str) -> SuiteData:
        """Return a question for each sentence that has a phrase with a box. Other phrases are left out, as published."""
        ids = PublishedFile((f"{split}.txt",), f"{_ENTITIES} ({split}.txt)").find(root)
        annotations, sentences, images = _ANNOTATIONS.find(root), _SENTENCES.find(root), _IMAGES.find(root)
        questions = []
        for id_ in ids.read_text(encoding="utf-8").split():
            boxes, size = read_boxes(annotations / f"{id_}.xml")
            for number, line in enumerate(_read_lines(sentences / f"{id_}.txt")):
                sentence, phrases = parse_sentence(line, boxes)
                if phrases:
                    key = f"image {id_}, sentence {number}"
                    truth = {"sentence": number, "phrases": phrases}
                    questions.append(SuiteQuestion(key, images / f"{id_}.jpg", sentence, id_, truth, size))
        return SuiteData(questions)

    def score(self, data: SuiteData, answers: Answers) -> SuiteScores:
        """Return R@1, R@5 and R@10 for any box of a phrase (`R@1`), and for the box around all of them (`merged R@1`)."""
        counts = [len(question.truth["phrases"]) for question in data.questions]
        hits: dict[str, list[float]] = {f"{p}R@{k}": [] for p in ("", "merged ") for k in RECALL_RANKS}
        for question, answer in zip(data.questions, answers, strict=True):
            ranked = [(phrase, rank_boxes(answer, phrase.text)) for phrase in question.truth["phrases"]]
            for k in RECALL_RANKS:
                hits[f"R@{k}"].append(sum(grounding_recall(boxes, p.boxes, k) for p, boxes in ranked))
                merged = (grounding_recall(boxes, merge_boxes(p.boxes), k) for p, boxes in ranked)
                hits[f"merged R@{k}"].append(sum(merged))
        return SuiteScores({name: ratio_estimate(values, counts) for name, values in hits.items()})

    def submission(self, data: SuiteData, answers: Answers) -> list[dict[str, Any]]:
        """Return what `Flickr30kEntitiesRecallEvaluator` takes: boxes for each phrase, one without area if none was found."""
        rows = []
        for question, answer in zip(data.questions, answers, strict=True):
            boxes = [rank_boxes(answer, phrase.text).tolist() or [[0.0] * 4] for phrase in question.truth["phrases"]]
            rows.append({"image_id": question.group, "sentence_id": question.truth["sentence"], "boxes": boxes})
        return rows

    def image_url(self, split: str) -> str:
        """Return where the images can be had."""
        return _IMAGES.url


def rank_boxes(answer: Result | None, phrase: str) -> np.ndarray:
    """Return the boxes that an answer gives to a phrase, the best first: K x 4.

    The labels of an answer are phrases of the sentence as the model cuts it. The boxes of equal labels are taken; if there are
    none, those of labels of which the phrase is a part, or which are a part of it, whole words only.
    """
    instances = answer_instances(answer)
    if instances is None:
        return np.zeros((0, 4))
    labels = [normalize_label(label) for label in instances.class_names.tolist()]
    wanted = normalize_label(phrase)
    chosen = [i for i, label in enumerate(labels) if label == wanted]
    chosen = chosen or [i for i, label in enumerate(labels) if label and _share_words(label, wanted)]
    if instances.scores is not None:
        chosen = sorted(chosen, key=lambda i: -instances.scores[i])  # type: ignore[index]
    return instances.xyxy[chosen].reshape(-1, 4)


def _share_words(a: str, b: str) -> bool:
    return f" {a} " in f" {b} " or f" {b} " in f" {a} "


def parse_sentence(line: str, boxes: Mapping[str, np.ndarray]) -> tuple[str, list[Phrase]]:
    """Return the text of a line of a sentence file, and its phrases with boxes.

    Args:
        line: `[/EN#1/people A man] in [/EN#2/clothing a hat]`.
        boxes: phrase id -> its M x 4 boxes in the image.
    """
    phrases = [
        Phrase(" ".join(match[3].split()), boxes[match[1]], tuple(match[2].split("/")[1:]))
        for match in _PHRASE_RE.finditer(line)
        if match[1] in boxes
    ]
    return " ".join(_PHRASE_RE.sub(lambda match: match[3], line).split()), phrases


def read_boxes(path: Path) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """Return phrase id -> M x 4 boxes in pixels, and (width, height), of an annotation file of Flickr30k Entities.

    Raises:
        DatasetError: for a file that is missing or has another format.
    """
    from defusedxml import ElementTree  # type: ignore[import-untyped]

    try:
        root = ElementTree.parse(path).getroot()
        size = (int(root.findtext("size/width")), int(root.findtext("size/height")))
        boxes: dict[str, list[list[int]]] = {}
        for item in root.findall("object"):
            box = item.find("bndbox")
            if box is not None:
                corners = [int(box.findtext(name)) for name in ("xmin", "ymin", "xmax", "ymax")]
                for name in item.findall("name"):
                    boxes.setdefault(name.text, []).append(corners)
    except (OSError, ElementTree.ParseError, TypeError, ValueError) as error:
        reason = f"{summarize_error(error)}; it is published at {_ANNOTATIONS.url}"
        raise DatasetError(f"{path} cannot be read: {reason}") from error
    return {name: np.array(values, float) for name, values in boxes.items()}, size


def _read_lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        reason = f"{summarize_error(error)}; it is published at {_SENTENCES.url}"
        raise DatasetError(f"{path} cannot be read: {reason}") from error


GROUNDING_SUITES = (
    FlickrSuite(
        "flickr30k", "Flickr30k Entities, phrase grounding", "<CAPTION_TO_PHRASE_GROUNDING>", ("test", "val"), "R@1"
    ),
)
