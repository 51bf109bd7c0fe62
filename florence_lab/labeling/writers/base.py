"""`Writer`: what a format of labelled datasets implements."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...detection.ontology import Ontology
from ..records import LabelledImage, LabelledObject, asks_about_objects


@dataclass(frozen=True)
class Entry:
    """An image of a dataset, as it is handed to a writer.

    Attributes:
        image: its labels.
        number: its place among all images of the dataset, from 1; the id of the image where a format has one.
        split: the split that it belongs to.
        name: the name of its file in the dataset. No two images have names that differ by the extension only.
        path: the file that is copied.
        review: for each object, whether somebody should look at it.
    """

    image: LabelledImage
    number: int
    split: str
    name: str
    path: Path
    review: tuple[bool, ...]


class Writer(ABC):
    """Writes a dataset one image at a time.

    Args:
        folder: an empty folder.
        ontology: the classes, whose order gives the class ids.
        splits: the names of all splits.
        has_masks: whether the objects have outlines.
        tasks: tokens of further tasks.
    """

    def __init__(
        self, folder: Path, ontology: Ontology, splits: Sequence[str], has_masks: bool, tasks: Sequence[str] = ()
    ) -> None:
        self.folder, self.ontology, self.splits = folder, ontology, tuple(splits)
        self.has_masks, self.tasks = has_masks, tuple(tasks)
        self.start()

    @classmethod
    @abstractmethod
    def top_level(cls, splits: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the files and folders that are written directly into the folder."""

    @abstractmethod
    def start(self) -> None:
        """Create the folders, also those of splits without an image."""

    @abstractmethod
    def add(self, entry: Entry) -> str:
        """Write an image with its labels.

        Returns:
            The path of its file relative to the folder; of the original if the format contains the image itself.
        """

    @abstractmethod
    def close(self) -> None:
        """Write what is known at the end only."""

    def place_image(self, entry: Entry, relative: str) -> str:
        """Link or copy the file of an image into the folder, and return the relative path."""
        target = self.folder / relative
        try:
            os.link(os.path.realpath(entry.path), target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(entry.path, target)
        return relative


def objects_as_columns(entry: Entry, has_masks: bool, tasks: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Return the objects as an object of lists, as `datasets` has them, with COCO boxes (x, y, width, height).

    The answers to tasks about regions are lists of texts, such as `region_to_description_text`.
    """
    items = entry.image.objects
    columns: dict[str, list[Any]] = {
        "bbox": [to_xywh(item) for item in items],
        "categories": [item.label for item in items],
        "category_id": [item.class_id for item in items],
        "score": [item.score for item in items],
        "found_by": [item.found_by for item in items],
        "review": list(entry.review),
    }
    for task in filter(asks_about_objects, tasks):
        columns[column_name(task)] = [item.attributes.get(task, "") for item in items]
    return columns | ({"segmentation": [list(map(list, item.polygons)) for item in items]} if has_masks else {})


def answers_as_columns(entry: Entry, tasks: Sequence[str]) -> dict[str, str]:
    """Return the texts of the answers to further tasks about the image: `caption_text` for `<CAPTION>`.

    A column called `caption` would be taken for the answer that a row is about.
    """
    answers = entry.image.answers
    about_image = (task for task in tasks if not asks_about_objects(task))
    return {column_name(task): _to_text(answers[task].content) if task in answers else "" for task in about_image}


def column_name(task: str) -> str:
    """Return the name of the column with the answers to a task."""
    return f"{task.strip('<>').lower()}_text"


def to_xywh(item: LabelledObject) -> list[float]:
    """Return the box of an object as x, y, width, height."""
    x0, y0, x1, y1 = item.box
    return [x0, y0, round(x1 - x0, 3), round(y1 - y0, 3)]


def _to_text(content: Any) -> str:
    """The text of an answer; of one with instances, their labels, one a line."""
    return content if isinstance(content, str) else "\n".join(content.get("labels", []))
