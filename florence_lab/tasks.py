"""The tasks of Florence-2 as one table. Every other part of the library reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .exceptions import unknown_name

InputKind = Literal["none", "phrase", "region"]
ResultKind = Literal["text", "boxes", "grounding", "boxes_or_polygons", "quads", "polygons"]


@dataclass(frozen=True)
class Task:
    """One thing that Florence-2 was trained to do.

    Attributes:
        token: the task token as people write it, `<OD>`; empty for a free question.
        prompt: the sentence that the model sees instead; `{input}` stands for the phrase or the region.
        input: what the task needs beside the picture: `"none"`, a `"phrase"`, or a `"region"` of the picture.
        result: what comes back; `"grounding"` is boxes whose labels are phrases of the caption that was given.
        description: one line for people.
    """

    token: str
    prompt: str
    input: InputKind
    result: ResultKind
    description: str


# The prompts are those of the published processor (model card of microsoft/Florence-2-large).
_TABLE = (
    Task("<CAPTION>", "What does the image describe?", "none", "text", "one sentence about the picture"),
    Task(
        "<DETAILED_CAPTION>",
        "Describe in detail what is shown in the image.",
        "none",
        "text",
        "a few sentences about the picture",
    ),
    Task(
        "<MORE_DETAILED_CAPTION>",
        "Describe with a paragraph what is shown in the image.",
        "none",
        "text",
        "a paragraph about the picture",
    ),
    Task(
        "<OD>",
        "Locate the objects with category name in the image.",
        "none",
        "boxes",
        "object detection: a box and a category for each object",
    ),
    Task(
        "<DENSE_REGION_CAPTION>",
        "Locate the objects in the image, with their descriptions.",
        "none",
        "boxes",
        "a box and a short description for each object",
    ),
    Task(
        "<REGION_PROPOSAL>",
        "Locate the region proposals in the image.",
        "none",
        "boxes",
        "boxes around whatever may be an object, without names",
    ),
    Task("<OCR>", "What is the text in the image?", "none", "text", "the text in the picture"),
    Task(
        "<OCR_WITH_REGION>",
        "What is the text in the image, with regions?",
        "none",
        "quads",
        "the text in the picture, each piece with its quad box",
    ),
    Task(
        "<CAPTION_TO_PHRASE_GROUNDING>",
        "Locate the phrases in the caption: {input}",
        "phrase",
        "grounding",
        "boxes for every phrase of a caption",
    ),
    Task(
        "<REFERRING_EXPRESSION_SEGMENTATION>",
        "Locate {input} in the image with mask",
        "phrase",
        "polygons",
        "the outline of what a phrase refers to",
    ),
    Task(
        "<OPEN_VOCABULARY_DETECTION>",
        "Locate {input} in the image.",
        "phrase",
        "boxes_or_polygons",
        "boxes for whatever a phrase names",
    ),
    Task(
        "<REGION_TO_SEGMENTATION>",
        "What is the polygon mask of region {input}",
        "region",
        "polygons",
        "the outline of the object in a region",
    ),
    Task("<REGION_TO_CATEGORY>", "What is the region {input}?", "region", "text", "the category of a region"),
    Task(
        "<REGION_TO_DESCRIPTION>",
        "What does the region {input} describe?",
        "region",
        "text",
        "a short description of a region",
    ),
    Task("<REGION_TO_OCR>", "What text is in the region {input}?", "region", "text", "the text in a region"),
)

TASKS: dict[str, Task] = {task.token: task for task in _TABLE}
"""Task token -> `Task`, in the order in which people meet them."""

FREE_QUESTION = Task("", "{input}", "phrase", "text", "a question in your own words, with no task token")


def available_tasks() -> list[str]:
    """The task tokens, `"<CAPTION>"` … `"<REGION_TO_OCR>"`."""
    return list(TASKS)


def get_task(name: str) -> Task:
    """The task of that name: `"<OD>"`, or `"OD"` or `"od"` for short; `""` is the free question.

    Raises:
        ValueError: for an unknown name, with the known ones and the nearest.
    """
    if name == "":
        return FREE_QUESTION
    token = f"<{name.strip().strip('<>').upper()}>"
    if token not in TASKS:
        raise ValueError(unknown_name("task", token, TASKS))
    return TASKS[token]


def split_query(query: str) -> tuple[Task, str]:
    """`"<CAPTION_TO_PHRASE_GROUNDING>the sheeps"` -> that task and `"the sheeps"`; no token is a free question.

    A token without its brackets is that task, too: nobody means `"OD"` as a question.

    Raises:
        ValueError: if the query starts with a token that is no task and no location.
    """
    query = query.strip()
    if f"<{query}>" in TASKS:
        return TASKS[f"<{query}>"], ""
    if not query.startswith("<") or query.startswith("<loc_"):
        return FREE_QUESTION, query
    token, _, rest = query.partition(">")
    return get_task(token), rest.strip()
