"""TODO"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from .paint import PALETTE
from .sprites import SPRITES

if TYPE_CHECKING:
    from .types import SceneData, SceneObject

IRREGULAR = {"sheep": "sheep", "person": "people", "bus": "buses", "cactus": "cacti", "snowman": "snowmen"}

UNIQUE = ("sun", "moon")  # "the sun", not "a sun"

# Other words that readers may use for a category; ours are made from the table of sprites.
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

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

PLACES = {
    "field": "in a field",
    "beach": "on a beach",
    "street": "on a street",
    "snow": "in the snow",
    "night": "at night",
    "desert": "in a desert",
    "lake": "by a lake",
}


def plural(label: str) -> str:
    return IRREGULAR.get(label, label + "s")


def named(label: str, color: str | None, word: str | None = None, many: bool = False) -> str:
    """`"red car"`, `"people in blue"`, `"yellow sign that says STOP"`."""
    noun = plural(label) if many else label
    if color and label == "person":
        noun = f"{noun} in {color}"
    elif color:
        noun = f"{color} {noun}"
    return f"{noun} that says {word}" if word else noun


def middle(thing: SceneObject) -> tuple[float, float]:
    """The middle of the visible part, in fractions of the picture."""
    x0, y0, x1, y1 = thing.box
    return (x0 + x1) / 2 / thing.picture[0], (y0 + y1) / 2 / thing.picture[1]


@dataclass(frozen=True)
class Position:
    """A way to say where something is: `inside` for the third of the picture that it speaks of, and `rank`, least
    for the thing that it fits best."""

    words: str
    inside: Callable[[float, float], bool]
    rank: Callable[[float, float], float]


POSITIONS = (
    Position("on the left", lambda x, y: x < 1 / 3, lambda x, y: x),
    Position("in the middle", lambda x, y: 1 / 3 <= x <= 2 / 3, lambda x, y: abs(x - 0.5)),
    Position("on the right", lambda x, y: x > 2 / 3, lambda x, y: -x),
    Position("at the top", lambda x, y: y < 1 / 3, lambda x, y: y),
    Position("at the bottom", lambda x, y: y > 2 / 3, lambda x, y: -y),
)

COLUMNS = POSITIONS[:3]


def column(thing: SceneObject) -> str:
    """`"on the left"`, `"in the middle"` or `"on the right"`."""
    return next(p.words for p in COLUMNS if p.inside(*middle(thing)))


def _area(thing: SceneObject) -> float:
    return thing.attributes["area"] / (thing.picture[0] * thing.picture[1])


# Words that single one thing out: the value by which it comes first.
SUPERLATIVES: dict[str, Callable[[SceneObject], float]] = {
    "largest": lambda thing: -_area(thing),
    "biggest": lambda thing: -_area(thing),
    "smallest": _area,
    "leftmost": lambda thing: middle(thing)[0],
    "rightmost": lambda thing: -middle(thing)[0],
}


def _choice(words: Sequence[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_NUMBER_WORDS = {word: n for n, word in enumerate(NUMBERS)} | {"a couple of": 2, "a pair of": 2}


@lru_cache
def _nouns(labels: tuple[str, ...]) -> dict[str, tuple[str, bool]]:
    """Noun -> the category that it names, and whether it is a plural."""
    nouns = {word: (label, word.endswith("s")) for word, label in SYNONYMS.items()}
    return nouns | {plural(label): (label, True) for label in labels} | {label: (label, False) for label in labels}


@lru_cache
def _pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    """Of a noun phrase that names one of these categories."""
    return re.compile(
        rf"""\b(?:(?P<number>{_choice(tuple(_NUMBER_WORDS))}|\d+)\s+
              |(?P<article>an?|the|all(?:\s+the)?|both|another|every)\s+)?
        (?:(?P<of_these>{_choice(NUMBERS)})\s+)?
        (?:(?P<superlative>{_choice(tuple(SUPERLATIVES))})\s+)?
        (?:(?P<color>{_choice((*PALETTE, "grey"))})\s+)?
        (?P<noun>{_choice(tuple(_nouns(labels)))})\b
        (?:\s+in\s+(?P<clothes>{_choice((*PALETTE, "grey"))})\b)?
        (?:\s+(?:that\s+(?:says?|reads?)|saying|reading|with\s+the\s+word)\s+["'“]?(?P<word>\w+)["'”]?)?
        (?:\s+(?P<position>{_choice([p.words for p in POSITIONS])})\b)?""",
        re.IGNORECASE | re.VERBOSE,
    )


@dataclass(frozen=True)
class Phrase:
    """A noun phrase found in a text: the span itself, and what it asks for."""

    span: str
    label: str
    color: str | None
    word: str | None
    article: str | None
    count: int | None  # as said; None where only the noun's own number tells
    many: bool  # the noun is a plural
    superlative: str | None
    position: str | None

    def matches(self, things: Sequence[SceneObject]) -> list[SceneObject]:
        """The things that it names, left to right."""
        found = [
            thing
            for thing in things
            if thing.label == self.label
            and self.color in (None, thing.color)
            and (self.word is None or (thing.text or "").lower() == self.word.lower())
        ]
        if self.position and found:
            position = next(p for p in POSITIONS if p.words == self.position)
            inside = [thing for thing in found if position.inside(*middle(thing))]
            found = inside if self._several else [min(inside or found, key=lambda t: position.rank(*middle(t)))]
        if self.superlative and found:
            found = [min(found, key=SUPERLATIVES[self.superlative])]
        return left_to_right(found)

    @property
    def _several(self) -> bool:
        return self.many or (self.count or 1) > 1 or self.article in ("all", "both")


def phrases(text: str) -> list[Phrase]:
    """All noun phrases of a text that name a category, in order."""
    return [_phrase(match) for match in _pattern(tuple(SPRITES)).finditer(text)]


def _phrase(match: re.Match[str]) -> Phrase:
    part = {name: value.lower() if value else None for name, value in match.groupdict().items()}
    label, many = _nouns(tuple(SPRITES))[part["noun"]]
    color = part["color"] or part["clothes"]
    number = part["number"] or part["of_these"]
    article = part["article"].split()[0] if part["article"] else None
    count = None
    if number:
        count = _NUMBER_WORDS[number] if number in _NUMBER_WORDS else int(number)
    elif article in ("a", "an", "another"):
        count = 1
    return Phrase(
        match.group().strip(),
        label,
        "gray" if color == "grey" else color,
        match["word"],
        article,
        count,
        many,
        part["superlative"],
        part["position"],
    )


def caption_counts(text: str) -> Counter[str]:
    """How many of each category a caption speaks of: `"two cats and a bus"` -> `{"cat": 2, "bus": 1}`.

    Words on signs are no things; "the cats" refers to cats spoken of before, while "the sun" is one sun; a bare
    plural ("cats") is taken for two.
    """
    counts: Counter[str] = Counter()
    for phrase in phrases(text):
        if phrase.count is not None:
            count = phrase.count
        elif phrase.article and phrase.label not in UNIQUE:
            count = 0
        else:
            count = 2 if phrase.many else 1
        if count:
            counts[phrase.label] += count
    return counts


def object_counts(scene: SceneData) -> Counter[str]:
    """How many of each category a scene really has."""
    return Counter(thing.label for thing in scene.objects)


def left_to_right(things: Sequence[SceneObject]) -> list[SceneObject]:
    return sorted(things, key=lambda thing: (thing.box[0], thing.box[1], thing.box[2], thing.box[3]))
