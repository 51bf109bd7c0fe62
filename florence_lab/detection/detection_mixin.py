"""`DetectionMixin`: the methods of `Predictor` that detect the user's own classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..argument_validation import validate_value
from ..exceptions import ArgumentError, ImageError, PromptError
from ..images import held_bytes
from ..inference.batching import process_in_batches
from ..inference.generation import EncodedImage, resolve_generation_kwargs
from ..inference.preprocessing import PreprocessedImage, preprocess_source
from ..results import Boxes
from ..sources import list_sources
from .asker import Asker
from .calibration import Calibration
from .detector import Detector
from .ontology import ClassNames, Ontology, Phrases
from .strategies import resolve_strategies

DEFAULT_THRESHOLD = 0.5
"""The least verified confidence of a box."""


class DetectionMixin:
    """Detection of classes that the user names, as methods of `Predictor`."""

    def detect(
        self: Asker,
        image: Any,
        classes: ClassNames,
        phrases: Phrases | None = None,
        strategy: str | Sequence[str] = "auto",
        verify: bool = True,
        threshold: float | None = None,
        nms_iou: float = 0.5,
        calibration: Calibration | str | Path | None = None,
        batch_size: int = 16,
        **generate_kwargs: Any,
    ) -> Boxes:
        """Detect the objects of several classes in one image.

        Args:
            image: as in `predict`.
            classes: the names of the classes, which become the labels. A mapping from name to phrases does for `classes` and
                `phrases` together.
            phrases: class -> the words to ask with, one phrase or several; by default the name of the class. They are also
                synonyms: `{"person": ["man", "woman"]}`.
            strategy: what is asked, one name or several, whose boxes are put together:

                | strategy | questions | answers decoded for C phrases |
                | --- | --- | --- |
                | `"open_vocabulary"` | `<OPEN_VOCABULARY_DETECTION>` for each phrase | C |
                | `"grounding"` | `<CAPTION_TO_PHRASE_GROUNDING>` of captions of up to 8 phrases | C / 8 |
                | `"od"` | `<OD>`; finds only what the model has a name for that is one of the phrases | 1 |
                | `"regions"` | `<REGION_PROPOSAL>` and `<OD>`; verification names each region, for hundreds of classes | 2 |
                | `"auto"` | `"open_vocabulary"` and `"regions"`; without `verify`, `"od"` instead of the latter | C + 2 |

            verify: ask the model what it calls the region of each box, and take the probability of the class as its score, see
                `detection.verification`. It costs a pass of the encoder for each region that differs, and scores all names in
                a pass of the decoder. Without it, names that are not in the image often get boxes as well.
            threshold: the least score of a box; by default 0.5 with `verify`, else 0.
            nms_iou: the largest IoU of two boxes, also of different classes. Of those that overlap more, only the box with the
                highest score stays; 1 keeps all.
            calibration: for the scores of `verify`: a `Calibration`, or the path of one.
            batch_size: questions decoded together, at least 1.
            generate_kwargs: as in `predict`.

        Returns:
            Boxes in descending order of their scores. `labels` are names of `classes`, `class_ids` their indices. `task` is
            `<OD>`, whose answers have the same form; `prompt` and `raw` hold all questions and answers, one a line.

        Raises:
            ArgumentError: for classes that are empty, blank, given twice or contain tokens, phrases of no class, an unknown
                strategy, and as `predict`.
            PromptError: for a phrase that is too long for the model.
            ImageError: if the image cannot be read.

        Example:
            >>> found = predictor.detect("farm.png", ["sheep", "dog"], phrases={"sheep": "a white sheep"})
            >>> found.labels, found.class_ids, found.scores
        """
        ontology = Ontology.from_classes(classes, phrases)
        detector = make_detector(
            self, ontology, strategy, verify, threshold, nms_iou, calibration, batch_size, generate_kwargs
        )
        questions = detector.questions()  # refuses phrases before the image is read
        return detector.detect([self.encode_image(image)], questions)[0]

    def detect_each(
        self: Asker,
        images: str | Path | Iterable[Any],
        classes: ClassNames,
        phrases: Phrases | None = None,
        strategy: str | Sequence[str] = "auto",
        verify: bool = True,
        threshold: float | None = None,
        nms_iou: float = 0.5,
        calibration: Calibration | str | Path | None = None,
        batch_size: int = 16,
        keep_images: bool = True,
        **generate_kwargs: Any,
    ) -> Iterator[Boxes | ImageError | PromptError]:
        """Detect the objects of several classes in many images, and yield the boxes in order.

        Images are read in background threads, at most a few batches ahead. Images that cannot be opened yield the exception
        instead of a result; the remaining images are still processed.

        Args:
            images: as in `predict_iter`: an iterable, a folder, a pattern, a video, or a single image.
            classes, phrases, strategy, verify, threshold, nms_iou, calibration, generate_kwargs: as in `detect`.
            batch_size: questions decoded together, at least 1. Those of several images share a batch.
            keep_images: keep the image in each result, for drawing; False saves memory.

        Raises:
            ArgumentError, PromptError: as `detect`, before an image is read.
            ImageError: for a folder without images, and for a single path that does not exist.

        Example:
            >>> results = list(predictor.detect_each("farm/*.png", ["sheep", "dog"], keep_images=False))
            >>> florence_lab.to_coco([result for result in results if not isinstance(result, Exception)])
        """
        ontology = Ontology.from_classes(classes, phrases)
        detector = make_detector(
            self, ontology, strategy, verify, threshold, nms_iou, calibration, batch_size, generate_kwargs
        )
        keep_images = validate_value("keep_images", keep_images, bool)
        questions = detector.questions()
        sources = [images] if isinstance(images, EncodedImage) else list_sources(images)

        def read(source: Any) -> PreprocessedImage | EncodedImage | ImageError:
            try:
                if isinstance(source, EncodedImage):
                    return source
                return preprocess_source(self.processor.image_processor, source)
            except ImageError as error:
                return error

        def answer(batch: list[PreprocessedImage | EncodedImage]) -> list[Boxes]:
            found = detector.detect(self.encode_images(batch), questions)
            return found if keep_images else [replace(boxes, image=None) for boxes in found]

        return process_in_batches(
            sources,
            read,
            answer,
            batch_size=-(-detector.batch_size // len(questions)),
            total=len(sources) if isinstance(sources, Sequence) else None,
            description="detect",
            source_bytes=held_bytes,
        )


def make_detector(
    asker: Asker,
    ontology: Ontology,
    strategy: str | Sequence[str] = "auto",
    verify: bool = True,
    threshold: float | None = None,
    nms_iou: float = 0.5,
    calibration: Calibration | str | Path | None = None,
    batch_size: int = 16,
    generate_kwargs: dict[str, Any] | None = None,
) -> Detector:
    """Return the detector of the arguments of `detect`.

    Raises:
        ArgumentError: as `detect`.
    """
    verify = validate_value("verify", verify, bool)
    strategies = resolve_strategies(validate_value("strategy", strategy, str | Sequence[str]), verify)
    threshold = validate_value("threshold", threshold, float | None)
    nms_iou = validate_value("nms_iou", nms_iou, float)
    batch_size = validate_value("batch_size", batch_size, int)
    calibration = validate_value("calibration", calibration, Calibration | str | Path | None)
    if calibration is not None and not verify:
        raise ArgumentError("calibration needs verify=True: it is computed from what verification finds")
    if isinstance(calibration, (str, Path)):
        calibration = Calibration.load(calibration)
    if threshold is None:
        threshold = DEFAULT_THRESHOLD if verify else 0.0
    generate_kwargs = generate_kwargs or {}
    resolve_generation_kwargs(asker.model, generate_kwargs)
    return Detector(asker, ontology, strategies, verify, threshold, nms_iou, calibration, batch_size, generate_kwargs)
