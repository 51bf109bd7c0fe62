"""Target texts in Florence-2's answer grammar: the inverse of `template/parsing.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ..results import Boxes, Instances
from ..tasks import Task
from .grammar import check_tokens
from .locations import format_location_tokens
from .vocabulary import split_text


@dataclass(frozen=True, eq=False)
class Instance:
    """One instance of a training target.

    Attributes:
        label: the label; "" if the task gives none.
        box: (x0, y0, x1, y1) in pixels. Polygons and quad boxes need none.
        polygons: outlines, K x 2 pixels each. A quad box is one polygon of four corners.
    """

    label: str = ""
    box: np.ndarray | Sequence[float] | None = None
    polygons: tuple[np.ndarray, ...] = ()


def format_target(task: Task, instances: Sequence[Instance], image_size: tuple[int, int], region: str = "") -> str:
    """Write instances as the target text of a task. `parse_text` reads them back, up to half a location bin.

    The instances are written in the order given, with two exceptions: instances of a category are grouped in object
    detection, behind one label (`sheep<box><box>dog<box>`), and consecutive instances of a phrase share one label.

    Args:
        task: the task; `task.result` selects the format.
        instances: the instances; exactly one for a task that answers with text, whose label is the text.
        image_size: (width, height) in pixels.
        region: the region of the prompt as location tokens, which tasks that answer with text repeat.

    Raises:
        ValueError: if the format of the task cannot express the instances: no box or polygon, a label that contains location
            tokens or separators, or labels for some instances only.
    """
    if task.result == "text":
        if len(instances) != 1:
            raise ValueError(f"{task.name} answers with one text, but got {len(instances)} instances")
        return _check_label(instances[0].label) + region
    labels = [_check_label(instance.label) for instance in instances]
    if any(labels) and not all(labels):
        raise ValueError(f"{task.name}: either all instances have a label or none")
    format_body = _BODY_FORMATS[task.result]
    return "".join(
        label + format_body([instances[i] for i in group], image_size) for label, group in _group(task, labels)
    )


def to_instances(result: Instances) -> list[Instance]:
    """Return the instances of a result, so that `format_target` writes it as a target text."""
    boxes: Iterable[np.ndarray | None] = result.xyxy if isinstance(result, Boxes) else [None] * len(result)
    return [
        Instance(label, box, polygons)
        for label, box, polygons in zip(result.labels.tolist(), boxes, result.contours, strict=True)
    ]


def _group(task: Task, labels: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Group the indices of instances that share one label in the target."""
    if task.result == "boxes" and task.coco_label == "caption":  # equal captions of different objects are not shared
        return [(label, [i]) for i, label in enumerate(labels)]
    if task.result == "boxes":
        groups: dict[str, list[int]] = {}
        for i, label in enumerate(labels):
            groups.setdefault(label, []).append(i)
        return list(groups.items())
    if task.result == "quads":
        return [(label, [i]) for i, label in enumerate(labels)]
    return [(label, list(indices)) for label, indices in groupby(range(len(labels)), key=labels.__getitem__)]


def _check_label(label: str) -> str:
    """Return a label without surrounding spaces.

    Raises:
        ValueError: if the label contains tokens that the parser takes for something else.
    """
    label = label.strip()
    check_tokens(label)
    _, spans = split_text(label)
    if label and [span.text for span in spans] != [label]:
        raise ValueError(f"the label {label!r} contains tokens of the answer grammar, such as <loc_0> or <sep>")
    return label


def _format_boxes(instances: Sequence[Instance], image_size: tuple[int, int]) -> str:
    return "".join(_format_box(instance, image_size) for instance in instances)


def _format_box(instance: Instance, image_size: tuple[int, int]) -> str:
    if instance.box is None or np.shape(instance.box) != (4,):
        raise ValueError(f"an instance {instance.label!r} without a box (x0, y0, x1, y1): got {instance.box!r}")
    return format_location_tokens(instance.box, image_size)


def _format_quads(instances: Sequence[Instance], image_size: tuple[int, int]) -> str:
    for instance in instances:
        if len(instance.polygons) != 1 or np.shape(instance.polygons[0]) != (4, 2):
            raise ValueError(f"an instance {instance.label!r} without a quad box, one polygon of four corners")
    return "".join(format_location_tokens(instance.polygons[0], image_size) for instance in instances)


def _format_polygons(instances: Sequence[Instance], image_size: tuple[int, int]) -> str:
    """Join the polygons of an instance with `<sep>`, and the instances with `<and>`."""
    return "<and>".join(_format_contours(instance, image_size) for instance in instances)


def _format_boxes_or_polygons(instances: Sequence[Instance], image_size: tuple[int, int]) -> str:
    """Write boxes as they are, and the polygons of an instance between `<poly>` and `</poly>`."""
    return "".join(
        f"<poly>{_format_contours(i, image_size)}</poly>" if i.polygons else _format_box(i, image_size)
        for i in instances
    )


def _format_contours(instance: Instance, image_size: tuple[int, int]) -> str:
    if not instance.polygons or any(np.ndim(p) != 2 or len(p) < 3 or np.shape(p)[1] != 2 for p in instance.polygons):
        raise ValueError(f"an instance {instance.label!r} without polygons of at least three vertices (x, y)")
    return "<sep>".join(format_location_tokens(polygon, image_size) for polygon in instance.polygons)


_BODY_FORMATS: dict[str, Callable[[Sequence[Instance], tuple[int, int]], str]] = {
    "boxes": _format_boxes,
    "grounding": _format_boxes,
    "boxes_or_polygons": _format_boxes_or_polygons,
    "quads": _format_quads,
    "polygons": _format_polygons,
}
"""`Task.result` -> what follows the label of a group of instances."""
