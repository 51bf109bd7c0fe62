"""TODO"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .phrases import COLUMNS, NUMBERS, PLACES, POSITIONS, UNIQUE, _area, column, left_to_right, middle, named, phrases

if TYPE_CHECKING:
    from .phrases import Position
    from .types import SceneData, SceneObject

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


def with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def listed(parts: Sequence[str]) -> str:
    """`["a", "b", "c"]` -> `"a, b and c"`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1]))) if parts else ""


def description(thing: SceneObject) -> str:
    return named(thing.label, thing.color, thing.text)


def counted(count: int, label: str, color: str | None, word: str | None = None) -> str:
    """`"four white sheep"`, `"a red car"`, `"the sun"`."""
    if label in UNIQUE and count == 1:
        return f"the {label}"
    words = named(label, color, word, many=count > 1)
    return f"{NUMBERS[count]} {words}" if count > 1 else with_article(words)


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


def spoken_groups(scene: SceneData, by_word: bool = False) -> list[str]:
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


def _short(scene: SceneData, variant: int) -> str:
    told, place = spoken_groups(scene), PLACES[scene.background]
    return (
        f"A cartoon picture of {listed(told)} {place}.",
        f"{_capital(listed(told))} {place}.",
        f"There {_verb(told[:1])} {listed(told)} {place}.",
        f"A drawing of {listed(told)} {place}.",
    )[variant % 4]


def _detailed(scene: SceneData, variant: int) -> str:
    told, place = listed(spoken_groups(scene, by_word=True)), PLACES[scene.background]
    more = SURROUNDINGS[scene.background]
    return (
        f"The picture shows {told} {place}. {more[0]}",
        f"This is a cartoon of {told} {place}. {more[0]}",
        f"In this drawing we see {told} {place}. {more[1]}",
        f"The image shows {told} {place}. {more[1]}",
    )[variant % 4]


def _paragraph(scene: SceneData, variant: int) -> str:
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


CAPTIONS: dict[str, Callable[[SceneData, int], str]] = {
    "<CAPTION>": _short,
    "<DETAILED_CAPTION>": _detailed,
    "<MORE_DETAILED_CAPTION>": _paragraph,
}


def caption(scene: SceneData, task: str = "<CAPTION>", variant: int = 0) -> str:
    """What there is in a scene, at one of three lengths; every thing is named once, with its number.

    Args:
        task: `"<CAPTION>"`, `"<DETAILED_CAPTION>"` or `"<MORE_DETAILED_CAPTION>"`.
        variant: which phrasing; 0 is the plain one.
    """
    return CAPTIONS[task](scene, variant)
