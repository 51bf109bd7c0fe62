"""TODO"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

from .arguments import PretrainArguments
from .config import IMAGE_SIZE


class Stage(NamedTuple):
    """A part of the curriculum: up to which step, on which pictures, and how often each task is asked."""

    until: float
    image_size: int
    max_objects: int
    weights: dict[str, float]


# One thing first: with several in the picture, a place is not found for thousands of steps. Then more, then larger.
_PLACES = {"<OD>": 4, "<CAPTION_TO_PHRASE_GROUNDING>": 2, "<CAPTION>": 1, "<REGION_TO_CATEGORY>": 2}

# Counting for captions and drawing outlines are what takes longest.
_ALL = {
    "<CAPTION>": 6,
    "<DETAILED_CAPTION>": 3.5,
    "<MORE_DETAILED_CAPTION>": 12,
    "<OD>": 2.5,
    "<DENSE_REGION_CAPTION>": 1,
    "<REGION_PROPOSAL>": 1,
    "<CAPTION_TO_PHRASE_GROUNDING>": 1.5,
    "<OPEN_VOCABULARY_DETECTION>": 1,
    "<REFERRING_EXPRESSION_SEGMENTATION>": 5,
    "<REGION_TO_SEGMENTATION>": 2,
    "<REGION_TO_CATEGORY>": 0.3,
    "<REGION_TO_DESCRIPTION>": 0.5,
    "<OCR>": 3,
    "<OCR_WITH_REGION>": 1.5,
    "<REGION_TO_OCR>": 0.5,
}

CURRICULUM = (
    Stage(1_080, 128, 1, _PLACES),
    Stage(2_500, 128, 3, _PLACES),
    Stage(8_600, 128, 6, _ALL),
    Stage(17_000, 192, 6, _ALL),
    Stage(math.inf, IMAGE_SIZE, 6, _ALL),
)


def stage_of(step: int, arguments: PretrainArguments) -> Stage:
    """The stage of the curriculum to which a step belongs; who starts with weights is in the last one."""
    return CURRICULUM[-1] if arguments.init_from else next(stage for stage in CURRICULUM if step < stage.until)


def _pick_tasks(weights: dict[str, float], arguments: PretrainArguments, dice: random.Random) -> list[str]:
    """As many tasks as are asked per picture: different ones as long as there are enough, the heavier the likelier."""
    keys = {task: dice.random() ** (1 / weight) for task, weight in weights.items()}
    ranked = sorted(keys, key=keys.get, reverse=True)
    return [ranked[i % len(ranked)] for i in range(arguments.tasks_per_image)]
