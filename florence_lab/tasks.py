"""The tasks of Florence-2 as a table. A new task is one more entry, see `register_task`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from .argument_validation import validate_arguments, validate_fields
from .exceptions import ArgumentError, unknown_name

InputKind = Literal["none", "phrase", "region"]
ResultKind = Literal["text", "boxes", "grounding", "boxes_or_polygons", "quads", "polygons"]
Metric = Literal["caption", "detection", "instances", "proposals", "masks", "exact_match", "ocr"]
CocoLabel = Literal["category", "caption", "none"]


@dataclass(frozen=True)
class Task:
    """A task of Florence-2: what depends on the task, in one place.

    Attributes:
        token: the task token, `<OD>`; empty for a free-form question.
        prompt: the text that replaces the task token in the model's input. `{input}` is the phrase or region.
        input: what the task takes besides the image: nothing, a phrase, or a region of the image.
        result: what the answer is parsed into. The kinds correspond to those of transformers'
            `Florence2Processor.post_process_generation`: `text` is `pure_text`, `boxes` is `description_with_bboxes`
            or `bboxes`, `grounding` is `phrase_grounding` (labels are phrases of the given caption),
            `boxes_or_polygons` is `description_with_bboxes_or_polygons`, `quads` is `ocr`, `polygons` is `polygons`.
        description: one line for menus and help texts.
        metric: the suite of metrics that `florence_lab.evaluation` computes; None selects the default of `result`.
        coco_label: what an annotation of a COCO file contributes as the label of an instance: the name of its category,
            its caption, or nothing. None if COCO files have no answer to the task.
        example: an example of the input, for demos and benchmarks: a phrase, or a region as location tokens.

    Raises:
        ValueError: if the token is malformed, or if `prompt` and `input` disagree.
    """

    token: str
    prompt: str
    input: InputKind
    result: ResultKind
    description: str
    metric: Metric | None = None
    coco_label: CocoLabel | None = None
    example: str | None = None

    def __post_init__(self) -> None:
        validate_fields(self)
        if self.token and not re.fullmatch(r"<[A-Z0-9_]+>", self.token):
            raise ArgumentError(f"task token {self.token!r} must match <[A-Z0-9_]+>, as in <OD>")
        if ("{input}" in self.prompt) != (self.input != "none"):
            verb = "must not" if self.input == "none" else "must"
            raise ArgumentError(
                f"{self.name}: the prompt of a task with input={self.input!r} {verb} contain {{input}}, got {self.prompt!r}"
            )

    @property
    def name(self) -> str:
        """The task token, or a description of the task without one."""
        return self.token or "a free-form question"


# The prompts are those of the published processor (model card of microsoft/Florence-2-large).
_PHRASE = "a sheep"
_REGION = "<loc_100><loc_100><loc_600><loc_600>"
_PUBLISHED = (
    Task("<CAPTION>", "What does the image describe?", "none", "text", "one sentence about the image", "caption"),
    Task(
        "<DETAILED_CAPTION>",
        "Describe in detail what is shown in the image.",
        "none",
        "text",
        "a few sentences about the image",
        "caption",
    ),
    Task(
        "<MORE_DETAILED_CAPTION>",
        "Describe with a paragraph what is shown in the image.",
        "none",
        "text",
        "a paragraph about the image",
        "caption",
    ),
    Task(
        "<OD>",
        "Locate the objects with category name in the image.",
        "none",
        "boxes",
        "object detection: a box and a category for each object",
        "detection",
        "category",
    ),
    Task(
        "<DENSE_REGION_CAPTION>",
        "Locate the objects in the image, with their descriptions.",
        "none",
        "boxes",
        "a box and a short description for each object",
        "instances",
        "caption",
    ),
    Task(
        "<REGION_PROPOSAL>",
        "Locate the region proposals in the image.",
        "none",
        "boxes",
        "boxes around possible objects, without labels",
        "proposals",
        "none",
    ),
    Task("<OCR>", "What is the text in the image?", "none", "text", "the text in the image", "ocr"),
    Task(
        "<OCR_WITH_REGION>",
        "What is the text in the image, with regions?",
        "none",
        "quads",
        "the text in the image, with a quad box for each piece",
        "instances",
    ),
    Task(
        "<CAPTION_TO_PHRASE_GROUNDING>",
        "Locate the phrases in the caption: {input}",
        "phrase",
        "grounding",
        "boxes for each phrase of a caption",
        "instances",
        example=_PHRASE,
    ),
    Task(
        "<REFERRING_EXPRESSION_SEGMENTATION>",
        "Locate {input} in the image with mask",
        "phrase",
        "polygons",
        "the outline of the object that a phrase refers to",
        "masks",
        example=_PHRASE,
    ),
    Task(
        "<OPEN_VOCABULARY_DETECTION>",
        "Locate {input} in the image.",
        "phrase",
        "boxes_or_polygons",
        "boxes for the objects that a phrase names",
        "instances",
        example=_PHRASE,
    ),
    Task(
        "<REGION_TO_SEGMENTATION>",
        "What is the polygon mask of region {input}",
        "region",
        "polygons",
        "the outline of the object in a region",
        "masks",
        "none",
        _REGION,
    ),
    Task(
        "<REGION_TO_CATEGORY>",
        "What is the region {input}?",
        "region",
        "text",
        "the category of a region",
        "exact_match",
        "category",
        _REGION,
    ),
    Task(
        "<REGION_TO_DESCRIPTION>",
        "What does the region {input} describe?",
        "region",
        "text",
        "a short description of a region",
        "exact_match",
        "caption",
        _REGION,
    ),
    Task(
        "<REGION_TO_OCR>",
        "What text is in the region {input}?",
        "region",
        "text",
        "the text in a region",
        "ocr",
        example=_REGION,
    ),
)

TASKS: dict[str, Task] = {task.token: task for task in _PUBLISHED}
"""Task token -> `Task`."""

FREE_QUESTION = Task("", "{input}", "phrase", "text", "a question in your own words, without a task token")


@validate_arguments
def register_task(task: Task) -> Task:
    """Add a task to `TASKS` and return it.

    From then on `predict`, `stream`, `predict_batch`, the command line, the explorer, fine-tuning and evaluation accept its
    token.

    Raises:
        ValueError: if the task has no token, or if its token is already registered.
    """
    if not task.token:
        raise ArgumentError("a registered task needs a token, as in <OD>")
    if task.token in TASKS:
        raise ArgumentError(f"the task {task.token} is already registered")
    TASKS[task.token] = task
    return task


def available_tasks() -> list[str]:
    """Return the task tokens, `"<CAPTION>"` … `"<REGION_TO_OCR>"`."""
    return list(TASKS)


@validate_arguments
def get_task(name: str) -> Task:
    """Return the task of a name: `"<OD>"`, or `"OD"` or `"od"` for short; `""` is the free-form question.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    if name == "":
        return FREE_QUESTION
    token = _to_token(name)
    if token not in TASKS:
        raise ArgumentError(unknown_name("task", token, TASKS))
    return TASKS[token]


@validate_arguments
def split_query(query: str) -> tuple[Task, str]:
    """Split a query into its task and the text behind the task token.

    `"<CAPTION_TO_PHRASE_GROUNDING>two dogs"` gives that task and `"two dogs"`. The name of a task alone selects the task, with
    or without brackets and in any case (`"OD"`, `"od"`). Any other text is a free-form question.

    Raises:
        ValueError: if the query starts with a token that is neither a task nor a location.
    """
    query = query.strip()
    if (token := _to_token(query)) in TASKS:
        return TASKS[token], ""
    if not query.startswith("<") or query.startswith("<loc_"):
        return FREE_QUESTION, query
    token, _, text = query.partition(">")
    return get_task(token), text.strip()


def _to_token(name: str) -> str:
    return f"<{name.strip().strip('<>').upper()}>"
