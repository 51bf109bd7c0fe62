"""The results of Florence-2: text, boxes, quad boxes and polygons in pixels, and their conversions to other formats."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from .argument_validation import Range, validate_arguments, validate_fields, validate_value
from .exceptions import ArgumentError, ArgumentTypeError, shorten
from .geometry import Polygon, polygon_area, polygons_to_mask, polygons_to_xyxy, to_coordinates, to_polygons
from .sources import import_supervision
from .tasks import TASKS

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image
    from typing_extensions import Self

if not TYPE_CHECKING:
    # pdoc executes the block above, and importing supervision without OpenCV issues a warning
    Detections = Any
else:
    from supervision import Detections

Index = int | slice | Sequence[int] | Sequence[bool] | np.ndarray
"""Selects instances: an integer, a slice, a boolean mask or a list of integers."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(ABC):
    """The fields that all results share.

    Attributes:
        raw: the generated text with location tokens, without `<s>`, `</s>` and `<pad>`.
        image_size: (width, height) of the image in pixels.
        task: the task token; empty for a free-form question.
        prompt: the text that the model read.
        phrase: the phrase, caption or region (as location tokens) in the prompt; empty if the task takes none.
        image: the image, for drawing in a notebook; None if it was not stored.
        truncated: whether the limit of length or time ended the answer before the model did.
    """

    raw: str
    image_size: tuple[int, int]
    task: str = ""
    prompt: str = ""
    phrase: str = ""
    image: Image.Image | None = field(default=None, repr=False)
    truncated: bool = False

    def __post_init__(self) -> None:
        validate_fields(self)

    def to_dict(self) -> dict[str, Any]:
        """Return `{task token: answer}` as the published `post_process_generation` does, plus `scores` if they are known.

        The key of a free-form question is the prompt.
        """
        return {self.task or self.prompt: self._to_florence()}

    @validate_arguments
    def to_coco(self, image_id: int = 1, file_name: str = "", classes: Sequence[str] | None = None) -> dict[str, list]:
        """Return a COCO dataset of this image, see `to_coco` of the package for many.

        Args:
            image_id: id of the image.
            file_name: file name of the image.
            classes: names of the categories with the ids 1, 2, …; by default the labels of this result.

        Raises:
            ValueError: if a label is not in `classes`.
        """
        return to_coco([self], [file_name], classes, first_image_id=image_id)

    @validate_arguments
    def to_supervision(self, classes: Sequence[str] | None = None) -> Detections:
        """Return `supervision.Detections`; empty for a text."""
        return import_supervision().Detections.empty()

    @abstractmethod
    def to_dataframe(self) -> pd.DataFrame:
        """Return a data frame with a row for each instance, or one row for a text."""

    @abstractmethod
    def _to_florence(self) -> Any:
        """Return the answer in the form of the published `post_process_generation`."""

    @abstractmethod
    def _coco_annotations(self) -> list[dict[str, Any]]:
        """Return COCO annotations without ids, with the class name in the field `label`."""

    def _repr_png_(self) -> bytes | None:
        """Return the overlay as a PNG file, which Jupyter displays for the last expression of a cell."""
        if self.image is None:
            return None
        from .visualization.overlay import to_png

        return to_png(self.image, self)


@dataclass(frozen=True, eq=False, kw_only=True)
class Text(Result):
    """A caption, an answer, a category or the text in an image.

    Attributes:
        text: the text without location tokens. `raw` contains the region that the region tasks repeat.
    """

    text: str

    def to_dataframe(self) -> pd.DataFrame:
        """Return a data frame of one row and one column, `text`."""
        import pandas as pd

        return pd.DataFrame({"text": [self.text]})

    def _to_florence(self) -> str:
        return self.raw.strip()  # the published form contains location tokens

    def _coco_annotations(self) -> list[dict[str, Any]]:
        return [{"caption": self.text}]


@dataclass(frozen=True, eq=False, kw_only=True)
class Instances(Result):
    """The base class of results with instances. It is indexed like an array.

    `len(result)` is the number of instances, iteration gives results of one instance each. An integer, a slice, a boolean
    mask or a list of integers select instances. A selection keeps `raw`.

    Attributes:
        labels: N strings as a NumPy array; "" for an instance that the model gave no label. A sequence is converted.
        scores: N float64 in 0..1, see `florence_lab.template.confidence.instance_score`; None if no probabilities are known,
            as for a ground truth.

    Raises:
        ValueError: if the fields differ in length.

    Example:
        >>> result[3], result[1:4]
        >>> result[result.scores > 0.5]
        >>> result[result.labels == "sheep"].with_labels("animal")
    """

    labels: np.ndarray
    scores: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, convert in _CONVERSIONS.items():
            if getattr(self, name, None) is not None:
                object.__setattr__(self, name, convert(name, getattr(self, name)))
        super().__post_init__()
        for name, value in self._per_instance().items():
            if len(value) != len(self.labels):
                raise ArgumentError(f"{len(self.labels)} labels, but {len(value)} {name}")

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Index) -> Self:
        """Return the selected instances.

        Raises:
            IndexError: for an index out of range, or a mask of another length.
            ArgumentTypeError: for anything else.
        """
        try:
            chosen = self._resolve_index(index)
        except IndexError:
            raise IndexError(f"no instance {shorten(index)} in a result of {len(self)} instances") from None
        except (TypeError, ValueError):
            raise ArgumentTypeError(
                f"index must be an integer, a slice, a mask or a list of integers, got {shorten(index)}"
            ) from None
        picked: dict[str, Any] = {
            name: value[chosen] if isinstance(value, np.ndarray) else tuple(value[i] for i in chosen)
            for name, value in self._per_instance().items()
        }
        return replace(self, **picked)

    @validate_arguments
    def with_labels(self, labels: str | Sequence[str] | Mapping[str, str]) -> Self:
        """Return the result with other labels. It has no `class_ids` any more, which number the old ones.

        Args:
            labels: one label for all instances, N labels, or a mapping from old to new ones; a label that it lacks stays.

        Raises:
            ValueError: for another number of labels than of instances.
        """
        if isinstance(labels, Mapping):
            labels = [labels.get(label, label) for label in self.labels.tolist()]
        elif isinstance(labels, str):
            labels = [labels] * len(self)
        if len(labels) != len(self):
            raise ArgumentError(f"expected {len(self)} labels, one for each instance, but got {len(labels)}")
        numbering: dict[str, Any] = {"class_ids": None, "classes": ()} if isinstance(self, Boxes) else {}
        return replace(self, labels=_to_labels("labels", labels), **numbering)

    @property
    @abstractmethod
    def xyxy(self) -> np.ndarray:
        """N x 4 float64: the bounding box (x0, y0, x1, y1) of each instance in pixels."""

    @property
    @abstractmethod
    def contours(self) -> tuple[tuple[Polygon, ...], ...]:
        """The outlines of each instance, K x 2 pixels each; () for an instance that is a box only."""

    @property
    def class_names(self) -> np.ndarray:
        """N strings: the labels, with empty labels replaced by the phrase of the prompt."""
        task = TASKS.get(self.task)
        phrase = self.phrase if task is not None and task.input in ("phrase", "any") else ""
        return np.array([label or phrase for label in self.labels.tolist()], dtype=str)

    @validate_arguments
    def to_supervision(self, classes: Sequence[str] | None = None) -> Detections:
        """Return `supervision.Detections` with `xyxy`, `confidence`, `class_id`, `data["class_name"]`, and masks of polygons.

        Args:
            classes: names of the classes with the ids 0, 1, …; by default the ids are `class_ids`, or else number the labels of
                this result. Pass them to give the same ids to the results of different images.

        Raises:
            ValueError: if a label is not in `classes`.

        Example:
            >>> detections = result.to_supervision(classes=["sheep", "tree"])
            >>> sv.BoxAnnotator().annotate(image, detections)
        """
        sv = import_supervision()
        if not len(self):
            return sv.Detections.empty()
        ids = _class_ids([self], classes)
        return sv.Detections(
            xyxy=self.xyxy.astype(np.float32),
            mask=np.stack([polygons_to_mask(c, self.image_size) for c in self.contours])
            if all(self.contours)
            else None,
            confidence=None if self.scores is None else self.scores.astype(np.float32),
            class_id=np.array([ids[name] for name in self.class_names.tolist()]),
            data={"class_name": self.class_names},
        )

    def to_dataframe(self) -> pd.DataFrame:
        """Return a data frame with a row for each instance.

        Its columns are `label`, `class_id` and `score` (if known), `x0`, `y0`, `x1` and `y1` in pixels.
        """
        import pandas as pd

        # a typed column, also if there are no instances
        columns: dict[str, Any] = {"label": pd.Series(self.class_names.tolist(), dtype=str)}
        values = self._per_instance()
        columns |= {name: values[f"{name}s"] for name in ("class_id", "score") if f"{name}s" in values}
        return pd.DataFrame(columns | dict(zip(("x0", "y0", "x1", "y1"), self.xyxy.T, strict=True)))

    def _per_instance(self) -> dict[str, Any]:
        """Return the fields that have one value for each instance."""
        values = {name: getattr(self, name, None) for name in _INSTANCE_FIELDS}
        if isinstance(self, Boxes) and not self.polygons:
            del values["polygons"]  # they are optional
        return {name: value for name, value in values.items() if value is not None}

    def _resolve_index(self, index: Index) -> np.ndarray:
        """Return the indices of the selected instances."""
        if isinstance(index, slice):
            return np.arange(len(self))[index]
        if not isinstance(index, (Sequence, np.ndarray)):
            index = [operator.index(index)]
        if isinstance(index, Sequence) and not len(index):
            index = np.zeros(0, int)  # NumPy would make an array of floats
        return np.arange(len(self))[np.atleast_1d(index)]

    def _with_scores(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer if self.scores is None else answer | {"scores": self.scores.tolist()}

    def _coco_annotations(self) -> list[dict[str, Any]]:
        rows = []
        for i, (label, box, polygons) in enumerate(
            zip(self.class_names.tolist(), self.xyxy, self.contours, strict=True)
        ):
            x0, y0, x1, y1 = box.tolist()
            row = {
                "label": label,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": float(sum(map(polygon_area, polygons))) if polygons else (x1 - x0) * (y1 - y0),
                "segmentation": [polygon.ravel().tolist() for polygon in polygons],
                "iscrowd": 0,
            }
            rows.append(row if self.scores is None else row | {"score": float(self.scores[i])})
        return rows


@dataclass(frozen=True, eq=False, kw_only=True)
class Boxes(Instances):
    """Bounding boxes.

    Attributes:
        boxes: N x 4 float64, (x0, y0, x1, y1) in pixels.
        polygons: the polygons of each instance, () for an instance that is a box only. Empty unless
            `<OPEN_VOCABULARY_DETECTION>` answers with polygons; the box is then their extent.
        class_ids: N int64, the index of the class of each instance in `classes`; None unless `Predictor.detect` was asked for
            classes. Conversions use them: `class_id` of supervision, and the category ids of COCO, which are larger by 1.
        classes: the names of all classes that were asked for, also of those that were not found; else empty.
        found_by: N strings: the strategy of `Predictor.detect` that gave each box, such as "regions"; None for other results.
    """

    boxes: np.ndarray
    polygons: tuple[tuple[Polygon, ...], ...] = ()
    class_ids: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    found_by: np.ndarray | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes and self.class_ids is not None and (self.class_ids >= len(self.classes)).any():
            raise ArgumentError(f"class_ids must be less than the number of classes, got {shorten(self.class_ids)}")

    @property
    def xyxy(self) -> np.ndarray:
        """N x 4 float64: the boxes."""
        return self.boxes

    @property
    def contours(self) -> tuple[tuple[Polygon, ...], ...]:
        """The polygons of each instance, () for an instance that is a box only."""
        return self.polygons or ((),) * len(self)

    def _to_florence(self) -> dict[str, Any]:
        task = TASKS.get(self.task)
        if task is None or task.result != "boxes_or_polygons":
            answer = self._with_scores({"bboxes": self.boxes.tolist(), "labels": self.labels.tolist()})
            return answer if self.class_ids is None else answer | {"class_ids": self.class_ids.tolist()}
        has_polygons = np.array([len(polygons) > 0 for polygons in self.contours], bool)
        boxes, outlined = self[~has_polygons], self[has_polygons]
        answer = {
            "bboxes": boxes.boxes.tolist(),
            "bboxes_labels": boxes.labels.tolist(),
            "polygons": [[p.ravel().tolist() for p in polygons] for polygons in outlined.polygons],
            "polygons_labels": outlined.labels.tolist(),
        }
        if boxes.scores is not None and outlined.scores is not None:
            answer |= {"scores": boxes.scores.tolist(), "polygons_scores": outlined.scores.tolist()}
        return answer


@dataclass(frozen=True, eq=False, kw_only=True)
class Quads(Instances):
    """Text with its quad boxes.

    Attributes:
        quads: N x 4 x 2 float64: the corners (x, y) in pixels, clockwise from the top left of the text.
    """

    quads: np.ndarray

    @property
    def xyxy(self) -> np.ndarray:
        """N x 4 float64: the upright box around each quad box."""
        return np.concatenate([self.quads.min(axis=1), self.quads.max(axis=1)], axis=1)

    @property
    def contours(self) -> tuple[tuple[Polygon, ...], ...]:
        """The quad box of each instance, 4 x 2 pixels."""
        return tuple((quad,) for quad in self.quads)

    def _to_florence(self) -> dict[str, Any]:
        return self._with_scores({"quad_boxes": self.quads.reshape(-1, 8).tolist(), "labels": self.labels.tolist()})


@dataclass(frozen=True, eq=False, kw_only=True)
class Polygons(Instances):
    """Segmentation polygons.

    Attributes:
        polygons: one or more polygons for each instance, K x 2 float64 pixels each. An object that is partly occluded may
            consist of several.
    """

    polygons: tuple[tuple[Polygon, ...], ...]

    @property
    def xyxy(self) -> np.ndarray:
        """N x 4 float64: the box around the polygons of each instance."""
        return np.array([polygons_to_xyxy(polygons) for polygons in self.polygons]).reshape(-1, 4)

    @property
    def contours(self) -> tuple[tuple[Polygon, ...], ...]:
        """The polygons of each instance."""
        return self.polygons

    @cached_property
    def masks(self) -> np.ndarray:
        """N x H x W bool: True for pixels whose center lies inside a polygon."""
        width, height = self.image_size
        masks = [polygons_to_mask(polygons, self.image_size) for polygons in self.polygons]
        return np.stack(masks) if masks else np.zeros((0, height, width), bool)

    def _to_florence(self) -> dict[str, Any]:
        flat = [[p.ravel().tolist() for p in polygons] for polygons in self.polygons]
        return self._with_scores({"polygons": flat, "labels": self.labels.tolist()})


@validate_arguments
def to_coco(
    results: Sequence[Result],
    file_names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    first_image_id: int = 1,
) -> dict[str, list]:
    """Return one COCO dataset of many results: `images`, `annotations` (with `score` if known), `categories`.

    Args:
        results: one for each image.
        file_names: file names of the images; empty by default.
        classes: names of the categories with the ids 1, 2, …; by default those of `Boxes.classes` if all results were asked
            for the same, or else the labels of all results, in the order of their first occurrence.
        first_image_id: id of the first image; the following ones count up.

    Raises:
        ValueError: if a label is not in `classes`, or for another number of file names than of results.

    Example:
        >>> Path("coco.json").write_text(json.dumps(to_coco(results, file_names)))
    """
    if file_names is not None and len(file_names) != len(results):
        raise ArgumentError(f"{len(results)} results, but {len(file_names)} file names")
    ids = {name: i + 1 for name, i in _class_ids(results, classes).items()}
    dataset: dict[str, list] = {"images": [], "annotations": [], "categories": []}
    for i, result in enumerate(results):
        image_id, (width, height) = first_image_id + i, result.image_size
        file_name = file_names[i] if file_names is not None else ""
        dataset["images"].append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for annotation in result._coco_annotations():
            annotation |= {"id": len(dataset["annotations"]) + 1, "image_id": image_id}
            if "label" in annotation:
                annotation["category_id"] = ids[annotation.pop("label")]
            dataset["annotations"].append(annotation)
    dataset["categories"] = [{"id": i, "name": name} for name, i in ids.items()]
    return dataset


def _class_ids(results: Sequence[Result], classes: Sequence[str] | None) -> dict[str, int]:
    """Return the index of each class name: in `classes`, as `class_ids` number it, or in the order of first occurrence."""
    names = dict.fromkeys(name for r in results if isinstance(r, Instances) for name in r.class_names.tolist())
    if classes is None and (numbered := _numbered_classes(results)):
        return numbered
    if classes is None:
        return {name: i for i, name in enumerate(names)}
    ids = {name: i for i, name in enumerate(classes)}
    if unknown := [name for name in names if name not in ids]:
        raise ArgumentError(
            f"labels that are not in classes: {', '.join(map(repr, unknown[:5]))}; select the others with "
            "result[np.isin(result.labels, classes)], or rename them with result.with_labels(…)"
        )
    return ids


def _numbered_classes(results: Sequence[Result]) -> dict[str, int]:
    """Return class name -> id as the `class_ids` of all results number them; empty if some have none, or if they differ."""
    ids: dict[str, int] = {}
    for result in (result for result in results if isinstance(result, Instances)):
        if not isinstance(result, Boxes) or result.class_ids is None:
            return {}
        pairs = [*zip(result.classes, range(len(result.classes)), strict=True)]
        pairs += zip(result.class_names.tolist(), result.class_ids.tolist(), strict=True)
        if any(ids.setdefault(name, i) != i for name, i in pairs):
            return {}
    is_unique = len(set(ids.values())) == len(ids)
    return dict(sorted(ids.items(), key=operator.itemgetter(1))) if is_unique else {}


def _to_labels(name: str, value: Any) -> np.ndarray:
    return np.array(validate_value(name, value, Sequence[str]), dtype=str)


def _to_scores(name: str, value: Any) -> np.ndarray:
    scores = to_coordinates(name, value, ())
    if len(scores) and not (scores.min() >= 0 and scores.max() <= 1 + 1e-6):  # float32 may exceed 1 by rounding
        raise ArgumentError(f"{name} must be 0 to 1, got {shorten(value)}")
    return scores


def _to_class_ids(name: str, value: Any) -> np.ndarray:
    return np.array(validate_value(name, value, Sequence[Annotated[int, Range(0)]]), dtype=np.int64)


_INSTANCE_FIELDS = ("labels", "scores", "class_ids", "found_by", "boxes", "quads", "polygons")
"""The fields that have one value for each instance."""

_CONVERSIONS: dict[str, Callable[[str, Any], Any]] = {
    "labels": _to_labels,
    "found_by": _to_labels,
    "scores": _to_scores,
    "class_ids": _to_class_ids,
    "boxes": lambda name, value: to_coordinates(name, value, (4,)),
    "quads": lambda name, value: to_coordinates(name, value, (4, 2)),
    "polygons": to_polygons,
}
"""Field of a result with instances -> a function that validates and converts its value."""
