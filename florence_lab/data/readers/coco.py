"""COCO annotation files."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...exceptions import DatasetError, warn
from ...tasks import TASKS, Task, get_task
from ..rows import AnnotatedRow, Annotation, RowError
from ..spec import DatasetSpec
from .files import read_json

_SECTIONS = ("images", "annotations", "categories")


class CocoReader:
    """Rows for tasks that the annotations of a COCO file answer, such as `<OD>`: those with a `Task.coco_label`.

    A task about the whole image has a row for each image, a task about a region has one for each annotation. Crowd regions
    (`iscrowd`) cover several objects at once and are skipped.
    """

    options: ClassVar[Mapping[str, str]] = {
        "tasks": "task tokens, separated by commas (default: OD)",
        "images": "folder of the images (default: the folder of the file)",
    }

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec
        self.path = Path(spec.location).expanduser()
        self.folder = Path(spec.options.get("images", self.path.parent)).expanduser()

    def check(self) -> None:
        """Read the file and verify its sections and the tasks. Warn of images without annotations."""
        _ = self.tasks, self._rows

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks of the rows.

        Raises:
            DatasetError: for a task that is unknown or that the annotations do not answer.
        """
        try:
            tasks = tuple(get_task(name) for name in self.spec.options.get("tasks", "OD").split(","))
        except ValueError as error:
            raise DatasetError(f"{self.spec.name}: {error}") from None
        for task in tasks:
            if not _is_supported(task):
                supported = ", ".join(token for token, known in TASKS.items() if _is_supported(known))
                raise DatasetError(
                    f"{self.spec.name}: COCO files have no answers for {task.name}; supported: {supported}"
                )
        return tasks

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> AnnotatedRow | RowError:
        row = self._rows[index]
        return row if isinstance(row, RowError) else row()

    @cached_property
    def _rows(self) -> list[RowError | Callable[[], AnnotatedRow]]:
        """Errors of invalid entries, and functions that build rows on demand to limit the memory for polygons."""
        index = _CocoIndex(self.path, read_json(self.path))
        rows: list[RowError | Callable[[], AnnotatedRow]] = list(index.errors)
        empty = 0
        for image, all_annotations in index:
            instances = [annotation for annotation in all_annotations if not annotation.get("iscrowd")]
            empty += not all_annotations
            for task in self.tasks if instances else ():
                for group in ROW_GROUPINGS[task.input, task.result](instances):
                    rows.append(self._make_row(index, image, group, task))
        if empty:
            warn(f"{self.path}: {empty} of {len(index.images)} images have no annotations and give no rows")
        return rows

    def _make_row(
        self, index: _CocoIndex, image: Mapping[str, Any], annotations: list[Mapping[str, Any]], task: Task
    ) -> Callable[[], AnnotatedRow]:
        """Return a function that builds a row."""

        def build() -> AnnotatedRow:
            is_region = task.input == "region"
            return AnnotatedRow(
                self.folder / image["file_name"],
                task,
                tuple(index.to_annotation(annotation, image, task) for annotation in annotations),
                index.source(image, annotations[0]) if is_region else index.source(image),
                (image["width"], image["height"]) if {"width", "height"} <= image.keys() else None,
            )

        return build


def _one_row(annotations: list[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """All objects of an image in one target, from left to right."""
    return [sorted(annotations, key=lambda annotation: annotation["bbox"][0])]


def _row_per_annotation(annotations: list[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    return [[annotation] for annotation in annotations]


ROW_GROUPINGS: dict[tuple[str, str], Callable[[list[Mapping[str, Any]]], list[list[Mapping[str, Any]]]]] = {
    ("none", "boxes"): _one_row,
    ("none", "polygons"): _one_row,
    ("region", "text"): _row_per_annotation,
    ("region", "polygons"): _row_per_annotation,
}
"""(`Task.input`, `Task.result`) -> the annotations of one image, grouped into rows."""


def _is_supported(task: Task) -> bool:
    return task.coco_label is not None and (task.input, task.result) in ROW_GROUPINGS


class _CocoIndex:
    """The valid images and annotations of a COCO file, and the errors of invalid ones. Yields (image, annotations)."""

    def __init__(self, path: Path, data: Any) -> None:
        from pycocotools.coco import COCO

        if not isinstance(data, dict) or not all(isinstance(data.get(section), list) for section in _SECTIONS):
            raise DatasetError(f"{path} is not a COCO file: it lacks a list of {', '.join(_SECTIONS)}")
        self.path = path
        self.errors: list[RowError] = []
        self.images = [image for image in data["images"] if self._is_valid(image, ("id", "file_name"), "image")]
        categories = [c for c in data["categories"] if self._is_valid(c, ("id", "name"), "category")]
        image_ids, category_ids = {image["id"] for image in self.images}, {c["id"] for c in categories}
        annotations = [a for a in data["annotations"] if self._is_valid_annotation(a, image_ids, category_ids)]
        self.coco = COCO()
        self.coco.dataset = {"images": self.images, "annotations": annotations, "categories": categories}
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            self.coco.createIndex()

    def __iter__(self) -> Iterator[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
        return ((image, self.coco.imgToAnns.get(image["id"], [])) for image in self.images)

    def source(self, image: Mapping[str, Any], annotation: Mapping[str, Any] | None = None) -> str:
        """Return the location of an image or annotation for messages: the file and the ids."""
        suffix = "" if annotation is None else f", annotation {annotation['id']}"
        return f"{self.path}, image {image['id']}{suffix}"

    def to_annotation(self, annotation: Mapping[str, Any], image: Mapping[str, Any], task: Task) -> Annotation:
        """Return an annotation with the label, and for segmentation the polygons, that a task needs."""
        x, y, width, height = map(float, annotation["bbox"])
        name = str(self.coco.cats[annotation["category_id"]]["name"])
        label = {"category": name, "caption": str(annotation.get("caption", name)), "none": ""}[
            task.coco_label or "none"
        ]
        polygons = _read_polygons(annotation.get("segmentation")) if task.result == "polygons" else ()
        return Annotation(label, np.array([x, y, x + width, y + height]), self.source(image, annotation), polygons)

    def _is_valid_annotation(self, annotation: Any, image_ids: set[Any], category_ids: set[Any]) -> bool:
        if not self._is_valid(annotation, ("id", "image_id", "category_id", "bbox"), "annotation"):
            return False
        source = f"{self.path}, image {annotation['image_id']}, annotation {annotation['id']}"
        known = {"image_id": image_ids, "category_id": category_ids}
        for key, ids in known.items():
            if annotation[key] not in ids:
                self.errors.append(RowError(source, f"unknown {key}", repr(annotation[key])))
                return False
        box = annotation["bbox"]
        is_box = isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box)
        if not is_box:
            self.errors.append(RowError(source, "invalid box", f"{box!r}; expected x, y, width, height"))
        return is_box

    def _is_valid(self, entry: Any, keys: tuple[str, ...], kind: str) -> bool:
        """Return whether an entry has some keys, with a number or text as ids, and record an error if it does not."""
        missing = [
            key
            for key in keys
            if not isinstance(entry, dict)
            or key not in entry
            or (key.endswith("id") and not isinstance(entry[key], (int, str)))
        ]
        if missing:
            id_ = entry.get("id", "without an id") if isinstance(entry, dict) else "that is not an object"
            self.errors.append(RowError(f"{self.path}, {kind} {id_}", "missing or invalid fields", ", ".join(missing)))
        return not missing


def _read_polygons(segmentation: Any) -> tuple[np.ndarray, ...]:
    """Return the outlines of a segmentation, K x 2 pixels each; () if there is none or it is malformed.

    A segmentation is a list of flat polygons, or a mask as run lengths (RLE), compressed or not.
    """
    try:
        if isinstance(segmentation, dict):
            return _trace_mask(_decode_rle(segmentation))
        return tuple(np.array(flat, float).reshape(-1, 2) for flat in segmentation or ())
    except (KeyError, TypeError, ValueError):
        return ()


def _decode_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """Return the H x W mask of run lengths."""
    from pycocotools import mask

    height, width = rle["size"]
    return mask.decode(mask.frPyObjects(rle, height, width) if isinstance(rle["counts"], list) else rle)


def _trace_mask(mask: np.ndarray, tolerance: float = 1.0) -> tuple[np.ndarray, ...]:
    """Return the outlines of a mask without its holes, simplified to `tolerance` pixels.

    Args:
        mask: H x W.
        tolerance: largest distance in pixels that the Douglas-Peucker algorithm may move an outline.

    Returns:
        The outlines of the connected parts, K x 2 pixels each.
    """
    from skimage.measure import approximate_polygon, find_contours

    # a border of zeros closes the outlines at the edge of the image; a pixel's center lies at + 0.5
    contours = find_contours(np.pad(mask.astype(float), 1), 0.5, positive_orientation="high")
    outlines = [approximate_polygon(contour, tolerance)[:-1, ::-1] - 0.5 for contour in contours]
    return tuple(outline for outline in outlines if len(outline) >= 3 and _signed_area(outline) < 0)


def _signed_area(polygon: np.ndarray) -> float:
    """Return the area by the shoelace formula; its sign tells outlines from holes."""
    x, y = polygon.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
