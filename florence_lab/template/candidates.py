"""Candidate answers of a prompt, as a caller gives them, and their text in Florence-2's answer grammar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..argument_validation import validate_text
from ..exceptions import ArgumentError, ArgumentTypeError, shorten
from ..results import Instances
from ..tasks import Task
from .grammar import requires_label, validate_target
from .locations import Region, RegionFormat
from .prompts import Prompt, region_to_pixels
from .targets import Instance, format_target, to_instances

Candidate = str | Region | Sequence[Region] | Instances
"""A text, a box of four numbers, several boxes, or a result with instances such as `Boxes`."""

_BOX_RESULTS = ("boxes", "grounding", "boxes_or_polygons")


def format_candidate(
    candidate: Candidate, prompt: Prompt, image_size: tuple[int, int], region_format: RegionFormat = "xyxy"
) -> str:
    """Return a candidate answer as the text that the model would generate.

    The text of a task about a region comes without the region, which models repeat behind it or not.

    Args:
        candidate: a text, which for a task that answers with instances is in the answer grammar (`"sheep<loc_10>…"`); for such
            a task also a result with instances, or one or several boxes, whose label is the phrase of the prompt.
            "" is the answer that there is nothing.
        prompt: the prompt that it answers.
        image_size: (width, height) in pixels.
        region_format: the units of boxes, see `REGION_FORMATS`.

    Raises:
        ArgumentError: if the task cannot give this answer.
        PromptError: for a box that is not in the image.
    """
    task = prompt.task
    if isinstance(candidate, str):
        text = validate_target(validate_text("a candidate", candidate), prompt)
        return text.removesuffix(prompt.text) if ends_with_region(task) else text
    if task.result == "text":
        raise ArgumentTypeError(
            f"{task.name} answers with text, so each candidate is a string; got {shorten(candidate)}"
        )
    instances = (
        to_instances(candidate)
        if isinstance(candidate, Instances)
        else _to_instances(candidate, prompt, image_size, region_format)
    )
    try:
        return validate_target(format_target(task, instances, image_size), prompt)
    except ValueError as error:
        raise ArgumentError(f"{shorten(candidate)} cannot be written as an answer: {error}") from error


def ends_with_region(task: Task) -> bool:
    """Return whether models may repeat the region of the prompt behind the text of an answer."""
    return task.input == "region" and task.result == "text"


def _to_instances(
    candidate: Any, prompt: Prompt, image_size: tuple[int, int], region_format: RegionFormat
) -> list[Instance]:
    """One instance for each box, labelled with the phrase of the prompt."""
    task = prompt.task
    if task.result not in _BOX_RESULTS or (requires_label(task) and task.input != "phrase"):
        kind = {"quads": "Quads", "polygons": "Polygons"}.get(task.result, "Boxes with labels")
        raise ArgumentTypeError(
            f"each candidate of {task.name} is a text such as the model generates, or a result ({kind}); got "
            f"{shorten(candidate)}"
        )
    label = prompt.text if task.input == "phrase" else ""
    return [
        Instance(label, region_to_pixels(task, box, image_size, region_format)) for box in _to_boxes(task, candidate)
    ]


def _to_boxes(task: Task, candidate: Any) -> list[list[float]]:
    if hasattr(candidate, "detach"):
        candidate = candidate.detach().cpu()
    try:
        boxes = np.asarray(candidate, np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        boxes = np.empty(0)
    if boxes.ndim not in (1, 2) or boxes.shape[-1] != 4:
        raise ArgumentTypeError(
            f"each candidate of {task.name} is a text, a box of four numbers or a list of boxes; got {shorten(candidate)}"
        )
    rows: list[list[float]] = boxes.reshape(-1, 4).tolist()
    return rows
