"""Evaluation during training: every task on a few held-out scenes."""

from __future__ import annotations

import math

from matplotlib.figure import Figure
from transformers import BartTokenizer, Florence2ForConditionalGeneration

from ..data.examples import Example
from ..evaluation import Evaluation, evaluate_scenes
from ..exceptions import capture_warnings
from ..loading.processor import build_processor
from ..predictor import Predictor
from ..results import Result
from ..scenes import HELD_OUT_SEEDS
from ..tasks import TASKS
from ..visualization.gallery import gallery

MAX_NEW_TOKENS = 160
"""Limit of the answers, since an untrained model does not generate `</s>`."""


def evaluate_held_out(
    model: Florence2ForConditionalGeneration, tokenizer: BartTokenizer, image_size: int, count: int
) -> Evaluation:
    """Evaluate every task on `count` held-out scenes. The model is switched to evaluation mode."""
    predictor = Predictor(model.eval(), build_processor(tokenizer, image_size), name="held-out scenes")
    with capture_warnings():  # that answers are truncated is expected, see `MAX_NEW_TOKENS`
        return evaluate_scenes(predictor, HELD_OUT_SEEDS[:count], max_new_tokens=MAX_NEW_TOKENS)


def finite_metrics(evaluation: Evaluation) -> dict[str, dict[str, float | None]]:
    """Return task token -> metric -> value, with None for metrics that are undefined: JSON has no nan."""
    return {
        task: {name: value if math.isfinite(value) else None for name, value in values.items()}
        for task, values in evaluation.metrics.items()
    }


def plot_predictions(evaluation: Evaluation) -> Figure:
    """Draw the first prediction of each task."""
    first: dict[str, tuple[Example, Result]] = {}
    for example, prediction in zip(evaluation.examples, evaluation.predictions, strict=True):
        first.setdefault(example.prompt.task.token, (example, prediction))
    panels = [(first[task][0].load_image(), first[task][1]) for task in TASKS if task in first]
    return gallery(panels, columns=5)
