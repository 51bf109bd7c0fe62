"""TODO"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

from ..data.examples import Question
from ..scenes import HELD_OUT_SEEDS, draw_scene
from ..tasks import TASKS


def held_out(dataset: str) -> range:
    """The seeds of `"scenes"` (500 of them) or `"scenes:COUNT"`: held-out ones, which no training sees.

    Raises:
        ValueError: for anything else.
    """
    name, colon, count = dataset.partition(":")
    number = int(count) if count.isdecimal() else 0 if colon else 500
    if name != "scenes" or not 0 < number <= len(HELD_OUT_SEEDS):
        raise ValueError(f"unknown dataset {dataset!r}: give scenes, or scenes:COUNT with 1 to {len(HELD_OUT_SEEDS)}")
    return HELD_OUT_SEEDS[:number]


def scene_examples(
    seeds: Iterable[int] = HELD_OUT_SEEDS[:500], tasks: Sequence[str] | None = None, size: int = 512
) -> Iterator[Question]:
    """Every task asked once about each scene, where it can be asked.

    Args:
        seeds: one scene each. A model that was trained on scenes is asked about `HELD_OUT_SEEDS`.
        tasks: task tokens; all by default.
        size: pixels a side.
    """
    for seed in seeds:
        scene = draw_scene(seed, size)
        dice = random.Random(seed)
        for task in tasks or TASKS:
            for text in scene.sample_inputs(task, dice)[:1]:
                yield Question(scene.image, task, text, scene.answer(task, text), str(seed))
