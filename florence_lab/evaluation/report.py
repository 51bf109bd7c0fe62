"""The HTML report of an evaluation: one file, without scripts and without anything from the network."""

from __future__ import annotations

import base64
import io
import logging
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from ..argument_validation import validate_arguments
from ..exceptions import summarize_error
from ..output_files import write_text
from ..results import Instances, Result, Text
from .comparison import TaskComparison, comparison_table
from .errors import count_errors, measure_classes
from .evaluator import FREE_QUESTION_NAME, Evaluation
from .plots import plot_precision_recall, plot_reliability

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

NUM_WORST = 6
_IMAGE_SIDE = 480  # pixels of a picture in the report
_MAX_CLASSES = 50

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1d1d1f; background: #fff; max-width: 1100px; margin: 2em auto; padding: 0 1em }
h1, h2, h3 { line-height: 1.2 } h2 { margin-top: 2em; border-bottom: 1px solid #ccc } code { font-size: 0.95em }
table { border-collapse: collapse; margin: 0.6em 0 } th, td { padding: 0.2em 0.7em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left } figure { margin: 0 0 1.4em } img { max-width: 100%; height: auto }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1em; margin-bottom: 1.6em } figcaption { overflow-wrap: anywhere }
.text { background: #f4f4f5; padding: 0.5em 0.8em; overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) { body { background: #18181b; color: #e4e4e7 } th, td, h2 { border-color: #3f3f46 }
.text { background: #27272a } }
"""


@validate_arguments
def write_report(
    evaluation: Evaluation,
    path: str | Path,
    comparisons: Sequence[TaskComparison] = (),
    num_worst: int = NUM_WORST,
) -> Path:
    """Write the report of an evaluation.

    It has the metrics of all tasks; for tasks with instances a table by class, the kinds of errors, the precision-recall curve and
    the reliability diagram; the worst answers of each task with their ground truth beside them; and a comparison, if one is given.

    Args:
        evaluation: the evaluation.
        path: of the HTML file.
        comparisons: with another run, see `compare_runs`.
        num_worst: answers shown for each task. Their images are read again, one at a time.
    """
    frame = evaluation.to_dataframe()
    parts = [
        f"<h1>Evaluation of {escape(evaluation.model_name)}</h1>",
        f"<p>{len(evaluation.examples)} answers, {len(evaluation.errors)} examples without answer</p>",
        _table(frame),
    ]
    if comparisons:
        parts += ["<h2>Compared with another run</h2>", _table(comparison_table(comparisons))]
    if evaluation.errors:
        parts += ["<h2>Examples without answer</h2>", *map(_describe_error, evaluation.errors[:num_worst])]
    worst = _worst_by_task(evaluation, num_worst)
    for token in evaluation.tasks:
        parts.append(f"<h2>{escape(token or FREE_QUESTION_NAME)}</h2>")
        predictions, ground_truths = evaluation.for_task(token)
        if predictions and isinstance(predictions[0], Instances):
            parts += _describe_instances(predictions, ground_truths)
        parts.append("<h3>Worst answers, with their ground truth</h3>")
        parts += [_describe_answer(evaluation, i) for i in worst[token]]
    head = f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><style>{_STYLE}</style>"
    title = f"<title>Evaluation of {escape(evaluation.model_name)}</title>"
    write_text(path, f"<!doctype html><html lang='en'><head>{head}{title}</head><body>{''.join(parts)}</body></html>\n")
    return Path(path)


def _worst_by_task(evaluation: Evaluation, num_worst: int) -> dict[str, list[int]]:
    worst: defaultdict[str, list[int]] = defaultdict(list)
    for i in np.argsort(evaluation.sample_scores, kind="stable"):  # nan comes last
        token = evaluation.examples[i].prompt.task.token
        if len(worst[token]) < num_worst and evaluation.sample_scores[i] < 1:
            worst[token].append(int(i))
    return worst


def _describe_instances(predictions: Sequence[Any], ground_truths: Sequence[Any]) -> list[str]:
    import pandas as pd

    errors = count_errors(predictions, ground_truths)
    classes = measure_classes(predictions, ground_truths)
    rest = f"<p>… and {len(classes) - _MAX_CLASSES} more classes</p>" if len(classes) > _MAX_CLASSES else ""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot_precision_recall(predictions, ground_truths, left)
    plot_reliability(predictions, ground_truths, right)
    return [
        "<h3>Kinds of errors at an IoU of 0.5</h3>",
        _table(pd.DataFrame([errors])),
        "<h3>By class</h3>",
        _table(classes.head(_MAX_CLASSES)),
        rest,
        f"<figure><img alt='precision-recall curve and reliability diagram' src='{_to_uri(figure)}'></figure>",
    ]


def _describe_answer(evaluation: Evaluation, index: int) -> str:
    example, prediction = evaluation.examples[index], evaluation.predictions[index]
    truth, score = evaluation.ground_truths[index], evaluation.sample_scores[index]
    text = escape(example.prompt.text)
    caption = f"{escape(example.source)}{f' · {text}' if text else ''} · score {score:.2f}"
    try:
        image = example.load_image()
        panels = [_draw(image, result) for result in (prediction, truth)]
    except Exception as error:  # an image that is gone, or whatever Matplotlib cannot draw
        logger.warning("%s cannot be drawn: %s", example.source, summarize_error(error))
        panels = ["", ""]
    shown = [
        _describe_side(*side) for side in zip(("answer", "ground truth"), (prediction, truth), panels, strict=True)
    ]
    return f"<p>{caption}</p><div class='pair'>{''.join(shown)}</div>"


def _describe_side(name: str, result: Result, panel: str) -> str:
    text = (
        result.text if isinstance(result, Text) else f"{len(result)} instances" if isinstance(result, Instances) else ""
    )
    image = f"<img alt='{name}' loading='lazy' src='{panel}'>" if panel else ""
    return f"<figure>{image}<figcaption>{name}: <span class='text'>{escape(text) or '(nothing)'}</span></figcaption></figure>"


def _describe_error(failed: Any) -> str:
    return f"<p>{escape(failed.example.source)}: {escape(str(failed.error))}</p>"


def _draw(image: Any, result: Result) -> str:
    from ..visualization.overlay import show

    width, height = result.image_size
    scale = _IMAGE_SIDE / max(width, height)
    figure = Figure(figsize=(max(1, width * scale / 100), max(1, height * scale / 100)), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    show(image, result, axes)
    return _to_uri(figure, "jpeg")


def _to_uri(figure: Figure, file_format: str = "png") -> str:
    file = io.BytesIO()
    figure.savefig(file, format=file_format)
    return f"data:image/{file_format};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _table(frame: pd.DataFrame) -> str:
    return str(frame.to_html(index=False, float_format="{:.3f}".format, na_rep="–", border=0, escape=True))
