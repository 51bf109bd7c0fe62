"""The kinds of instances: boxes, quad boxes and polygons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..exceptions import ArgumentError, shorten
from ..geometry import Polygon, polygons_to_mask, polygons_to_xyxy
from ..tasks import TASKS
from .instances import Instances

if TYPE_CHECKING:
    from PIL import Image  # noqa: F401 - the type of an inherited field, which pdoc looks up in this module


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

    def class_numbers(self) -> Mapping[str, int] | None:
        """Return class name -> id as `class_ids` and `classes` give them; None without, and for a name with two ids."""
        if self.class_ids is None:
            return None
        numbers: dict[str, int] = {}
        pairs = [*zip(self.classes, range(len(self.classes)), strict=True)]
        pairs += zip(self.class_names.tolist(), self.class_ids.tolist(), strict=True)
        return numbers if all(numbers.setdefault(name, i) == i for name, i in pairs) else None

    def _without_numbers(self) -> dict[str, Any]:
        return {"class_ids": None, "classes": ()}

    def _per_instance(self) -> dict[str, Any]:
        values = super()._per_instance()
        if not self.polygons:
            del values["polygons"]  # they are optional
        return values

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
