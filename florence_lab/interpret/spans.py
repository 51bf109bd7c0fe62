"""TODO"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..results import Result
from ..tasks import get_task
from ..template.locations import bins_to_pixels
from ..template.vocabulary import TokenSpan

if TYPE_CHECKING:
    from ..predictor import Predictor

_SENTENCE_MARKS = ".,;:!?"


class AnswerSpan(NamedTuple):
    """A piece of an answer that means something to people: a word, or a box, quad box or outline.

    Attributes:
        name: the word; or `"box 1"`, `"quad 1"`, `"outline 1"` … in the order of the answer.
        positions: the places of its tokens in the answer.
        outline: K x 2 float64 pixels for a box (its four corners) or an outline, and for a token of one; None for a word.
    """

    name: str
    positions: tuple[int, ...]
    outline: np.ndarray | None = None


_COORDINATES = {"quads": ("quad", 8), "polygons": ("outline", None)}
"""What a run of location tokens is in the answers of a kind, and how many make one; in all others four are a box."""


def _parts(predictor: Predictor, ids: list[int], result: Result) -> Iterator[AnswerSpan]:
    """The words of an answer, and its boxes, numbered; start and end tokens are no part of either."""

    kind = get_task(result.task).result
    outlined = kind == "boxes_or_polygons" and ("<poly>" in result.raw or "<sep>" in result.raw)
    name, length = _COORDINATES.get("polygons" if outlined else kind, ("box", 4))
    number = 0
    for run in _runs(predictor.template.split_tokens(ids)):
        if run[0].bin is None:
            yield from _split_into_words(predictor, ids, run[0].positions)
            continue
        for some in _in_lots(run, length or len(run)):
            number += 1
            positions = tuple(position for piece in some for position in piece.positions)
            yield AnswerSpan(f"{name} {number}", positions, _outline([p.bin for p in some], result.image_size, name))


def _runs(pieces: Sequence[TokenSpan]) -> Iterator[list[TokenSpan]]:
    """Location tokens that follow each other are one run, words are one each; separators only part them."""
    run: list[TokenSpan] = []
    for piece in pieces:
        if piece.bin is not None:
            run.append(piece)
            continue
        if run:
            yield run
            run = []
        if not piece.text.startswith("<"):
            yield [piece]
    if run:
        yield run


def _in_lots(run: list[TokenSpan], length: int) -> Iterator[list[TokenSpan]]:
    return (run[start : start + length] for start in range(0, len(run), length))


def _outline(bins: list[int], image_size: tuple[int, int], name: str) -> np.ndarray:
    points = bins_to_pixels(bins[: len(bins) // 2 * 2], image_size).reshape(-1, 2)
    if name == "box" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    return points


def _split_into_words(predictor: Predictor, ids: list[int], positions: Sequence[int]) -> Iterator[AnswerSpan]:
    """BPE tokens -> words: a token that begins with a space begins a word."""
    words: list[list[int]] = []
    texts = dict(zip(positions, token_texts(predictor, [ids[i] for i in positions]), strict=True))
    for position, text in texts.items():
        if text.startswith(" ") or not words:
            words.append([])
        words[-1].append(position)
    for word in words:
        while word and texts[word[-1]] in _SENTENCE_MARKS:
            word.pop()  # a comma looks elsewhere than the word that it follows
        text = predictor.processor.tokenizer.decode([ids[i] for i in word], clean_up_tokenization_spaces=False)
        if text.strip():
            yield AnswerSpan(text.strip(), tuple(word))


def token_texts(predictor: Predictor, ids: Iterable[int]) -> list[str]:
    tokenizer = predictor.processor.tokenizer
    return [tokenizer.decode([int(i)], clean_up_tokenization_spaces=False) for i in ids]
