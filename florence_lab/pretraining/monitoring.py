"""Evaluation during training: every task on a few held-out scenes."""

from __future__ import annotations

from matplotlib.figure import Figure
from PIL import Image
from transformers import BartTokenizer, Florence2ForConditionalGeneration

from ..evaluation.evaluator import Evaluation, evaluate
from ..evaluation.suites import scene_examples
from ..loading.checkpoint import build_processor
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
    return evaluate(predictor, scene_examples(HELD_OUT_SEEDS[:count]), max_new_tokens=MAX_NEW_TOKENS)


def plot_predictions(evaluation: Evaluation) -> Figure:
    """Draw the first prediction of each task."""
    first: dict[str, tuple[Image.Image, Result]] = {}
    for question, answer in zip(evaluation.questions, evaluation.answers, strict=True):
        first.setdefault(question.task, (question.image, answer))
    return gallery([first[task] for task in TASKS if task in first], columns=5)
