"""Validation: the only place that decides whether a row can be used, and that turns it into examples."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..exceptions import ArgumentError, ImageError, PromptError, shorten
from ..results import Boxes
from ..tasks import Task, get_task
from ..template.grammar import validate_target
from ..template.locations import NUM_BINS, format_location_tokens
from ..template.prompts import Prompt
from ..template.targets import Instance, format_target
from ..template.template import FlorenceTemplate
from .examples import Example, ImageSource, SceneReference, load_image_source
from .objects import check_text, parse_boxes, parse_object, validate_annotation
from .rows import AnnotatedRow, InvalidRow, RawRow, RowError, TextRow, to_row_error

if TYPE_CHECKING:
    from transformers import Florence2ForConditionalGeneration, Florence2Processor

_PLACEHOLDERS = ("<bbox>", "<ref-object>")
_MIXED_PLACEHOLDERS = (
    "a row with objects has <bbox> in its query and <ref-object> in its response, or the other way round"
)


class ValidatedRow(NamedTuple):
    """The examples of a row, and the errors of the row or its annotations."""

    examples: list[Example]
    errors: list[RowError]


@dataclass(frozen=True)
class RowValidator:
    """Turns a row into examples. Every fault of a row is a `RowError`; nothing is raised.

    The image is opened, boxes are converted to pixels and must lie in the image, the prompt must be valid and short enough for the
    model, and the target must be a whole answer in the answer grammar of the task, see `validate_target`.

    Attributes:
        template: with the tokenizer of the model, which counts the tokens of prompts and targets.
        max_target_tokens: maximum length of a target in tokens, including `<s>` and `</s>`.
        require_target: whether a row without a response is invalid. Inference needs none, and takes the first of several answers.
            An empty response is valid: it teaches that there is nothing to find.
        max_prompt_tokens: maximum length of a prompt in tokens, including `<s>` and `</s>`; None does not limit it.
        merge_answers: whether several answers to a query give one example with `references`, for evaluation, instead of one example
            each, for training.
    """

    template: FlorenceTemplate
    max_target_tokens: int = 1024
    require_target: bool = True
    max_prompt_tokens: int | None = None
    merge_answers: bool = False
    _image_sizes: dict[Path, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def for_model(
        cls,
        model: Florence2ForConditionalGeneration,
        processor: Florence2Processor,
        max_target_tokens: int = 1024,
        require_target: bool = True,
    ) -> RowValidator:
        """Return the validator of the rows for a model, whose encoder limits the length of prompts."""
        from ..inference.generation import max_prompt_tokens

        limit = max_prompt_tokens(model, processor.num_image_tokens)
        return cls(FlorenceTemplate(processor.tokenizer), max_target_tokens, require_target, limit)

    def __call__(self, row: RawRow | RowError) -> ValidatedRow:
        """Return the examples of a row and its errors. Threads may call this at the same time."""
        if isinstance(row, RowError):
            return ValidatedRow([], [row])
        try:
            size = self.image_size(row.image)
            if isinstance(row, AnnotatedRow):
                return self._validate_annotated(row, size)
            examples = [self._to_example(row, query, target, size) for query, target in self._expand(row, size)]
            return ValidatedRow(merge_references(examples) if self.merge_answers else examples, [])
        except Exception as error:  # a value that no check foresees must not end the run either
            return ValidatedRow([], [to_row_error(error, row.source)])

    def image_size(self, image: ImageSource | None) -> tuple[int, int]:
        """Return (width, height) of an image, which is opened for that.

        Raises:
            InvalidRow: if the image cannot be read.
        """
        if image is None:
            raise InvalidRow("unreadable image", "the row names no image")
        if isinstance(image, SceneReference):
            return image.size, image.size
        if isinstance(image, Path) and image in self._image_sizes:  # often several rows are about one image
            return self._image_sizes[image]
        try:
            size = load_image_source(image).size
        except ImageError as error:
            raise InvalidRow("unreadable image", str(error)) from error
        if isinstance(image, Path):
            self._image_sizes[image] = size
        return size

    def _expand(self, row: TextRow, size: tuple[int, int]) -> Iterator[tuple[str, str]]:
        """Yield the (query, target) pairs of a row: one for each answer, or for each object that the query asks about."""
        query = check_text("query", row.query)
        if not row.has_response and self.require_target:
            raise InvalidRow("no response", 'the row has none; an empty answer is null or ""')
        answers = to_answers(row.response)
        if row.answers == "first" or not self.require_target:
            answers = answers[:1]
        for answer in answers:
            if len(row.boxes):
                yield fill_boxes(row, query, answer, size)
            elif not _is_empty(row.objects):
                yield from expand_objects(row, query, answer, size)
            elif placeholder := next((p for p in _PLACEHOLDERS if p in query or p in answer), None):
                detail = f"{placeholder} in {shorten(query)}, {shorten(answer)}"
                raise InvalidRow("placeholder without objects", detail)
            else:
                yield query, answer

    def _validate_annotated(self, row: AnnotatedRow, size: tuple[int, int]) -> ValidatedRow:
        """Return the example of a row without its invalid annotations, each of which is an error of its own."""
        if row.image_size is not None and tuple(row.image_size) != size:
            stated = " x ".join(map(shorten, row.image_size))
            detail = f"the annotations state {stated} pixels, but the image has {size[0]} x {size[1]}"
            raise InvalidRow("wrong image size", detail)
        instances: list[Instance] = []
        errors: list[RowError] = [*row.errors]
        for annotation in row.annotations:
            try:
                instances.append(validate_annotation(annotation, size, row.task, row.class_names, row.unit))
            except Exception as error:
                errors.append(to_row_error(error, annotation.source))
        if errors and not instances:
            return ValidatedRow([], errors)
        query = row.task.token + check_text("phrase", row.phrase)
        if row.task.input == "region":
            if len(instances) != 1:
                raise InvalidRow("no region", f"{row.task.name} asks about one object, not {len(instances)}")
            query += _format_region(instances[0], size)
        region = query.removeprefix(row.task.token) if row.task.input == "region" else ""
        target = _write_target(row.task, instances, size, region) if instances else ""
        example = self._to_example(row, query, target, size)
        return ValidatedRow([replace(example, exact_boxes=find_exact_boxes(example, instances))], errors)

    def _to_example(self, row: RawRow, query: str, target: str, size: tuple[int, int]) -> Example:
        prompt = self._build_prompt(query, size)
        try:
            target = validate_target(check_text("response", target), prompt)
        except ArgumentError as error:
            raise InvalidRow("target does not fit the task", str(error)) from error
        if (length := self._count_tokens(target)) > self.max_target_tokens:
            raise InvalidRow("target too long", f"{length} tokens; max_length is {self.max_target_tokens}")
        assert row.image is not None  # `image_size` has opened it
        return Example(row.image, prompt, target, row.source, size)

    def _build_prompt(self, query: str, size: tuple[int, int]) -> Prompt:
        try:
            prompt = self.template.build_prompt(query, image_size=size)
        except PromptError as error:
            raise InvalidRow("invalid query", str(error)) from error
        limit = self.max_prompt_tokens
        if limit is not None and (length := self._count_tokens(prompt.prompt)) > limit:
            raise InvalidRow("query too long", f"{length} tokens; the model reads at most {limit} besides the image")
        return prompt

    def _count_tokens(self, text: str) -> int:
        tokenizer = self.template.tokenizer
        # not verbose: transformers would warn of long texts, which become row errors
        return 0 if tokenizer is None else len(tokenizer(text, verbose=False)["input_ids"])


def merge_references(examples: Iterable[Example]) -> list[Example]:
    """Return one example for each image and query that asks for text; the targets of the others become its `references`.

    Other examples stay as they are: their targets list all instances.
    """
    groups: dict[Hashable, list[Example]] = {}
    for number, example in enumerate(examples):
        is_text = example.prompt.task.result == "text"
        groups.setdefault((example.image_key, example.prompt.query) if is_text else number, []).append(example)
    return [
        replace(first, references=tuple(dict.fromkeys((*first.references, *(e.target for e in others)))))
        for first, *others in groups.values()
    ]


def find_exact_boxes(example: Example, instances: Sequence[Instance]) -> np.ndarray | None:
    """Return the annotated boxes in the order of the instances of a target, which groups them by category.

    Returns:
        N x 4 pixels; None if the target has no boxes, or if one of them is not an annotated box up to a location bin.
    """
    parsed = example.ground_truth
    if not isinstance(parsed, Boxes) or parsed.polygons or len(parsed) != len(instances) or not instances:
        return None
    from scipy.optimize import linear_sum_assignment

    annotated = np.array([instance.box for instance in instances], float).reshape(-1, 4)
    tolerance = np.tile(np.array(example.image_size, float) / NUM_BINS, 2)
    distance = (np.abs(parsed.boxes[:, None] - annotated[None]) / tolerance).max(axis=2)
    rows, columns = linear_sum_assignment(distance)
    return annotated[columns] if (distance[rows, columns] <= 1).all() else None


def to_answers(response: Any) -> list[str]:
    """Return the answers of a row.

    Args:
        response: text, a list of texts, a number, or None for the empty answer.

    Raises:
        InvalidRow: for anything else, and for an empty list.
    """
    if isinstance(response, (list, tuple, np.ndarray)):
        if not len(response):
            raise InvalidRow("invalid response", 'the list has no answer; an empty answer is null or ""')
        return [check_text("response", answer) for answer in response]
    if response is None:
        return [""]
    if isinstance(response, Real) and not isinstance(response, bool):
        return [_format_number(response)]
    return [check_text("response", response)]


def _format_number(number: Real) -> str:
    """Return a number as decimal digits."""
    if isinstance(number, Integral):
        return str(int(number))
    if not np.isfinite(float(number)):
        raise InvalidRow("invalid response", f"{number} is no finite number")
    return format(Decimal(repr(float(number))), "f")


def fill_boxes(row: TextRow, query: str, response: str, image_size: tuple[int, int]) -> tuple[str, str]:
    """Return the query and response of a row with the location tokens of its boxes in place of `<bbox>`.

    Raises:
        InvalidRow: if there are more or fewer boxes than placeholders, and for boxes that are not in the image.
    """
    boxes = parse_boxes(row.boxes, row.unit, image_size)
    num_placeholders = query.count("<bbox>") + response.count("<bbox>")
    if len(boxes) != num_placeholders:
        raise InvalidRow("placeholders do not fit the boxes", f"{len(boxes)} boxes for {num_placeholders} x <bbox>")
    tokens = (format_location_tokens(box, image_size) for box in boxes)
    query, response = (re.sub("<bbox>", lambda _: next(tokens), text) for text in (query, response))
    return query, response


def expand_objects(row: TextRow, query: str, response: str, image_size: tuple[int, int]) -> list[tuple[str, str]]:
    """Return the (query, target) pairs of a row with ms-swift's objects: prompts with boxes, or one prompt to find them.

    Raises:
        InvalidRow: for malformed objects.
    """
    if not isinstance(row.objects, (list, tuple, np.ndarray)):
        raise InvalidRow("invalid objects", f"expected a list of objects, but got {shorten(row.objects)}")
    instances = [instance for item in row.objects for instance in parse_object(item, image_size, row.class_names)]
    if "<bbox>" in query and "<ref-object>" in response:
        task = get_task("<REGION_TO_DESCRIPTION>")
        regions = [_format_region(instance, image_size) for instance in instances]
        return [
            (task.token + region, _write_target(task, [instance], image_size, region))
            for region, instance in zip(regions, instances, strict=True)
        ]
    if "<ref-object>" in query and "<bbox>" in response:
        task = get_task("<OPEN_VOCABULARY_DETECTION>")
        phrases = " and ".join(dict.fromkeys(instance.label for instance in instances))
        return [(task.token + phrases, _write_target(task, instances, image_size))]
    raise InvalidRow("objects without placeholders", _MIXED_PLACEHOLDERS)


def _is_empty(objects: Any) -> bool:
    return objects is None or (isinstance(objects, (list, tuple, np.ndarray)) and not len(objects))


def _write_target(task: Task, instances: Sequence[Instance], image_size: tuple[int, int], region: str = "") -> str:
    """Write instances as a target text, see `format_target`.

    Raises:
        InvalidRow: if the format of the task cannot express them.
    """
    try:
        return format_target(task, instances, image_size, region)
    except ValueError as error:
        raise InvalidRow("target does not fit the task", str(error)) from error


def _format_region(instance: Instance, image_size: tuple[int, int]) -> str:
    """Return the box of an instance as the region of a prompt."""
    return format_location_tokens(np.asarray(instance.box, float), image_size)


def summarize_row_errors(errors: Iterable[RowError], examples_per_kind: int = 5) -> str:
    """Return a text that counts errors by kind, the most frequent first, with the first ones of each kind."""
    by_kind: defaultdict[str, list[RowError]] = defaultdict(list)
    for error in errors:
        by_kind[error.kind].append(error)
    lines: list[str] = []
    for kind, same in sorted(by_kind.items(), key=lambda item: -len(item[1])):
        lines += [f"{len(same)} x {kind}", *(f"    {error}" for error in same[:examples_per_kind])]
        if len(same) > examples_per_kind:
            lines.append(f"    … and {len(same) - examples_per_kind} more")
    return "\n".join(lines)
