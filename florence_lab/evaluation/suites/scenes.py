"""The suite of cartoon scenes: examples of all tasks about held-out scenes, and the metrics that need to know scenes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...argument_validation import validate_arguments
from ...data.examples import Example, SceneReference
from ...predictor import Predictor
from ...results import Text
from ...scenes import HELD_OUT_SEEDS, caption_counts, draw_scene
from ...tasks import TASKS, Metric, get_task
from ...template.prompts import build_prompt
from ..evaluator import Evaluation, evaluate
from ..metrics import METRIC_SUITES, MetricSuite, mean_suite

DEFAULT_NUM_SCENES = 500


def object_accuracy(prediction: Text, ground_truth: Text) -> float:
    """Return 1 if a caption of a scene names the same categories as the ground truth, each with the same number, else 0.

    nan if the ground truth names no category that scenes contain, as the caption of any other image.
    """
    expected = caption_counts(ground_truth.text)
    return float(caption_counts(prediction.text) == expected) if expected else float("nan")


SCENE_METRIC_SUITES: Mapping[Metric, MetricSuite] = {
    **METRIC_SUITES,
    "caption": mean_suite("object_accuracy", object_accuracy),
}
"""`METRIC_SUITES` for examples about scenes. Captions are measured by the objects that they name."""


@validate_arguments
def evaluate_scenes(
    predictor: Predictor,
    seeds: Iterable[int] = HELD_OUT_SEEDS[:DEFAULT_NUM_SCENES],
    tasks: Sequence[str] | None = None,
    batch_size: int = 16,
    **generate_kwargs: Any,
) -> Evaluation:
    """Run a model on `scene_examples` and measure it with `SCENE_METRIC_SUITES`.

    Args:
        predictor: the model.
        seeds, tasks: as for `scene_examples`.
        batch_size, generate_kwargs: as for `evaluate`.
    """
    examples = scene_examples(seeds, tasks)
    return evaluate(predictor, examples, batch_size, SCENE_METRIC_SUITES, **generate_kwargs)


@validate_arguments
def scene_examples(
    seeds: Iterable[int] = HELD_OUT_SEEDS[:DEFAULT_NUM_SCENES], tasks: Sequence[str] | None = None, size: int = 512
) -> Iterator[Example]:
    """Return an iterator over one example of each task about each scene, with the same input each time.

    A task is left out for a scene that has no input for it, such as `<REGION_TO_OCR>` for a scene without text. Registered
    tasks for which scenes have no answer are left out.

    Args:
        seeds: one scene each. For a model that was trained on scenes, take them from `HELD_OUT_SEEDS`.
        tasks: task tokens; by default all.
        size: width and height of the images in pixels.
    """
    for task in tasks or ():
        get_task(task)  # refuses an unknown one
    return _examples(seeds, tasks or tuple(TASKS), size)


def _examples(seeds: Iterable[int], tasks: Sequence[str], size: int) -> Iterator[Example]:
    for seed in seeds:
        scene = draw_scene(seed, size)
        rng = random.Random(seed)
        for task in tasks:
            for text in scene.sample_inputs(task, rng)[:1]:
                prompt = build_prompt(task, text, scene.image.size)
                target = scene.answer(task, text).raw
                yield Example(SceneReference(seed, size), prompt, target, f"scene {seed}", scene.image.size)
