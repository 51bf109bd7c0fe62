"""Labels of images as values, and as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..geometry import Polygon
from ..tasks import get_task


@dataclass(frozen=True)
class LabelledObject:
    """An object of an image.

    Attributes:
        class_id: the index of its class in the ontology.
        label: the name of the class.
        box: (x0, y0, x1, y1) in pixels.
        score: 0..1; the verified score unless verification is off.
        found_by: the strategy of detection that gave the box, see `detection.strategies.STRATEGIES`.
        polygons: its outlines, x and y of each vertex in turn; () for a box only.
        attributes: token of a task about a region -> its answer about the box.
    """

    class_id: int
    label: str
    box: tuple[float, float, float, float]
    score: float
    found_by: str
    polygons: tuple[tuple[float, ...], ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelledAnswer:
    """The answer to a further question about an image, such as its caption.

    Attributes:
        response: the generated text in Florence-2's answer grammar, as fine-tuning reads it.
        content: the text of a caption; for a task with instances, what `Result.to_dict` gives.
    """

    response: str
    content: Any


@dataclass(frozen=True)
class LabelledImage:
    """The labels of an image.

    Attributes:
        key: identifies the image among all images: its path, or that of the file which contains it and its place there.
        name: the path relative to the folder that was labelled, with `/`.
        source: the path or URL of the file that the image is, or is in.
        signature: size and time of that file; "" for a URL.
        stored: the name of the copy of an image that is no file itself, relative to the folder of stored images; else "".
        size: (width, height) in pixels of the upright image; (0, 0) if it cannot be read.
        objects: the objects, in descending order of scores.
        answers: task token -> answer to a further question.
        error: why there are no labels; "" if there are.
    """

    key: str
    name: str
    source: str
    signature: str = ""
    stored: str = ""
    size: tuple[int, int] = (0, 0)
    objects: tuple[LabelledObject, ...] = ()
    answers: Mapping[str, LabelledAnswer] = field(default_factory=dict)
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the labels as a dictionary of JSON values."""
        row = vars(self) | {
            "objects": [vars(item) for item in self.objects],
            "answers": {task: vars(answer) for task, answer in self.answers.items()},
        }
        return {name: value for name, value in row.items() if value or name in ("key", "size", "objects")}

    def to_line(self) -> str:
        """Return the labels as a line of JSON."""
        return json.dumps(self.to_json()) + "\n"  # ASCII: names of files may be no valid Unicode

    @classmethod
    def from_line(cls, line: str | bytes) -> LabelledImage:
        """Return the labels of a line that `to_line` gave.

        Raises:
            ValueError, KeyError, TypeError: for any other line.
        """
        row = json.loads(line)
        row["size"] = tuple(row["size"])
        row["objects"] = tuple(read_object(item) for item in row["objects"])
        row["answers"] = {task: LabelledAnswer(**answer) for task, answer in row.get("answers", {}).items()}
        return cls(**row)


def asks_about_objects(task: str) -> bool:
    """Return whether a task takes a region, so that it is asked about each object instead of about the image."""
    return get_task(task).input == "region"


def round_polygon(polygon: Polygon) -> tuple[float, ...]:
    """Return the coordinates of a K x 2 polygon as x, y, x, y …, rounded to 0.001 px."""
    return tuple(round(value, 3) for value in polygon.ravel().tolist())


def read_object(item: Mapping[str, Any]) -> LabelledObject:
    """Return the object whose `vars` were read from JSON.

    Raises:
        KeyError, TypeError: for anything else.
    """
    polygons = tuple(tuple(polygon) for polygon in item["polygons"])
    return LabelledObject(**({**item} | {"box": tuple(item["box"]), "polygons": polygons}))
