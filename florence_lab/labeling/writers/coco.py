"""COCO annotation files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...geometry import polygon_area
from ..records import LabelledObject
from .base import Entry, Writer, answers_as_columns, column_name, to_xywh

FILE_NAME = "_annotations.coco.json"
"""The file of a split, in the folder of its images. The name is Roboflow's."""


class CocoWriter(Writer):
    """`SPLIT/_annotations.coco.json` beside the images.

    The ids of images and annotations are unique over all splits. The id of a category is its class id + 1, in each file the same,
    and all classes are listed. Annotations have `score`, `found_by` and `review` besides the fields of COCO.
    """

    @classmethod
    def top_level(cls, splits: Sequence[str]) -> tuple[str, ...]:
        """Return the names in the folder."""
        return tuple(splits)

    def start(self) -> None:
        """Create the folders and files."""
        self._num_annotations = 0
        self._images: dict[str, _JsonList] = {}
        self._annotations: dict[str, _JsonList] = {}
        for split in self.splits:
            (self.folder / split).mkdir(parents=True)
            self._images[split] = _JsonList(self.folder / split / "images.part")
            self._annotations[split] = _JsonList(self.folder / split / "annotations.part")

    def add(self, entry: Entry) -> str:
        """Write the image and its annotations."""
        width, height = entry.image.size
        image = {"id": entry.number, "file_name": entry.name, "width": width, "height": height}
        self._images[entry.split].append(image | answers_as_columns(entry, self.tasks))
        for item, review in zip(entry.image.objects, entry.review, strict=True):
            self._num_annotations += 1
            ids = {"id": self._num_annotations, "image_id": entry.number, "category_id": item.class_id + 1}
            self._annotations[entry.split].append(ids | _to_annotation(item, review))
        return self.place_image(entry, f"{entry.split}/{entry.name}")

    def close(self) -> None:
        """Put the sections together."""
        categories = [{"id": i, "name": name} for i, name in enumerate(self.ontology.names, start=1)]
        for split in self.splits:
            with (self.folder / split / FILE_NAME).open("w", encoding="utf-8") as file:
                file.write('{"info": {"description": "labelled by florence_lab"},\n"licenses": [],\n')
                file.write(f'"categories": {json.dumps(categories)},\n"images": ')
                self._images[split].move_to(file)
                file.write(',\n"annotations": ')
                self._annotations[split].move_to(file)
                file.write("}\n")


class _JsonList:
    """A JSON list in a file, to which items are appended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w", encoding="utf-8")
        self._separator = "["

    def append(self, item: dict[str, Any]) -> None:
        self._file.write(f"{self._separator}{json.dumps(item)}")
        self._separator = ",\n"

    def move_to(self, file: Any) -> None:
        """Write the list to a file, and delete its own."""
        self._file.write("]" if self._separator != "[" else "[]")
        self._file.close()
        with self.path.open(encoding="utf-8") as own:
            while chunk := own.read(2**20):
                file.write(chunk)
        self.path.unlink()


def _to_annotation(item: LabelledObject, review: bool) -> dict[str, Any]:
    import numpy as np

    x, y, width, height = to_xywh(item)
    area = sum(polygon_area(np.array(polygon).reshape(-1, 2)) for polygon in item.polygons)
    return {
        "bbox": [x, y, width, height],
        "area": round(float(area or width * height), 3),
        "segmentation": [list(polygon) for polygon in item.polygons],
        "iscrowd": 0,
        "score": item.score,
        "found_by": item.found_by,
        "review": review,
        **{column_name(task): text for task, text in item.attributes.items()},
    }
