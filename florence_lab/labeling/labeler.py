"""`Labeler`: the labels of a batch of images by a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from PIL import Image

from ..detection.detection_mixin import DEFAULT_THRESHOLD, make_detector
from ..detection.detector import Detector
from ..detection.ontology import Ontology
from ..evaluation.settings import describe_settings
from ..inference.generation import EncodedImage
from ..predictor import Predictor
from ..results import Boxes, Result, Text
from ..template.locations import format_location_tokens
from ..template.prompts import Prompt
from .masks import add_polygons, load_refiner
from .records import LabelledAnswer, LabelledObject, asks_about_objects, round_polygon

_MIN_QUESTIONS = 16  # decoded together


@dataclass(frozen=True)
class Labels:
    """What a model says about an image.

    Attributes:
        size: (width, height) of the image in pixels.
        objects: see `LabelledImage`.
        answers: see `LabelledImage`.
    """

    size: tuple[int, int]
    objects: tuple[LabelledObject, ...] = ()
    answers: Mapping[str, LabelledAnswer] = field(default_factory=dict)


class BatchLabeler(Protocol):
    """Labels batches of images."""

    def label(self, images: Sequence[Image.Image]) -> list[Labels]:
        """Return the labels of upright RGB images, in order."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return what determines the labels, as a dictionary of JSON values."""
        ...


@dataclass(frozen=True)
class LabelSettings:
    """What is asked about each image.

    Attributes:
        ontology: the classes.
        tasks: tokens of further tasks: those that need no input are asked about the image (captions, text), those that take a
            region about each object.
        masks: None, `"florence"` (the model's own polygons), or the name or folder of a SAM 2.
        threshold: the least score of a box.
        strategy, verify, nms_iou, generate_kwargs: as in `Predictor.detect`.
        batch_size: images that are labelled together.
    """

    ontology: Ontology
    tasks: tuple[str, ...] = ()
    masks: str | None = None
    threshold: float | None = None
    strategy: str | tuple[str, ...] = "auto"
    verify: bool = True
    nms_iou: float = 0.5
    batch_size: int = 8
    generate_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Return the settings that determine the labels, as JSON values. The size of batches does not."""
        default = DEFAULT_THRESHOLD if self.verify else 0.0
        return {
            "classes": {n: list(p) for n, p in zip(self.ontology.names, self.ontology.phrases, strict=True)},
            "tasks": list(self.tasks),
            "masks": self.masks,
            "threshold": default if self.threshold is None else self.threshold,
            "strategy": self.strategy if isinstance(self.strategy, str) else list(self.strategy),
            "verify": self.verify,
            "nms_iou": self.nms_iou,
        }


class Labeler:
    """Labels images with a predictor: each image is encoded once, and the questions about a batch are decoded together.

    Args:
        predictor: the model.
        settings: what is asked.

    Raises:
        ArgumentError, PromptError: as `Predictor.detect`, for classes and settings that the model cannot be asked.
    """

    def __init__(self, predictor: Predictor, settings: LabelSettings) -> None:
        self.predictor, self.settings = predictor, settings
        self._questions = self._detector.questions()
        self._image_tasks = [task for task in settings.tasks if not asks_about_objects(task)]
        self._object_tasks = [task for task in settings.tasks if asks_about_objects(task)]
        for task in self._image_tasks:
            predictor.build_prompt((1, 1), task)
        self._refiner = load_refiner(predictor, settings.masks, self._detector.batch_size, **settings.generate_kwargs)

    def describe(self) -> dict[str, Any]:
        """Return the settings, and the model with its settings of generation."""
        return self.settings.describe() | describe_settings(self.predictor, self.settings.generate_kwargs)

    def label(self, images: Sequence[Image.Image]) -> list[Labels]:
        """Return the labels of upright RGB images, in order."""
        encoded = [self.predictor.encode_image(image) for image in images]
        found = self._detector.detect(encoded, self._questions)
        if self._refiner is not None:
            found = add_polygons(self._refiner, encoded, found)
        answers = [self._ask(task, encoded) for task in self._image_tasks]
        attributes = self._describe_objects(encoded, found)
        return [
            Labels(
                image.size,
                _to_objects(boxes, attributes[i], keep_polygons=self._refiner is not None),
                {task: _to_answer(results[i]) for task, results in zip(self._image_tasks, answers, strict=True)},
            )
            for i, (image, boxes) in enumerate(zip(encoded, found, strict=True))
        ]

    @cached_property
    def _detector(self) -> Detector:
        settings = self.settings
        return make_detector(
            self.predictor,
            settings.ontology,
            strategy=settings.strategy,
            verify=settings.verify,
            threshold=settings.threshold,
            nms_iou=settings.nms_iou,
            batch_size=max(_MIN_QUESTIONS, settings.batch_size),
            generate_kwargs=dict(settings.generate_kwargs),
        )

    def _describe_objects(self, images: Sequence[EncodedImage], found: Sequence[Boxes]) -> list[list[dict[str, str]]]:
        """The attributes of the objects of each image."""
        described: list[list[dict[str, str]]] = [[{} for _ in range(len(boxes))] for boxes in found]
        places = [(i, k) for i, boxes in enumerate(found) for k in range(len(boxes))]
        for task in self._object_tasks:
            # location tokens, as a box that is too flat for a region in pixels is still one in bins
            regions = [format_location_tokens(found[i].boxes[k], images[i].size) for i, k in places]
            prompts = [
                self.predictor.build_prompt(images[i].size, task, region)
                for (i, _), region in zip(places, regions, strict=True)
            ]
            results = self._predict([images[i] for i, _ in places], prompts)
            for (i, k), result in zip(places, results, strict=True):
                described[i][k][task] = result.text if isinstance(result, Text) else ""
        return described

    def _ask(self, task: str, images: Sequence[EncodedImage]) -> list[Result]:
        return self._predict(images, [self.predictor.build_prompt(image.size, task) for image in images])

    def _predict(self, images: Sequence[EncodedImage], prompts: Sequence[Prompt]) -> list[Result]:
        size = self._detector.batch_size
        return self.predictor.predict_prompts(images, prompts, size, **self.settings.generate_kwargs)


def _to_objects(
    boxes: Boxes, attributes: Sequence[Mapping[str, str]], keep_polygons: bool
) -> tuple[LabelledObject, ...]:
    """The objects of a detection: coordinates are rounded to 0.001 px."""
    assert boxes.scores is not None
    assert boxes.class_ids is not None
    found_by = boxes.found_by.tolist() if boxes.found_by is not None else [""] * len(boxes)
    columns = zip(
        boxes.class_ids.tolist(),
        boxes.labels.tolist(),
        boxes.boxes.tolist(),
        boxes.scores.tolist(),
        found_by,
        boxes.contours if keep_polygons else [()] * len(boxes),
        attributes,
        strict=True,
    )
    return tuple(
        LabelledObject(
            class_id,
            label,
            _to_box(box),
            round(min(score, 1.0), 6),
            strategy,
            tuple(map(round_polygon, polygons)),
            texts,
        )
        for class_id, label, box, score, strategy, polygons, texts in columns
    )


def _to_box(box: Sequence[float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (round(value, 3) for value in box)
    return x0, y0, x1, y1


def _to_answer(result: Result) -> LabelledAnswer:
    if isinstance(result, Text):
        return LabelledAnswer(result.raw, result.text)
    (content,) = result.to_dict().values()
    return LabelledAnswer(result.raw, content)
