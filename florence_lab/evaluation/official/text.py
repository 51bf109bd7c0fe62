"""Error rates of recognized text: words and characters (jiwer), and the edit distance between two texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...argument_validation import validate_arguments
from ..labels import normalize_space


class EditCounts(NamedTuple):
    """The edits that turn a text into its reference, and the length of the reference.

    Attributes:
        edits: substitutions, deletions and insertions.
        length: words or characters of the reference.
    """

    edits: int
    length: int


@validate_arguments
def edit_distance(text: str, reference: str) -> int:
    """Return the Levenshtein distance of two texts in characters."""
    return _count_edits(list(text), list(reference)).edits


@validate_arguments
def count_word_edits(text: str, reference: str) -> EditCounts:
    """Return the edits in words. Any white space separates words."""
    return _count_edits(text.split(), reference.split())


@validate_arguments
def count_character_edits(text: str, reference: str) -> EditCounts:
    """Return the edits in characters. White space of any length is one space, and none at the ends."""
    return _count_edits(list(normalize_space(text)), list(normalize_space(reference)))


@validate_arguments
def error_rate(counts: Sequence[EditCounts]) -> float:
    """Return the edits of all texts divided by the length of all references.

    Without anything to recognize the rate is 0 if nothing was recognized, else infinite; nan without texts.
    """
    edits, length = (sum(values) for values in zip(*counts, strict=True)) if counts else (0, 0)
    if not counts:
        return float("nan")
    return edits / length if length else (float("inf") if edits else 0.0)


def _count_edits(items: Sequence[str], reference: Sequence[str]) -> EditCounts:
    """Levenshtein's distance of two sequences, a row of the table at a time."""
    if not items or not reference or items == reference:
        return EditCounts(0 if items == reference else max(len(items), len(reference)), len(reference))
    row = list(range(len(reference) + 1))
    for i, item in enumerate(items, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(reference, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (item != other))
    return EditCounts(row[-1], len(reference))
