"""The words, boxes and polygons of an answer, with the positions of their tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..argument_validation import validate_fields
from ..geometry import box_corners
from ..template.locations import bins_to_pixels
from ..template.parsing import RESULT_FORMATS
from ..template.prompts import Prompt
from ..template.vocabulary import TokenSpan

SpanKind = Literal["word", "box", "quad", "polygon", "token"]

_PUNCTUATION = ".,;:!?"


@dataclass(frozen=True)
class AnswerSpan:
    """A word, box, quad box, polygon or single token of an answer.

    Attributes:
        kind: what it is.
        text: the word, the token, or `"box 1"`, `"quad 1"`, `"polygon 1"` …, numbered in the order of the answer.
        positions: indices of its tokens in the generated sequence.
        points: K x 2 float64 pixels: the corners of a box or quad box, the vertices of a polygon; None for a word.
    """

    kind: SpanKind
    text: str
    positions: tuple[int, ...]
    points: np.ndarray | None = None

    def __post_init__(self) -> None:
        validate_fields(self)


def split_spans(
    tokenizer: PreTrainedTokenizerBase,
    token_ids: Sequence[int],
    token_spans: Sequence[TokenSpan],
    prompt: Prompt,
    image_size: tuple[int, int],
) -> Iterator[AnswerSpan]:
    """Split a generated sequence into words and shapes. Start and end tokens and separators belong to neither.

    Args:
        tokenizer: decodes words.
        token_ids: the T generated ids.
        token_spans: the same, as `FlorenceTemplate.split_tokens` gives it.
        prompt: the prompt of the answer; its task determines the shapes.
        image_size: (width, height) in pixels.
    """
    kind, length = _shape(prompt, token_spans)
    number = 0
    for run in _group_locations(token_spans):
        if run[0].bin is None:
            yield from _split_words(tokenizer, token_ids, run[0].positions)
            continue
        for start in range(0, len(run), length or len(run)):
            shape = run[start : start + (length or len(run))]
            number += 1
            positions = tuple(position for span in shape for position in span.positions)
            bins = [span.bin for span in shape if span.bin is not None]
            yield AnswerSpan(kind, f"{kind} {number}", positions, _to_points(kind, bins, image_size))


def decode_tokens(tokenizer: PreTrainedTokenizerBase, token_ids: Iterable[int]) -> list[str]:
    """Return the text of each token, with its leading space if it has one."""
    return [str(tokenizer.decode([int(i)], clean_up_tokenization_spaces=False)) for i in token_ids]


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return [word for word in (w.strip(_PUNCTUATION) for w in text.casefold().split()) if word]


def _shape(prompt: Prompt, token_spans: Sequence[TokenSpan]) -> tuple[SpanKind, int | None]:
    """The kind of shape in an answer, and its number of location tokens; None if all consecutive ones form one shape."""
    kind = prompt.task.result
    has_polygons = any(span.text in ("<poly>", "<sep>") for span in token_spans)
    if kind == "polygons" or (kind == "boxes_or_polygons" and has_polygons):
        return "polygon", None
    if kind in RESULT_FORMATS and RESULT_FORMATS[kind].coordinates == 8:
        return "quad", 8
    return "box", 4


def _group_locations(spans: Sequence[TokenSpan]) -> Iterator[list[TokenSpan]]:
    """Group consecutive location tokens. Words form groups of their own; separators are dropped."""
    run: list[TokenSpan] = []
    for span in spans:
        if span.bin is not None:
            run.append(span)
            continue
        if run:
            yield run
            run = []
        if span.is_text:
            yield [span]
    if run:
        yield run


def _to_points(kind: SpanKind, bins: Sequence[int], image_size: tuple[int, int]) -> np.ndarray:
    points = bins_to_pixels(bins[: len(bins) // 2 * 2], image_size).reshape(-1, 2)
    return box_corners(points.ravel()) if kind == "box" and len(points) == 2 else points


def _split_words(
    tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], positions: Sequence[int]
) -> Iterator[AnswerSpan]:
    """Group tokens into words: a token that starts with a space starts a word."""
    words: list[list[int]] = []
    texts = dict(zip(positions, decode_tokens(tokenizer, [token_ids[i] for i in positions]), strict=True))
    for position, text in texts.items():
        if text.startswith(" ") or not words:
            words.append([])
        words[-1].append(position)
    for word in words:
        while word and texts[word[-1]] in _PUNCTUATION:
            word.pop()  # the attention of a comma differs from that of the word before it
        text = str(tokenizer.decode([token_ids[i] for i in word], clean_up_tokenization_spaces=False)).strip()
        if text:
            yield AnswerSpan("word", text, tuple(word))
