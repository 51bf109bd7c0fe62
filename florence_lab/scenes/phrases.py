"""Read phrases about scenes: which objects "the two red cars on the left" refers to.

Every phrase that `captions` writes can be parsed by `phrases` and counted by `caption_counts`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..argument_validation import validate_arguments
from .paint import PALETTE
from .sprites import SPRITES
from .types import SceneData, SceneObject

IRREGULAR_PLURALS = {"sheep": "sheep", "person": "people", "bus": "buses", "cactus": "cacti", "snowman": "snowmen"}

UNIQUE_CATEGORIES = ("sun", "moon")
"""Categories that take the definite article: "the sun"."""

SYNONYMS = {
    "sheeps": "sheep",
    "persons": "person",
    "cactuses": "cactus",
    "plane": "airplane",
    "planes": "airplane",
    "bike": "bicycle",
    "bikes": "bicycle",
    "hot air balloon": "balloon",
    "hot air balloons": "balloon",
    "parasol": "umbrella",
    "parasols": "umbrella",
}
"""Further nouns that are understood, and their categories. Captions use the names of the categories only."""

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

BACKGROUND_PHRASES = {
    "field": "in a field",
    "beach": "on a beach",
    "street": "on a street",
    "snow": "in the snow",
    "night": "at night",
    "desert": "in a desert",
    "lake": "by a lake",
}
"""Name of a background -> the phrase that captions use for it."""


def plural(label: str) -> str:
    """Return the plural of a category, `"people"` for `"person"`."""
    return IRREGULAR_PLURALS.get(label, label + "s")


def noun_phrase(label: str, color: str | None, text: str | None = None, is_plural: bool = False) -> str:
    """Return a noun phrase without an article: `"red car"`, `"people in blue"`, `"yellow sign that says STOP"`."""
    noun = plural(label) if is_plural else label
    if color and label == "person":
        noun = f"{noun} in {color}"
    elif color:
        noun = f"{color} {noun}"
    return f"{noun} that says {text}" if text else noun


def center(scene_object: SceneObject) -> tuple[float, float]:
    """Return the center of an object's box, in fractions of the image."""
    x0, y0, x1, y1 = scene_object.box
    return (x0 + x1) / 2 / scene_object.image_size[0], (y0 + y1) / 2 / scene_object.image_size[1]


@dataclass(frozen=True)
class Position:
    """A phrase for a position in the image.

    Attributes:
        phrase: `"on the left"`.
        contains: whether a center (x, y), in fractions of the image, lies in the third that the phrase describes.
        distance: how far a center is from the ideal position; the smaller, the better the phrase fits.
    """

    phrase: str
    contains: Callable[[float, float], bool]
    distance: Callable[[float, float], float]


POSITIONS = (
    Position("on the left", lambda x, y: x < 1 / 3, lambda x, y: x),
    Position("in the middle", lambda x, y: 1 / 3 <= x <= 2 / 3, lambda x, y: abs(x - 0.5)),
    Position("on the right", lambda x, y: x > 2 / 3, lambda x, y: -x),
    Position("at the top", lambda x, y: y < 1 / 3, lambda x, y: y),
    Position("at the bottom", lambda x, y: y > 2 / 3, lambda x, y: -y),
)

COLUMNS = POSITIONS[:3]
"""The positions from left to right; each object is in exactly one of them."""


def column_index(scene_object: SceneObject) -> int:
    """Return the index in `COLUMNS` of the column that an object's center lies in."""
    return next(i for i, position in enumerate(COLUMNS) if position.contains(*center(scene_object)))


def column_phrase(scene_object: SceneObject) -> str:
    """Return `"on the left"`, `"in the middle"` or `"on the right"`."""
    return COLUMNS[column_index(scene_object)].phrase


def relative_area(scene_object: SceneObject) -> float:
    """Return the visible area of an object as a fraction of the image."""
    return scene_object.area / (scene_object.image_size[0] * scene_object.image_size[1])


SUPERLATIVES: dict[str, Callable[[SceneObject], float]] = {
    "largest": lambda scene_object: -relative_area(scene_object),
    "biggest": lambda scene_object: -relative_area(scene_object),
    "smallest": relative_area,
    "leftmost": lambda scene_object: center(scene_object)[0],
    "rightmost": lambda scene_object: -center(scene_object)[0],
}
"""Superlative -> the quantity of which the object that it refers to has the smallest value."""

NUMBER_PHRASES = {word: n for n, word in enumerate(NUMBERS)} | {"a couple of": 2, "a pair of": 2}


def _alternatives(words: Sequence[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


@lru_cache
def _nouns(labels: tuple[str, ...]) -> dict[str, tuple[str, bool]]:
    """Return a table of nouns: the category of each, and whether it is a plural."""
    nouns = {word: (label, word.endswith("s")) for word, label in SYNONYMS.items()}
    return nouns | {plural(label): (label, True) for label in labels} | {label: (label, False) for label in labels}


@lru_cache
def _pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    """Return the pattern of a noun phrase that names one of the categories."""
    colors = _alternatives((*PALETTE, "grey"))
    return re.compile(
        rf"""\b(?:(?P<number>{_alternatives(tuple(NUMBER_PHRASES))}|\d+)\s+
              |(?P<article>an?|the|all(?:\s+the)?|both|another|every)\s+)?
        (?:(?P<of_these>{_alternatives(NUMBERS)})\s+)?
        (?:(?P<superlative>{_alternatives(tuple(SUPERLATIVES))})\s+)?
        (?:(?P<color>{colors})\s+)?
        (?P<noun>{_alternatives(tuple(_nouns(labels)))})\b
        (?:\s+in\s+(?P<clothes>{colors})\b)?
        (?:\s+(?:that\s+(?:says?|reads?)|saying|reading|with\s+the\s+word)\s+["'“]?(?P<word>\w+)["'”]?)?
        (?:\s+(?P<position>{_alternatives([p.phrase for p in POSITIONS])})\b)?""",
        re.IGNORECASE | re.VERBOSE,
    )


@dataclass(frozen=True)
class Phrase:
    """A noun phrase of a text, and what it refers to.

    Attributes:
        text: the phrase as written.
        label: the category that it names.
        color: a name of the palette, or None.
        sign_text: the word on a sign, or None.
        article: `"a"`, `"an"`, `"the"`, `"all"`, `"both"`, `"another"`, `"every"` or None.
        count: the number in the phrase, 1 for an indefinite article; None without either.
        is_plural: whether the noun is a plural.
        superlative: a key of `SUPERLATIVES`, or None.
        position: the phrase of one of `POSITIONS`, or None.
    """

    text: str
    label: str
    color: str | None
    sign_text: str | None
    article: str | None
    count: int | None
    is_plural: bool
    superlative: str | None
    position: str | None

    def matches(self, objects: Sequence[SceneObject]) -> list[SceneObject]:
        """Return those of the objects that the phrase refers to, from left to right."""
        found = [
            scene_object
            for scene_object in objects
            if scene_object.label == self.label
            and self.color in (None, scene_object.color)
            and (self.sign_text is None or (scene_object.text or "").lower() == self.sign_text.lower())
        ]
        if self.position and found:
            position = next(p for p in POSITIONS if p.phrase == self.position)
            inside = [scene_object for scene_object in found if position.contains(*center(scene_object))]
            found = inside if self._is_several else [min(inside or found, key=lambda o: position.distance(*center(o)))]
        if self.superlative and found:
            found = [min(found, key=SUPERLATIVES[self.superlative])]
        return sort_left_to_right(found)

    @property
    def _is_several(self) -> bool:
        return self.is_plural or (self.count or 1) > 1 or self.article in ("all", "both")


def phrases(text: str) -> list[Phrase]:
    """Return all noun phrases of a text that name a category, in their order."""
    return [_parse_phrase(match) for match in _pattern(tuple(SPRITES)).finditer(text)]


def _parse_phrase(match: re.Match[str]) -> Phrase:
    groups = {name: value.lower() if value else None for name, value in match.groupdict().items()}
    label, is_plural = _nouns(tuple(SPRITES))[match["noun"].lower()]
    color = groups["color"] or groups["clothes"]
    number = groups["number"] or groups["of_these"]
    article = groups["article"].split()[0] if groups["article"] else None
    count = None
    if number:
        count = NUMBER_PHRASES[number] if number in NUMBER_PHRASES else int(number)
    elif article in ("a", "an", "another"):
        count = 1
    return Phrase(
        match.group().strip(),
        label,
        "gray" if color == "grey" else color,
        match["word"],
        article,
        count,
        is_plural,
        groups["superlative"],
        groups["position"],
    )


@validate_arguments
def caption_counts(text: str) -> Counter[str]:
    """Count the objects of each category that a caption mentions: `"two cats and a bus"` -> `{"cat": 2, "bus": 1}`.

    Words on signs do not count. A definite article refers to objects that were mentioned before, except in "the sun" and
    "the moon". A bare plural counts as two.
    """
    counts: Counter[str] = Counter()
    for phrase in phrases(text):
        if phrase.count is not None:
            count = phrase.count
        elif phrase.article and phrase.label not in UNIQUE_CATEGORIES:
            count = 0
        else:
            count = 2 if phrase.is_plural else 1
        if count:
            counts[phrase.label] += count
    return counts


@validate_arguments
def object_counts(scene: SceneData) -> Counter[str]:
    """Count the objects of each category in a scene."""
    return Counter(scene_object.label for scene_object in scene.objects)


def sort_left_to_right(objects: Sequence[SceneObject]) -> list[SceneObject]:
    """Sort objects by the left edge of their boxes, then by the upper edge."""
    return sorted(objects, key=lambda scene_object: scene_object.box)
