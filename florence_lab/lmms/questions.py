"""The tasks of lmms-eval in terms of Florence-2: what is asked, and how an answer is written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from ..argument_validation import validate_arguments
from ..exceptions import ArgumentError, PromptError, shorten
from ..results import Instances, Result, Text
from ..tasks import get_task

AnswerForm = Literal["default", "box_fractions"]
"""How instances are written: `default` is a JSON list of objects with `bbox_2d` (x0, y0, x1, y1 in pixels), `label` and, if it is
known, `score`. `box_fractions` is the best box alone, `[x0, y0, x1, y1]` as fractions of the sides of the image. Text is the same in
both."""


@dataclass(frozen=True)
class TaskRule:
    """How the tasks of lmms-eval whose names match a pattern are asked.

    Attributes:
        pattern: of the names, as `fnmatch` takes it.
        task: the token of Florence-2's task; "" for a free-form question.
        field: the field of a document with the phrase, the region or the question; "" if the task takes none.
        answer: how instances are written.
    """

    pattern: str
    task: str
    field: str = ""
    answer: AnswerForm = "default"


_PHRASE, _REGION = "<CAPTION_TO_PHRASE_GROUNDING>", "<REGION_TO_DESCRIPTION>"

TASK_RULES: tuple[TaskRule, ...] = (
    # captions
    TaskRule("coco_cap_chair", "<MORE_DETAILED_CAPTION>"),
    TaskRule("detailcaps*", "<MORE_DETAILED_CAPTION>"),
    TaskRule("coco20*_cap*", "<CAPTION>"),
    TaskRule("coco_karpathy*", "<CAPTION>"),
    TaskRule("nocaps*", "<CAPTION>"),
    TaskRule("textcaps*", "<CAPTION>"),
    TaskRule("flickr30k*", "<CAPTION>"),
    # boxes of phrases
    TaskRule("refcoco*_bbox_rec*", _PHRASE, "answer", "box_fractions"),
    TaskRule("refcoco*_grounding*", _PHRASE, "answer"),
    TaskRule("screenspot_rec*", _PHRASE, "instruction", "box_fractions"),
    # descriptions of regions, which the images of these tasks also show
    TaskRule("refcoco*_bbox*", _REGION, "bbox"),
    TaskRule("refcoco*_seg*", _REGION, "bbox"),
    # questions
    TaskRule("vqav2*", "<VQA>", "question"),
    TaskRule("ok_vqa*", "<VQA>", "question"),
    TaskRule("gqa*", "<VQA>", "question"),
    TaskRule("vizwiz_vqa*", "<VQA>", "question"),
    TaskRule("textvqa*", "<VQA>", "question"),
    TaskRule("stvqa*", "<VQA>", "question"),
    TaskRule("chartqa*", "<VQA>", "question"),
    TaskRule("docvqa*", "<DocVQA>", "question"),
    TaskRule("infovqa*", "<DocVQA>", "question"),
)
"""The first rule that matches counts. Captions are asked with their token alone: the sentence of lmms-eval is for models that chat.
Questions are taken from the document, without the sentence about the form of the answer. The prompts of `<VQA>` and `<DocVQA>` are not
documented, and the published models that were not fine-tuned on questions have none."""


@validate_arguments
def find_rule(name: str, task: str | None = None, field: str | None = None) -> TaskRule:
    """Return the rule of a task of lmms-eval.

    Args:
        name: the task of lmms-eval.
        task: replaces the task of Florence-2; None keeps that of the table.
        field: replaces the field; None keeps that of the table.

    Raises:
        ArgumentError: if the table has no rule and no task is given, and for a misspelled task token.
    """
    rule = next((rule for rule in TASK_RULES if fnmatchcase(name, rule.pattern)), None)
    if rule is None and task is None:
        known = ", ".join(rule.pattern for rule in TASK_RULES)
        raise ArgumentError(
            f"how Florence-2 answers the task {name!r} of lmms-eval is not known; pass it, as in "
            f"--model_args 'task=<CAPTION>', or 'task=<VQA>,field=question'. Known are {known}"
        )
    rule = rule or TaskRule(name, "")
    token = rule.task if task is None else get_task(task).token
    return replace(rule, task=token, field=rule.field if field is None else field)


def read_input(document: Mapping[str, Any], field: str, context: str) -> str | list[float]:
    """Return the phrase, region or question of a document.

    Args:
        document: a row of the dataset of lmms-eval.
        field: the field that has it; "" takes the context.
        context: the prompt that lmms-eval has made of the document.

    Returns:
        Text in one line, of a list of texts the first; or the four numbers of a region.

    Raises:
        PromptError: if the document has nothing usable in the field.
    """
    if not field:
        return " ".join(context.replace("<image>", " ").split())
    if field not in document:
        raise PromptError(f"the document has no field {field!r}; it has {', '.join(map(repr, document))}")
    value = document[field]
    if isinstance(value, Sequence) and not isinstance(value, str) and value and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, str):
        return " ".join(value.split())
    try:
        region = [float(number) for number in value]
    except (TypeError, ValueError):
        region = []
    if len(region) != 4:
        raise PromptError(f"the field {field!r} must be text or the four numbers of a region, got {shorten(value)}")
    return region


def format_answer(result: Result, form: AnswerForm) -> str:
    """Return an answer as the scorers of lmms-eval read it, see `AnswerForm`."""
    if isinstance(result, Text):
        return result.text
    assert isinstance(result, Instances)
    boxes = result.xyxy
    if form == "box_fractions":
        if not len(boxes):
            return ""
        best = 0 if result.scores is None else int(result.scores.argmax())
        width, height = result.image_size
        fractions = boxes[best] / (width, height, width, height)
        return f"[{', '.join(f'{value:.5f}' for value in fractions)}]"
    scores = [None] * len(boxes) if result.scores is None else result.scores.tolist()
    rows = [
        {"bbox_2d": [round(value, 2) for value in box], "label": label}
        | ({} if score is None else {"score": round(score, 4)})
        for box, label, score in zip(boxes.tolist(), result.labels.tolist(), scores, strict=True)
    ]
    return json.dumps(rows, ensure_ascii=False)


def cut_answer(text: str, until: Any) -> str:
    """Return a text up to the first of the strings at which lmms-eval ends an answer.

    Args:
        text: the answer.
        until: a string, a list of strings, or None.
    """
    stops = [until] if isinstance(until, str) else list(until or ())
    pattern = "|".join(re.escape(stop) for stop in stops if stop)
    return re.split(pattern, text, maxsplit=1)[0] if pattern else text
