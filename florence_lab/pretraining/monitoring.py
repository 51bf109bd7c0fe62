"""TODO"""

from __future__ import annotations

from matplotlib.figure import Figure
from transformers import Florence2ForConditionalGeneration

from ..evaluation import Evaluation, evaluate_scenes
from ..loading.checkpoint import build_processor
from ..predictor import Predictor
from ..scenes import HELD_OUT_SEEDS
from ..tasks import TASKS
from ..visualization.gallery import gallery


def look(model: Florence2ForConditionalGeneration, tokenizer, image_size: int, count: int) -> Evaluation:
    """Every task on `count` held-out scenes: a quick look, `florence-lab eval` measures properly."""
    predictor = Predictor(model.eval(), build_processor(tokenizer, image_size), name="held-out scenes")
    # an untrained model finds no end
    return evaluate_scenes(predictor, HELD_OUT_SEEDS[:count], max_new_tokens=160)


def picture(evaluation: Evaluation) -> Figure:
    """The first answer to every task."""
    first = {}
    for example, prediction in zip(evaluation.examples, evaluation.predictions, strict=True):
        first.setdefault(example.prompt.task.token, (example, prediction))
    panels = [(first[task][0].load_image(), first[task][1]) for task in TASKS if task in first]
    return gallery(panels, columns=5)
