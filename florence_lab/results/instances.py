"""`Instances`, the base class of results with instances, which are indexed like an array."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..argument_validation import validate_arguments
from ..exceptions import ArgumentError, ArgumentTypeError, shorten
from ..geometry import Polygon, polygon_area, polygons_to_mask
from ..sources import import_supervision
from ..tasks import TASKS
from .base import Result
from .fields import CONVERSIONS, INSTANCE_FIELDS, to_labels
from .numbering import number_classes

if TYPE_CHECKING:
    import pandas as pd
    from typing_extensions import Self

if not TYPE_CHECKING:
    # pdoc executes the block above, and importing supervision without OpenCV issues a warning
    Detections = Any
else:
    from supervision import Detections

Index = int | slice | Sequence[int] | Sequence[bool] | np.ndarray
"""Selects instances: an integer, a slice, a boolean mask or a list of integers."""


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
        for name, convert in CONVERSIONS.items():
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
        return replace(self, labels=to_labels("labels", labels), **self._without_numbers())

    def _without_numbers(self) -> dict[str, Any]:
        """Return the values of the fields that number the labels, for a result with other labels."""
        return {}

    def class_numbers(self) -> Mapping[str, int] | None:
        """Return None: the classes have no numbers of their own."""
        return None

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
        ids = number_classes([self], classes)
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
        values = {name: getattr(self, name, None) for name in INSTANCE_FIELDS}
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

    def coco_annotations(self) -> list[dict[str, Any]]:
        """Return an annotation for each instance."""
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
