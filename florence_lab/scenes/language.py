"""The words of the cartoon world: how things are named, counted and told apart, and how such words are read.

What is written here is read here: every phrase that `caption` and `referring` produce, `phrases` and
`caption_counts` understand.
"""

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
    from .scene import Scene, SceneObject

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
# What else there is to say of a place; no word of it names a category.
SURROUNDINGS = {
    "field": ("Mountains rise behind the green grass.", "There is green grass with mountains behind it."),
    "beach": ("The sea lies behind the sand.", "Behind the sand there is the blue sea."),
    "street": ("Tall buildings stand in the distance.", "In the distance there are tall buildings."),
    "snow": ("White hills and mountains lie in the background.", "Snow covers the hills and mountains."),
    "night": ("Stars shine in the dark sky.", "The dark sky is full of stars."),
    "desert": ("Red rocks stand on the warm sand.", "There is warm sand with red rocks on it."),
    "lake": ("Mountains rise beyond the water.", "Beyond the water there are mountains."),
}


def plural(label: str) -> str:
    return IRREGULAR.get(label, label + "s")


def with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def listed(parts: Sequence[str]) -> str:
    """`["a", "b", "c"]` -> `"a, b and c"`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1]))) if parts else ""


def named(label: str, color: str | None, word: str | None = None, many: bool = False) -> str:
    """`"red car"`, `"people in blue"`, `"yellow sign that says STOP"`."""
    noun = plural(label) if many else label
    if color and label == "person":
        noun = f"{noun} in {color}"
    elif color:
        noun = f"{color} {noun}"
    return f"{noun} that says {word}" if word else noun


def description(thing: SceneObject) -> str:
    return named(thing.label, thing.color, thing.text)


def counted(count: int, label: str, color: str | None, word: str | None = None) -> str:
    """`"four white sheep"`, `"a red car"`, `"the sun"`."""
    if label in UNIQUE and count == 1:
        return f"the {label}"
    words = named(label, color, word, many=count > 1)
    return f"{NUMBERS[count]} {words}" if count > 1 else with_article(words)


# ---------------------------------------------------------------- where things are


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


# ---------------------------------------------------------------- reading phrases


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


def object_counts(scene: Scene) -> Counter[str]:
    """How many of each category a scene really has."""
    return Counter(thing.label for thing in scene.objects)


def left_to_right(things: Sequence[SceneObject]) -> list[SceneObject]:
    return sorted(things, key=lambda thing: (thing.box[0], thing.box[1], thing.box[2], thing.box[3]))


# ---------------------------------------------------------------- telling one thing from the others


def referring(thing: SceneObject, things: Sequence[SceneObject]) -> list[str]:
    """Expressions that mean this thing and clearly no other: `"the red car on the left"`. May be empty."""
    names = {thing.label, named(thing.label, thing.color), description(thing)}
    if thing.text:
        names.add(named(thing.label, None, thing.text))
    candidates = []
    for name in sorted(names):
        rivals = [other for other in phrases(name)[0].matches(things) if other is not thing]
        if not rivals:
            candidates.append(f"the {name}")
        candidates += [f"the {name} {p.words}" for p in POSITIONS if _clearly(p, thing, rivals)]
        if rivals and "that says" not in name:
            candidates += [f"the {word} {name}" for word in _clear_superlatives(thing, rivals)]
    return [words for words in candidates if phrases(words)[0].matches(things) == [thing]]


def _clearly(position: Position, thing: SceneObject, rivals: Sequence[SceneObject]) -> bool:
    """Inside that third, and well ahead of everything else that might be meant."""
    rank = position.rank(*middle(thing))
    return position.inside(*middle(thing)) and all(
        not position.inside(*middle(other)) and position.rank(*middle(other)) > rank + 0.08 for other in rivals
    )


def _clear_superlatives(thing: SceneObject, rivals: Sequence[SceneObject]) -> list[str]:
    areas = [_area(other) for other in rivals]
    words = ["largest", "biggest"] * (_area(thing) > 1.35 * max(areas))
    words += ["smallest"] * (1.35 * _area(thing) < min(areas))
    return words


# ---------------------------------------------------------------- captions


def spoken_groups(scene: Scene, by_word: bool = False) -> list[str]:
    """What there is, counted, in the order in which one meets it from the left.

    Things alike in label and colour (and word) are counted together. Without `by_word`, things alike in label
    are, and a colour is named only if they share it.
    """
    kinds: dict[tuple, list[SceneObject]] = {}
    for thing in left_to_right(scene.objects):
        key = (thing.label, thing.color, thing.text) if by_word else (thing.label,)
        kinds.setdefault(key, []).append(thing)
    told = []
    for things in kinds.values():
        first = things[0]
        color = first.color if all(thing.color == first.color for thing in things) else None
        told.append(counted(len(things), first.label, color, first.text if by_word else None))
    return told


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _verb(told: Sequence[str]) -> str:
    return "is" if len(told) == 1 and told[0].split()[0] in ("a", "an", "the") else "are"


def _short(scene: Scene, variant: int) -> str:
    told, place = spoken_groups(scene), PLACES[scene.background]
    return (
        f"A cartoon picture of {listed(told)} {place}.",
        f"{_capital(listed(told))} {place}.",
        f"There {_verb(told[:1])} {listed(told)} {place}.",
        f"A drawing of {listed(told)} {place}.",
    )[variant % 4]


def _detailed(scene: Scene, variant: int) -> str:
    told, place = listed(spoken_groups(scene, by_word=True)), PLACES[scene.background]
    more = SURROUNDINGS[scene.background]
    return (
        f"The picture shows {told} {place}. {more[0]}",
        f"This is a cartoon of {told} {place}. {more[0]}",
        f"In this drawing we see {told} {place}. {more[1]}",
        f"The image shows {told} {place}. {more[1]}",
    )[variant % 4]


def _paragraph(scene: Scene, variant: int) -> str:
    place, more = PLACES[scene.background], SURROUNDINGS[scene.background]
    opening = (
        f"This is a cartoon scene {place}.",
        f"The image is a colorful drawing of a scene {place}.",
        f"The picture shows a cartoon scene {place}.",
    )[variant % 3]
    sentences = [opening]
    for position in COLUMNS:
        kinds = Counter(
            (thing.label, thing.color, thing.text)
            for thing in left_to_right(scene.objects)
            if column(thing) == position.words
        )
        told = [counted(count, *kind) for kind, count in kinds.items()]
        if told:
            sentences.append(f"{_capital(position.words)} there {_verb(told[:1])} {listed(told)}.")
    return " ".join([*sentences, more[variant // 3 % 2]])


CAPTIONS: dict[str, Callable[[Scene, int], str]] = {
    "<CAPTION>": _short,
    "<DETAILED_CAPTION>": _detailed,
    "<MORE_DETAILED_CAPTION>": _paragraph,
}


def caption(scene: Scene, task: str = "<CAPTION>", variant: int = 0) -> str:
    """What there is in a scene, at one of three lengths; every thing is named once, with its number.

    Args:
        task: `"<CAPTION>"`, `"<DETAILED_CAPTION>"` or `"<MORE_DETAILED_CAPTION>"`.
        variant: which phrasing; 0 is the plain one.
    """
    return CAPTIONS[task](scene, variant)
