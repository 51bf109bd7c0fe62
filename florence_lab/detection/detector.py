"""The steps of a detection: questions, candidates, verification, non-maximum suppression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..inference.generation import EncodedImage
from ..results import Boxes
from .asker import Asker
from .calibration import Calibration
from .ontology import Ontology
from .strategies import Question, Strategy, collect_candidates
from .suppression import suppress_overlaps
from .verification import verify


@dataclass(frozen=True)
class Detector:
    """A detection of the same classes in any number of images.

    Attributes:
        asker: the predictor.
        ontology: the classes.
        strategies: what is asked.
        verify: whether the scores are those of `verification.verify`.
        threshold: the least score of a box.
        nms_iou: the largest IoU of two boxes.
        calibration: for `verify`.
        batch_size: questions that are decoded together.
        generate_kwargs: for `predict_prompts`.
    """

    asker: Asker
    ontology: Ontology
    strategies: Sequence[Strategy]
    verify: bool
    threshold: float
    nms_iou: float
    calibration: Calibration | None
    batch_size: int
    generate_kwargs: Mapping[str, Any]

    def questions(self) -> list[Question]:
        """Return the questions about an image. They are the same for all images.

        Raises:
            PromptError: for words that are too long for the model.
        """
        return [question for strategy in self.strategies for question in strategy.questions(self.ontology, self.asker)]

    def detect(self, images: Sequence[EncodedImage], questions: Sequence[Question]) -> list[Boxes]:
        """Return the boxes in each image."""
        answers = self.asker.predict_prompts(
            [image for image in images for _ in questions],
            [question.prompt for question in questions] * len(images),
            self.batch_size,
            **self.generate_kwargs,
        )
        count = len(questions)
        return [
            self._select(image, collect_candidates(self.ontology, questions, answers[i * count : (i + 1) * count]))
            for i, image in enumerate(images)
        ]

    def _select(self, image: EncodedImage, candidates: Boxes) -> Boxes:
        # boxes of different classes compete only after verification: before it, a wrong class may have the higher score
        candidates = suppress_overlaps(candidates, self.nms_iou, across_classes=False)
        if self.verify:
            names = self.ontology.names
            phrases = dict(zip(names, self.ontology.phrases, strict=True))
            evidence = verify(self.asker, image, candidates, names, phrases, self.calibration, self.batch_size)
            candidates = replace(candidates, scores=evidence.scores)
        assert candidates.scores is not None
        candidates = candidates[candidates.scores >= self.threshold]
        return suppress_overlaps(candidates, self.nms_iou, across_classes=True)
