"""TODO"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from ...exceptions import DatasetError
from ...tasks import get_task
from ...template.locations import format_location_tokens
from ..rows import Record, _Bad
from ..validation import _box_tokens
from .files import _json_of


def _read_coco(place: str, options: dict[str, str]) -> Iterator[Record | str]:
    path = Path(place).expanduser()
    data = _json_of(path)
    if not isinstance(data, dict) or not {"images", "annotations", "categories"} <= data.keys():
        raise DatasetError(f"{path} is no COCO file: it has no images, annotations and categories")
    folder = Path(options.get("images", path.parent)).expanduser()
    tasks = [get_task(name).token for name in options.get("tasks", "OD").split(",")]
    unknown = [task for task in tasks if task not in COCO_TASKS]
    if unknown:
        raise DatasetError(f"a COCO file has no answers to {', '.join(unknown)}; it has to {', '.join(COCO_TASKS)}")
    names = {category["id"]: category["name"] for category in data["categories"]}
    of_image = defaultdict(list)
    for annotation in data["annotations"]:
        of_image[annotation["image_id"]].append(annotation | {"name": names[annotation["category_id"]]})
    for picture in data["images"]:
        size = picture["width"], picture["height"]
        things = of_image[picture["id"]]
        for task in tasks if things else ():
            try:
                rows = list(COCO_TASKS[task](things, size))
            except _Bad as bad:
                rows = [str(bad)]
            for row in rows:
                yield row if isinstance(row, str) else Record(folder / picture["file_name"], task + row[0], row[1])


def _coco_box(thing: dict, size: tuple[int, int]) -> str:
    x, y, width, height = thing["bbox"]
    return _box_tokens(np.array([x, y, x + width, y + height]), size)


def _coco_detection(things: list[dict], size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    by_name = defaultdict(str)
    for thing in sorted(things, key=lambda thing: thing["bbox"][0]):
        by_name[thing["name"]] += _coco_box(thing, size)
    yield "", "".join(name + boxes for name, boxes in by_name.items())


def _coco_dense(things: list[dict], size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    ordered = sorted(things, key=lambda thing: thing["bbox"][0])
    yield "", "".join(str(thing.get("caption", thing["name"])) + _coco_box(thing, size) for thing in ordered)


def _coco_category(things: list[dict], size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    for thing in things:
        yield (box := _coco_box(thing, size)), thing["name"] + box


def _coco_description(things: list[dict], size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    for thing in things:
        yield (box := _coco_box(thing, size)), str(thing.get("caption", thing["name"])) + box


def _coco_outline(things: list[dict], size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    for thing in things:
        if isinstance(thing.get("segmentation"), list) and thing["segmentation"]:  # run lengths have no outline
            outlines = (np.array(outline).reshape(-1, 2) for outline in thing["segmentation"])
            yield _coco_box(thing, size), "<sep>".join(format_location_tokens(outline, size) for outline in outlines)


COCO_TASKS: dict[str, Callable[[list[dict], tuple[int, int]], Iterable[tuple[str, str]]]] = {
    "<OD>": _coco_detection,
    "<DENSE_REGION_CAPTION>": _coco_dense,
    "<REGION_TO_CATEGORY>": _coco_category,
    "<REGION_TO_DESCRIPTION>": _coco_description,
    "<REGION_TO_SEGMENTATION>": _coco_outline,
}
"""Task -> (input, answer) pairs from the annotations of one picture."""
