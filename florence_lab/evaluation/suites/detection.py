"""COCO object detection: all images of val2017, scored by pycocotools on the annotation file itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...results import Instances
from ..official import COCO_METRICS, Estimate, NameTable, check_coco, coco_scores, read_coco, to_detections
from .base import Answers, PublishedFile, Suite, SuiteData, SuiteQuestion, SuiteScores

_ANNOTATIONS = PublishedFile(
    ("annotations/instances_val2017.json", "instances_val2017.json"),
    "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
)
_VAL2017 = PublishedFile(("val2017", "images/val2017"), "http://images.cocodataset.org/zips/val2017.zip")


@dataclass(frozen=True)
class DetectionSuite(Suite):
    """The 5,000 images of COCO val2017, those without objects included."""

    def read_files(self, root: Path, split: str) -> SuiteData:
        """Return a question for each image, in the order of the image ids, which is that of pycocotools."""
        path, folder = _ANNOTATIONS.find(root), _VAL2017.find(root)
        data = read_coco(path)
        check_coco(data, path)
        questions = []
        for image in data["images"]:
            size = (image["width"], image["height"])
            name = Path(image["file_name"]).name
            questions.append(SuiteQuestion(f"image {image['id']}", folder / name, "", image["id"], None, size))
        return SuiteData(sorted(questions, key=lambda question: question.group), data)  # type: ignore[arg-type,return-value]

    def score(self, data: SuiteData, answers: Answers) -> SuiteScores:
        """Return the twelve numbers of `COCOeval`, and how the labels were mapped to the categories of the file."""
        names = NameTable(data.content["categories"])
        detections = to_detections(_by_image(data, answers), names)
        scores = coco_scores(data.content, detections, [question.group for question in data.questions], names)
        metrics = {metric: Estimate(scores.values[metric]) for metric in COCO_METRICS}
        metrics["AP"] = scores.average_precision
        mapped = names.to_dataframe()
        return SuiteScores(metrics, {"AP by category": scores.to_dataframe(), "labels and their categories": mapped})

    def submission(self, data: SuiteData, answers: Answers) -> list[dict[str, Any]]:
        """Return COCO's result format for detection."""
        return to_detections(_by_image(data, answers), NameTable(data.content["categories"]))

    def image_url(self, split: str) -> str:
        """Return the address of val2017."""
        return _VAL2017.url


def _by_image(data: SuiteData, answers: Answers) -> dict[Any, Instances]:
    pairs = zip(data.questions, answers, strict=True)
    return {question.group: answer for question, answer in pairs if isinstance(answer, Instances)}


DETECTION_SUITES = (DetectionSuite("coco-detection", "COCO object detection, val2017", "<OD>", ("val2017",), "AP"),)
