"""The curriculum: image size, number of objects, and task weights at each step."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import NamedTuple

from .arguments import PretrainArguments
from .config import IMAGE_SIZE


class Stage(NamedTuple):
    """A stage of the curriculum.

    Attributes:
        last_step: the stage covers the steps before this one.
        image_size: side of the images in pixels.
        max_objects: largest number of objects in a scene.
        task_weights: task token -> relative frequency. Tasks without a weight are not trained.
    """

    last_step: float
    image_size: int
    max_objects: int
    task_weights: Mapping[str, float]


# With several objects in an image, localization is not learned for thousands of steps: the first stage shows one.
LOCALIZATION_TASKS = {"<OD>": 4, "<CAPTION_TO_PHRASE_GROUNDING>": 2, "<CAPTION>": 1, "<REGION_TO_CATEGORY>": 2}

# Counting for captions and drawing outlines take the most steps to learn.
ALL_TASKS = {
    "<CAPTION>": 6,
    "<DETAILED_CAPTION>": 3.5,
    "<MORE_DETAILED_CAPTION>": 12,
    "<OD>": 2.5,
    "<DENSE_REGION_CAPTION>": 1,
    "<REGION_PROPOSAL>": 1,
    "<CAPTION_TO_PHRASE_GROUNDING>": 3,
    "<OPEN_VOCABULARY_DETECTION>": 4,
    "<REFERRING_EXPRESSION_SEGMENTATION>": 6,
    "<REGION_TO_SEGMENTATION>": 2,
    "<REGION_TO_CATEGORY>": 0.3,
    "<REGION_TO_DESCRIPTION>": 0.5,
    "<OCR>": 3,
    "<OCR_WITH_REGION>": 1.5,
    "<REGION_TO_OCR>": 0.7,
}

CURRICULUM = (
    Stage(1_080, 128, 1, LOCALIZATION_TASKS),
    Stage(2_500, 128, 3, LOCALIZATION_TASKS),
    Stage(8_600, 128, 6, ALL_TASKS),
    Stage(17_000, 192, 6, ALL_TASKS),
    Stage(math.inf, IMAGE_SIZE, 6, ALL_TASKS),
)


def stage_at(step: int, arguments: PretrainArguments) -> Stage:
    """Return the stage of a step. A run with initial weights is in the last stage throughout."""
    return CURRICULUM[-1] if arguments.init_from else next(stage for stage in CURRICULUM if step < stage.last_step)


def sample_tasks(task_weights: Mapping[str, float], count: int, rng: random.Random) -> list[str]:
    """Sample tasks by weight and without replacement; if there are fewer than `count`, they repeat.

    Weighted sampling after Efraimidis and Spirakis (2006): the largest of `random ** (1 / weight)`.
    """
    keys = {task: rng.random() ** (1 / weight) for task, weight in task_weights.items()}
    ranked = sorted(keys, key=keys.__getitem__, reverse=True)
    return [ranked[i % len(ranked)] for i in range(count)]
