"""The tasks of Florence-2 as a table. A new task is one more entry, see `register_task`."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from .argument_validation import validate_arguments, validate_fields
from .exceptions import ArgumentError, shorten, unknown_name

InputKind = Literal["none", "phrase", "region", "any"]
ResultKind = Literal["text", "boxes", "grounding", "boxes_or_polygons", "quads", "polygons"]
Metric = Literal["caption", "detection", "instances", "proposals", "masks", "exact_match", "ocr"]
CocoLabel = Literal["category", "caption", "none"]

_TOKEN_RE = re.compile(r"<[^<>{}\s]+(?: [^<>{}\s]+)*>")

# Tokens of answers and of the tokenizer. They have a meaning of their own, so that no task can have their names.
_RESERVED_RE = re.compile(r"</?(?:s|pad|unk|mask|image|sep|and|poly|bbox|ref-object)>|(?i:<loc_[\d-]*>)")

_NEAR_MISS_RATIO = 0.85
"""Similarity of `difflib` from which an unknown token is a known one that is misspelled: `<CAPTOIN>` has 0.857, `<ROD>` 0.8,
`<MIXED_CAPTION>` 0.74. See `tests/test_tasks.py` for the tables by which it was chosen."""

_ABBREVIATION_LENGTH = 3


def _check_token(token: str) -> None:
    if not _TOKEN_RE.fullmatch(token):
        raise ArgumentError(
            f"task token {shorten(token)} must stand in brackets, as in <OD>, without brackets or braces within or blanks at its ends"
        )
    if _RESERVED_RE.fullmatch(token):
        raise ArgumentError(f"task token {shorten(token)} is a token of Florence-2 with a meaning of its own")


@dataclass(frozen=True)
class Task:
    """A task of Florence-2: what depends on the task, in one place.

    Attributes:
        token: the task token, `<OD>` or `<DocVQA>`; empty for a free-form question. It may contain anything but further
            brackets, braces, and blanks at its ends.
        prompt: the text that replaces the task token in the model's input. `{input}` is the phrase or region. By default the
            token itself, with the input behind it.
        input: what the task takes besides the image: nothing, a phrase, a region of the image, or any of them. The text of
            `any` is kept as it stands, blanks included.
        result: what the answer is parsed into. The kinds correspond to those of transformers'
            `Florence2Processor.post_process_generation`: `text` is `pure_text`, `boxes` is `description_with_bboxes`
            or `bboxes`, `grounding` is `phrase_grounding` (labels are phrases of the given caption),
            `boxes_or_polygons` is `description_with_bboxes_or_polygons`, `quads` is `ocr`, `polygons` is `polygons`.
        description: one line for menus and help texts. By default it says that the task is not one of the published.
        metric: the suite of metrics that `florence_lab.evaluation` computes; None selects the default of `result`.
        coco_label: what an annotation of a COCO file contributes as the label of an instance: the name of its category,
            its caption, or nothing. None if COCO files have no answer to the task.
        example: an example of the input, for demos and benchmarks: a phrase, or a region as location tokens.

    Raises:
        ValueError: if the token is malformed, or if `prompt` and `input` disagree.
    """

    token: str
    prompt: str = ""
    input: InputKind = "any"
    result: ResultKind = "text"
    description: str = ""
    metric: Metric | None = None
    coco_label: CocoLabel | None = None
    example: str | None = None

    def __post_init__(self) -> None:
        validate_fields(self)
        if self.token:
            _check_token(self.token)
        if not self.prompt:
            object.__setattr__(self, "prompt", self.token + ("" if self.input == "none" else "{input}"))
        if not self.description:
            object.__setattr__(self, "description", "a task of your own")
        if ("{input}" in self.prompt) != (self.input != "none"):
            verb = "must not" if self.input == "none" else "must"
            raise ArgumentError(
                f"{self.name}: the prompt of a task with input={self.input!r} {verb} contain {{input}}, got {self.prompt!r}"
            )

    @property
    def name(self) -> str:
        """The task token, or a description of the task without one."""
        return self.token or "a free-form question"

    @property
    def title(self) -> str:
        """The name of the task in words, for menus and headings: `"Object detection"`."""
        if not self.token:
            return "Question"
        return _TITLES.get(self.token, self.token.strip("<>").replace("_", " "))

    @property
    def needs_input(self) -> bool:
        """Whether the task cannot be asked without a phrase or region."""
        return self.input in ("phrase", "region")

    @property
    def is_free_text(self) -> bool:
        """Whether the answer is any text: that of a free-form question, or of a token with any text behind it."""
        return self.result == "text" and (not self.token or self.input == "any")


_TITLES = {
    "<CAPTION>": "Caption",
    "<DETAILED_CAPTION>": "Detailed caption",
    "<MORE_DETAILED_CAPTION>": "More detailed caption",
    "<OD>": "Object detection",
    "<DENSE_REGION_CAPTION>": "Dense region captions",
    "<REGION_PROPOSAL>": "Region proposals",
    "<OCR>": "Text recognition",
    "<OCR_WITH_REGION>": "Text recognition with regions",
    "<CAPTION_TO_PHRASE_GROUNDING>": "Phrase grounding",
    "<REFERRING_EXPRESSION_SEGMENTATION>": "Referring expression segmentation",
    "<OPEN_VOCABULARY_DETECTION>": "Open-vocabulary detection",
    "<REGION_TO_SEGMENTATION>": "Segmentation of a region",
    "<REGION_TO_CATEGORY>": "Category of a region",
    "<REGION_TO_DESCRIPTION>": "Description of a region",
    "<REGION_TO_OCR>": "Text in a region",
}

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
def register_task(task: Task, replace: bool = False) -> Task:
    """Add a task to `TASKS` and return it.

    From then on `predict`, `stream`, `predict_batch`, the command line, the explorer, fine-tuning and evaluation accept its
    token. Tokens that are not registered are accepted, too, and answered with text; see `get_task`. Registering an equal task
    again changes nothing.

    Args:
        task: the task. `Task("<MyOD>", prompt="<MyOD>{input}", input="phrase", result="boxes")` is answered with boxes.
        replace: replace another task of the same token, as after editing a cell of a notebook. Prompts and results from then on
            follow the new one.

    Raises:
        ValueError: if the task has no token, or if another task has its token and `replace` is false. Published tokens are
            compared without regard to case.
    """
    if not task.token:
        raise ArgumentError("a registered task needs a token, as in <OD>")
    published = {known.token.lower(): known.token for known in _PUBLISHED}
    token = published.get(task.token.lower(), task.token)
    known = TASKS.get(token)
    if known is not None and known != task and not (replace and token == task.token):
        hint = "register_task(task, replace=True) replaces it" if token == task.token else "choose another token"
        raise ArgumentError(f"the task {token} is already registered as {known}; {hint}")
    TASKS[task.token] = task
    return task


def available_tasks() -> list[str]:
    """Return the registered task tokens, `"<CAPTION>"` … `"<REGION_TO_OCR>"` and those of your own."""
    return list(TASKS)


@validate_arguments
def is_published(task: Task) -> bool:
    """Return whether a task is one of the 15 published ones, or a free-form question."""
    return task == FREE_QUESTION or task in _PUBLISHED


@validate_arguments
def get_task(name: str) -> Task:
    """Return the task of a name.

    `"<OD>"`, or `"OD"` or `"od"` for short, is a registered task: the one with exactly this token, else one whose token differs
    in case. `""` is the free-form question. Any other token in brackets, such as `"<DocVQA>"`, is a free-text task: its prompt is
    the token with the text behind it, as both stand, and its answer is text. Fine-tuned checkpoints have such tokens.

    Raises:
        ValueError: for a token that is likely a registered one misspelled, such as `<CAPTOIN>`, and for an unknown name without
            brackets; the message names the nearest token, and how to use the name all the same.
    """
    if name == "":
        return FREE_QUESTION
    if (task := _find_registered(name)) is not None:
        return task
    token = name.strip()
    if not _TOKEN_RE.fullmatch(token):
        hint = f". A token of your own has brackets: <{token}>" if _TOKEN_RE.fullmatch(f"<{token}>") else ""
        raise ArgumentError(unknown_name("task", _to_token(name), TASKS) + hint)
    _check_token(token)
    if (nearest := _find_near_miss(token)) is not None:
        raise ArgumentError(
            f"unknown task {shorten(token)}; did you mean {nearest!r}? register_task(Task({shorten(token)})) makes it a token of "
            f"your own. Known: {', '.join(TASKS)}"
        )
    return _free_text_task(token)


@validate_arguments
def split_query(query: str) -> tuple[Task, str]:
    """Split a query into its task and the text behind the task token.

    `"<CAPTION_TO_PHRASE_GROUNDING>two dogs"` gives that task and `"two dogs"`. The name of a task alone selects the task, with
    or without brackets and in any case (`"OD"`, `"od"`). A token that is not registered is a free-text task, see `get_task`:
    `"<DocVQA>What is the date?"` gives `Task("<DocVQA>")` and `"What is the date?"`. Text behind a task with `input="any"` is not
    stripped. Any other text is a free-form question.

    Raises:
        ValueError: if the query starts with a token that is likely a registered one misspelled, or that has no end.
    """
    stripped = query.strip()
    if (task := _find_registered(stripped)) is not None:
        return task, ""
    if not stripped.startswith("<") or stripped.startswith("<loc_"):
        return FREE_QUESTION, stripped
    name, end, text = query.lstrip().partition(">")
    if not end:
        raise ArgumentError(unknown_name("task", f"{name}>", TASKS))
    task = get_task(name + end)
    return task, text if task.input == "any" else text.strip()


def _to_token(name: str) -> str:
    return f"<{name.strip().strip('<>').upper()}>"


def _find_registered(name: str) -> Task | None:
    """The task with exactly this token, else the first whose token differs in case or has brackets."""
    name = name.strip()
    if name in TASKS:
        return TASKS[name]
    token = _to_token(name)
    return TASKS.get(token) or next((task for known, task in TASKS.items() if known.upper() == token), None)


@lru_cache(maxsize=256)
def _free_text_task(token: str) -> Task:
    return Task(token)


def _find_near_miss(token: str) -> str | None:
    """The registered token that a token is likely meant to be; None if it is one of its own.

    Case, blanks and punctuation do not distinguish tokens. Digits do (`<CAPTION2>`), and so do further words
    (`<CAPTION_VQA>`): a slip adds neither. Of abbreviations (`<OD>`, `<OCR>`) only those without other letters are slips (`<ODD>`,
    `<ORC>`, `<OO>`), as most others (`<ROD>`) are abbreviations, too.
    """
    words, letters = _split_words(token), _squash(token)
    candidates = {}
    for known in TASKS:
        spelled = _squash(known)
        if spelled == letters:
            return known
        is_longer = len(words) > len(_split_words(known)) and _split_words(known) <= words
        if _digits(spelled) != _digits(letters) or is_longer:
            continue
        if len(spelled) > _ABBREVIATION_LENGTH:
            candidates[spelled] = known
        elif letters and set(letters) <= set(spelled) and abs(len(letters) - len(spelled)) <= 1:
            return known
    closest = difflib.get_close_matches(letters, candidates, n=1, cutoff=_NEAR_MISS_RATIO)
    return candidates[closest[0]] if closest else None


def _split_words(token: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", token.upper()))


def _squash(token: str) -> str:
    """The letters and digits of a token; zero is read as the letter O."""
    return re.sub(r"[\W_]", "", token.upper()).replace("0", "O")


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)
