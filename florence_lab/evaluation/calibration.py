"""`calibrate`: fit the scores of `Predictor.detect` to a small labelled dataset, and report what that gains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from tqdm.auto import tqdm

from ..argument_validation import validate_arguments, validate_value
from ..data.datasets import DatasetName, load_examples
from ..data.examples import Example
from ..data.spec import DatasetSpec
from ..data.validation import RowValidator
from ..detection.calibration import FEATURES, Calibration
from ..detection.ontology import ClassNames, Ontology, Phrases
from ..detection.strategies import Question, collect_candidates, resolve_strategies
from ..detection.suppression import suppress_overlaps
from ..detection.verification import Evidence, verify
from ..exceptions import ArgumentTypeError, DatasetError, shorten, warn
from ..predictor import Predictor
from ..results import Boxes
from .matching import count_matches, match_instances
from .reliability import area_under_roc

if TYPE_CHECKING:
    import pandas as pd

SCORINGS = ("own", "verified", "calibrated")
"""The scores that are compared: the own score of each box, that of `verify`, and that of the calibration."""

NUM_FOLDS = 5
"""Folds of the cross-validation."""

LabelledImages = DatasetName | Iterable[DatasetName] | Iterable[tuple[Any, Boxes]]
"""Names of datasets, or pairs of an image and its boxes."""


@dataclass(frozen=True, eq=False)
class _LabelledCandidates:
    """The candidates in one image, with the truth."""

    candidates: Boxes
    evidence: Evidence
    truth: Boxes
    is_right: np.ndarray


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """A calibration, with the quality of detection before and after.

    Precision and recall are those of `detect` at `threshold`, by the one-to-one matching of boxes at an IoU of 0.5. AUROC is the
    probability that a right candidate has a higher score than a wrong one.

    Attributes:
        calibration: fitted to all images.
        scores: scoring, see `SCORINGS` -> N scores of the candidates in all images. The calibrated ones are cross-validated: each
            image is scored by a calibration that was fitted without it. They are missing if there are too few images for it.
        is_right: N bool.
        precision, recall: scoring -> value; nan if it is undefined.
        threshold: the least score of a detection.
        num_images, num_objects: how many images and objects there are.
    """

    calibration: Calibration
    scores: dict[str, np.ndarray]
    is_right: np.ndarray
    precision: dict[str, float]
    recall: dict[str, float]
    threshold: float
    num_images: int
    num_objects: int

    @property
    def auroc(self) -> dict[str, float]:
        """Scoring -> area under the ROC curve."""
        return {name: area_under_roc(scores, self.is_right) for name, scores in self.scores.items()}

    def to_dataframe(self) -> pd.DataFrame:
        """Return a data frame with a row for each scoring: `precision`, `recall`, `AUROC`."""
        import pandas as pd

        return pd.DataFrame({"precision": self.precision, "recall": self.recall, "AUROC": self.auroc})

    def __repr__(self) -> str:
        title = (
            f"{self.num_images} images, {self.num_objects} objects, {len(self.is_right)} candidates; "
            f"precision and recall at score {self.threshold:g} and IoU 0.5"
        )
        return f"{title}\n{self.to_dataframe().to_string(float_format='{:.3f}'.format)}"

    @validate_arguments
    def save(self, path: str | Path) -> Path:
        """Write the calibration as JSON, see `Calibration.save`, and return the path of the file."""
        return self.calibration.save(path)

    @validate_arguments
    def plot_precision_recall(self, ax: Axes) -> Axes:
        """Plot precision and recall of the candidates at all thresholds, a curve for each scoring.

        Args:
            ax: the axes to draw into; they are returned.
        """
        for name, scores in self.scores.items():
            hits = np.cumsum(self.is_right[np.argsort(-scores, kind="stable")])
            ax.plot(hits / max(1, self.num_objects), hits / np.arange(1, len(hits) + 1), label=name)
        ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title="candidates at IoU 0.5")
        ax.grid(alpha=0.3)
        ax.legend(loc="lower left")
        return ax


def calibrate(
    predictor: Predictor,
    dataset: LabelledImages,
    classes: ClassNames | None = None,
    phrases: Phrases | None = None,
    strategy: str | Sequence[str] = "auto",
    threshold: float = 0.5,
    nms_iou: float = 0.5,
    batch_size: int = 16,
    **generate_kwargs: Any,
) -> CalibrationReport:
    """Fit the scores of `Predictor.detect` to labelled images, and report precision, recall and AUROC before and after.

    All classes are asked for in each image, also those that it does not show. A few dozen images are enough, as only
    four numbers are fitted.

    Args:
        predictor: any Florence-2 model.
        dataset: as for fine-tuning, of which the rows of `<OD>` are used (`"coco:instances.json"`, `"yolo:folder"`,
            `"voc:folder"`, `"rows.jsonl"` …), one name or several; or pairs of an image and its `Boxes`.
        classes: as in `detect`; by default all labels of the dataset. Objects of other classes are left out.
        phrases, strategy, nms_iou, batch_size, generate_kwargs: as in `detect`, and best the same as there.
        threshold: the score at which precision and recall are reported.

    Raises:
        DatasetError: for a dataset that cannot be read, has invalid rows, less than two images or no objects.
        ArgumentError: as `detect`, and if all candidates are right or all are wrong.

    Example:
        >>> report = florence_lab.calibrate(predictor, "coco:val.json")
        >>> report                                   # a table
        >>> report.save("calibration.json")
        >>> predictor.detect(image, ["sheep", "dog"], calibration="calibration.json")
    """
    predictor = validate_value("predictor", predictor, Predictor)
    threshold = validate_value("threshold", threshold, float)
    nms_iou = validate_value("nms_iou", nms_iou, float)
    batch_size = validate_value("batch_size", batch_size, int)
    strategies = resolve_strategies(validate_value("strategy", strategy, str | Sequence[str]), verify=True)
    pairs = _read_pairs(predictor, dataset)
    labels = sorted({label for _, truth in pairs for label in truth.labels.tolist() if label})
    if not labels or len(pairs) < 2:
        raise DatasetError(
            f"a calibration needs two or more images with objects, got {len(pairs)} with {len(labels)} classes"
        )
    ontology = Ontology.from_classes(labels if classes is None else classes, phrases)
    questions = [question for item in strategies for question in item.questions(ontology, predictor)]
    images = [
        _ask(predictor, image, truth, ontology, questions, nms_iou, batch_size, generate_kwargs)
        for image, truth in tqdm(pairs, desc="calibrate", unit="image")
    ]
    return _report(images, threshold, nms_iou, predictor.name)


def _read_pairs(predictor: Predictor, dataset: Any) -> list[tuple[Any, Boxes]]:
    """Each image with its true boxes, of the rows of `<OD>`."""
    items = [dataset] if isinstance(dataset, (str, Path, DatasetSpec)) else dataset
    if not isinstance(items, Iterable) or getattr(items, "ndim", 1) == 0:
        raise ArgumentTypeError(
            f"dataset must be names of datasets, or pairs of image and Boxes, got {shorten(dataset)}"
        )
    items = list(items)
    pairs = [tuple(item) for item in items if isinstance(item, (tuple, list)) and len(item) == 2]
    if pairs and len(pairs) == len(items) and all(isinstance(truth, Boxes) for _, truth in pairs):
        return pairs
    validator = RowValidator.for_model(predictor.model, predictor.processor)
    examples = load_examples(items, validator, split="held_out").require_valid()
    return [(example, _truth(example)) for example in examples if example.prompt.task.token == "<OD>"]


def _truth(example: Example) -> Boxes:
    truth = example.ground_truth
    assert isinstance(truth, Boxes)
    return truth


def _ask(
    predictor: Predictor,
    image: Any,
    truth: Boxes,
    ontology: Ontology,
    questions: Sequence[Question],
    nms_iou: float,
    batch_size: int,
    generate_kwargs: dict[str, Any],
) -> _LabelledCandidates:
    """Collect the candidates in an image as `detect` does, and their evidence."""
    encoded = predictor.encode_image(image.load_image() if isinstance(image, Example) else image)
    prompts = [question.prompt for question in questions]
    answers = predictor.predict_prompts([encoded] * len(prompts), prompts, batch_size, **generate_kwargs)
    candidates = suppress_overlaps(collect_candidates(ontology, questions, answers), nms_iou, across_classes=False)
    phrases = dict(zip(ontology.names, ontology.phrases, strict=True))
    evidence = verify(predictor, encoded, candidates, ontology.names, phrases, batch_size=batch_size)
    truth = truth[np.isin(truth.labels, ontology.names)]
    return _LabelledCandidates(
        replace(candidates, image=None), evidence, truth, match_instances(candidates, truth) >= 0
    )


def _report(images: Sequence[_LabelledCandidates], threshold: float, nms_iou: float, model: str) -> CalibrationReport:
    features = np.concatenate([image.evidence.features for image in images])
    is_right = np.concatenate([image.is_right for image in images])
    image_of = np.repeat(np.arange(len(images)), [len(image.candidates) for image in images])
    calibration = Calibration.fit(features, is_right, model)
    scores = {
        "own": features[:, FEATURES.index("own")],
        "verified": np.concatenate([image.evidence.scores for image in images]),
    }
    calibrated = _cross_validate(features, is_right, image_of)
    if calibrated is None:
        warn("too few images to cross-validate the calibration; the report has no scores of it")
    else:
        scores["calibrated"] = calibrated
    num_objects = sum(len(image.truth) for image in images)
    precision, recall = {}, {}
    for name, values in scores.items():
        kept = [_detections(image, values[image_of == i], threshold, nms_iou) for i, image in enumerate(images)]
        hits = count_matches(kept, [image.truth for image in images])
        precision[name] = _ratio(hits, sum(map(len, kept)))
        recall[name] = _ratio(hits, num_objects)
    return CalibrationReport(calibration, scores, is_right, precision, recall, threshold, len(images), num_objects)


def _detections(image: _LabelledCandidates, scores: np.ndarray, threshold: float, nms_iou: float) -> Boxes:
    """The boxes that `detect` returns if the candidates have these scores."""
    chosen = scores >= threshold
    return suppress_overlaps(replace(image.candidates[chosen], scores=scores[chosen]), nms_iou, across_classes=True)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _cross_validate(features: np.ndarray, is_right: np.ndarray, image_of: np.ndarray) -> np.ndarray | None:
    """The score of each candidate by a calibration that was fitted to the other folds of images.

    None if the other folds have right candidates only, or wrong ones only.
    """
    scores = np.zeros(len(is_right))
    fold_of = image_of % NUM_FOLDS
    for fold in np.unique(fold_of):
        held_out = fold_of == fold
        if len(set(is_right[~held_out].tolist())) < 2:
            return None
        scores[held_out] = Calibration.fit(features[~held_out], is_right[~held_out]).predict(features[held_out])
    return scores
