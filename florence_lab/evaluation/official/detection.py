"""Object detection on a COCO file, by pycocotools' own `COCOeval` on the file itself with boxes in pixels.

What the file says about crowds, areas and images without objects counts as pycocotools defines it. Nothing passes through
location tokens.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...argument_validation import validate_arguments
from ...exceptions import DatasetError, shorten, summarize_error
from ...results import Instances
from .estimates import Estimate
from .names import NameTable

if TYPE_CHECKING:
    import pandas as pd

Detection = dict[str, Any]
"""An entry of COCO's result format: `image_id`, `category_id`, `bbox` (x, y, width, height) and `score`."""

COCO_METRICS = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L", "AR@1", "AR@10", "AR@100", "AR_S", "AR_M", "AR_L")
"""The twelve numbers of `COCOeval.summarize`, in its order."""

_SECTIONS = ("images", "annotations", "categories")
_EPSILON = np.spacing(1)


@dataclass(frozen=True, eq=False)
class CocoScores:
    """The numbers of `COCOeval`.

    Attributes:
        values: `COCO_METRICS`, each 0..1, or nan where pycocotools says -1: there is no such object.
        by_category: category name -> its `AP`, `AP50` and `AR@100`.
        names: how the labels of the model were mapped to categories.
        evaluation: pycocotools' `COCOeval`, for its arrays.
    """

    values: Mapping[str, float]
    by_category: Mapping[str, Mapping[str, float]]
    names: NameTable | None = None
    evaluation: Any = field(default=None, repr=False)

    def to_dataframe(self) -> pd.DataFrame:
        """Return a data frame with a row for each category: `category`, `AP`, `AP50`, `AR@100`."""
        import pandas as pd

        rows = [{"category": name} | dict(values) for name, values in self.by_category.items()]
        return pd.DataFrame(rows, columns=["category", "AP", "AP50", "AR@100"])

    @cached_property
    def average_precision(self) -> Estimate:
        """AP for resampling over the images, in the order of `evaluation.params.imgIds`."""
        curves = _CategoryCurves.from_evaluation(self.evaluation)

        def resample(weights: np.ndarray) -> float:
            values = [value for curve in curves if not np.isnan(value := curve.average_precision(weights))]
            return float(np.mean(values)) if values else float("nan")

        return Estimate(self.values["AP"], resample)


@validate_arguments
def coco_scores(
    annotations: str | Path | Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    image_ids: Iterable[Any] | None = None,
    names: NameTable | None = None,
) -> CocoScores:
    """Return the official numbers of detections on a COCO file.

    Args:
        annotations: the annotation file, or its content.
        detections: entries of COCO's result format, see `to_detections`. Images without entries count as answered by nothing.
        image_ids: the images to evaluate; by default all of the file, also those without objects.
        names: for `CocoScores.names`.

    Raises:
        DatasetError: for a file that cannot be read or is no COCO file, and for a detection in an unknown image.
    """
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        truth = _index(annotations)
        evaluation = COCOeval(truth, _load_detections(truth, detections), "bbox")
        if image_ids is not None:
            evaluation.params.imgIds = sorted(set(image_ids))
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = {name: _undefined_to_nan(v) for name, v in zip(COCO_METRICS, evaluation.stats.tolist(), strict=True)}
    return CocoScores(values, _by_category(truth, evaluation), names, evaluation)


@validate_arguments
def to_detections(results: Mapping[Any, Instances], names: NameTable) -> list[Detection]:
    """Return predicted instances in COCO's result format. Instances of no category are left out and counted in the table.

    Args:
        results: image id -> instances in pixels of the original image. Those without scores count as certain.
        names: maps labels to the categories of the file.
    """
    detections: list[Detection] = []
    for image_id, result in results.items():
        scores = np.ones(len(result)) if result.scores is None else result.scores
        for label, box, score in zip(result.class_names.tolist(), result.xyxy.tolist(), scores.tolist(), strict=True):
            category_id = names.lookup(label)
            if category_id is not None:
                x0, y0, x1, y1 = box
                bbox = [x0, y0, x1 - x0, y1 - y0]
                detections.append({"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score})
    return detections


def read_coco(path: str | Path) -> dict[str, Any]:
    """Return the content of a COCO file.

    Raises:
        DatasetError: if it cannot be read, or lacks a list of images, annotations or categories.
    """
    try:
        data = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} cannot be read: {summarize_error(error)}") from error
    if not isinstance(data, dict) or not all(isinstance(data.get(section), list) for section in _SECTIONS):
        raise DatasetError(f"{path} is not a COCO file: it lacks a list of {', '.join(_SECTIONS)}")
    return data


def check_coco(data: Mapping[str, Any], path: str | Path) -> None:
    """Verify what scoring needs of the content of a COCO file, before a model answers it.

    Args:
        data: the content, as `read_coco` gives it.
        path: the file, for messages.

    Raises:
        DatasetError: for an entry without a valid value, and for an id that occurs twice; the message names the entry.
    """
    for section, fields in _FIELDS.items():
        seen: set[Any] = set()
        for number, entry in enumerate(data[section], start=1):
            if not isinstance(entry, dict):
                raise DatasetError(f"{path}, {section} {number} must be an object, got {shorten(entry)}")
            for name, (is_valid, expected) in fields.items():
                if name not in entry and name in _OPTIONAL_FIELDS:
                    continue
                if name not in entry or not is_valid(entry[name]):
                    found = f"got {shorten(entry[name])}" if name in entry else "it is missing"
                    raise DatasetError(f"{path}, {section} {number}: {name} must be {expected}, {found}")
            if entry["id"] in seen:
                raise DatasetError(f"{path}, {section} {number}: the id {shorten(entry['id'])} occurs twice")
            seen.add(entry["id"])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and value > 0


_ID = (lambda value: isinstance(value, int), "a whole number")
_TEXT = (lambda value: isinstance(value, str), "text")
_FIELDS: Mapping[str, Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "images": {"id": _ID, "file_name": _TEXT, "width": (_is_size, "pixels"), "height": (_is_size, "pixels")},
    "categories": {"id": _ID, "name": _TEXT},
    "annotations": {
        "id": _ID,
        "image_id": _ID,
        "category_id": _ID,
        "bbox": (_is_box, "four numbers"),
        "area": (_is_number, "a number"),
        "iscrowd": (lambda value: value in (0, 1), "0 or 1"),
    },
}
_OPTIONAL_FIELDS = ("area", "iscrowd")


def _index(annotations: str | Path | Mapping[str, Any]) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    data = dict(annotations) if isinstance(annotations, Mapping) else read_coco(annotations)
    try:
        coco.dataset = {**data, "annotations": [_complete(annotation) for annotation in data["annotations"]]}
        coco.createIndex()
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"the COCO file has an invalid entry: {error!r}") from error
    return coco


def _complete(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """Add what files of other tools often lack, and pycocotools requires: no crowd, and the area of the box."""
    _, _, width, height = annotation["bbox"]
    return {"iscrowd": 0, "area": width * height, **annotation}


def _load_detections(truth: Any, detections: Sequence[Mapping[str, Any]]) -> Any:
    if unknown := next((d for d in detections if d["image_id"] not in truth.imgs), None):
        raise DatasetError(f"a detection is in image {shorten(unknown['image_id'])}, which the COCO file lacks")
    if detections:
        return truth.loadRes([dict(detection) for detection in detections])
    from pycocotools.coco import COCO

    empty = COCO()  # `loadRes` fails without a detection
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty


def _by_category(truth: Any, evaluation: Any) -> dict[str, dict[str, float]]:
    """The numbers of each category that has objects, over all areas and 100 detections an image."""
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    rows = {}
    for k, category_id in enumerate(evaluation.params.catIds):
        curve = precision[:, :, k, 0, -1]
        if (curve > -1).any():
            rows[truth.cats[category_id]["name"]] = {
                "AP": float(curve.mean()),
                "AP50": float(curve[0].mean()),
                "AR@100": float(recall[:, k, 0, -1].mean()),
            }
    return rows


@dataclass(frozen=True, eq=False)
class _CategoryCurves:
    """The detections of one category in all images, the best first, for average precision with weighted images.

    Attributes:
        image: D int, the index of the image of each detection.
        is_match, is_ignored: T x D bool at T IoU thresholds.
        num_true: N float, the objects that count in each image.
        recall_thresholds: R recalls at which the precision is read.
    """

    image: np.ndarray
    is_match: np.ndarray
    is_ignored: np.ndarray
    num_true: np.ndarray
    recall_thresholds: np.ndarray

    @classmethod
    def from_evaluation(cls, evaluation: Any) -> list[_CategoryCurves]:
        """Return the curves of all categories of a `COCOeval` after `evaluate`: its first range of areas is all."""
        params = evaluation.params
        num_images, num_areas, limit = len(params.imgIds), len(params.areaRng), params.maxDets[-1]
        curves = []
        for k in range(len(params.catIds)):
            start = k * num_areas * num_images
            entries = evaluation.evalImgs[start : start + num_images]
            present = [(i, entry) for i, entry in enumerate(entries) if entry is not None]
            num_true = np.zeros(num_images)
            for i, entry in present:
                num_true[i] = np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0)
            if not present:
                continue
            scores = np.concatenate([np.asarray(entry["dtScores"][:limit], float) for _, entry in present])
            order = np.argsort(-scores, kind="mergesort")
            image = np.concatenate([np.full(len(entry["dtScores"][:limit]), i) for i, entry in present])
            is_match = np.concatenate([np.asarray(entry["dtMatches"])[:, :limit] for _, entry in present], axis=1)
            is_ignored = np.concatenate([np.asarray(entry["dtIgnore"])[:, :limit] for _, entry in present], axis=1)
            curves.append(
                cls(
                    image[order].astype(int),
                    is_match[:, order].astype(bool),
                    is_ignored[:, order].astype(bool),
                    num_true,
                    np.asarray(params.recThrs),
                )
            )
        return curves

    def average_precision(self, weights: np.ndarray) -> float:
        """Return COCO's AP if image i occurs `weights[i]` times; nan without an object."""
        num_true = float(self.num_true @ weights)
        if not num_true:
            return float("nan")
        if not len(self.image):
            return 0.0
        each = weights[self.image]
        true = np.cumsum((self.is_match & ~self.is_ignored) * each, axis=1)
        false = np.cumsum((~self.is_match & ~self.is_ignored) * each, axis=1)
        precision = true / (true + false + _EPSILON)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = true / num_true
        total = 0.0
        for row, precisions in zip(recall, precision, strict=True):
            index = np.searchsorted(row, self.recall_thresholds, side="left")
            found = index < len(row)
            total += precisions[index[found]].sum() / len(self.recall_thresholds)
        return float(total / len(recall))


def _undefined_to_nan(value: float) -> float:
    return value if value >= 0 else float("nan")
