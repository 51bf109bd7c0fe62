"""Write text about scenes: captions, descriptions, and expressions that refer to one object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..exceptions import ArgumentError
from .phrases import (
    BACKGROUND_PHRASES,
    COLUMNS,
    NUMBERS,
    POSITIONS,
    UNIQUE_CATEGORIES,
    center,
    column_phrase,
    noun_phrase,
    phrases,
    relative_area,
    sort_left_to_right,
)

if TYPE_CHECKING:
    from .phrases import Position
    from .types import SceneData, SceneObject

BACKGROUND_SENTENCES = {
    "field": ("Mountains rise behind the green grass.", "There is green grass with mountains behind it."),
    "beach": ("The sea lies behind the sand.", "Behind the sand there is the blue sea."),
    "street": ("Tall buildings stand in the distance.", "In the distance there are tall buildings."),
    "snow": ("White hills and mountains lie in the background.", "Snow covers the hills and mountains."),
    "night": ("Stars shine in the dark sky.", "The dark sky is full of stars."),
    "desert": ("Red rocks stand on the warm sand.", "There is warm sand with red rocks on it."),
    "lake": ("Mountains rise beyond the water.", "Beyond the water there are mountains."),
}
"""Name of a background -> two sentences about it, neither of which names a category."""

MIN_POSITION_MARGIN = 0.08
"""By how much, in fractions of the image, a position must fit an object better than any other object of its kind."""

MIN_AREA_RATIO = 1.35
"""Ratio of the areas of an object and the next one from which on it is called the largest or the smallest."""


def with_article(phrase: str) -> str:
    """Prefix the indefinite article: `"an orange cat"`."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def join_with_and(parts: Sequence[str]) -> str:
    """Return an enumeration: `["a", "b", "c"]` -> `"a, b and c"`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1]))) if parts else ""


def description(scene_object: SceneObject) -> str:
    """Return the noun phrase of an object with its color and text: `"yellow sign that says STOP"`."""
    return noun_phrase(scene_object.label, scene_object.color, scene_object.text)


def counted_phrase(count: int, label: str, color: str | None, text: str | None = None) -> str:
    """Return a noun phrase with its number: `"four white sheep"`, `"a red car"`, `"the sun"`."""
    if label in UNIQUE_CATEGORIES and count == 1:
        return f"the {label}"
    phrase = noun_phrase(label, color, text, is_plural=count > 1)
    return f"{NUMBERS[count]} {phrase}" if count > 1 else with_article(phrase)


def referring_expressions(target: SceneObject, objects: Sequence[SceneObject]) -> list[str]:
    """Return expressions that refer to an object and unambiguously to no other: `"the red car on the left"`.

    Args:
        target: the object.
        objects: all objects of the scene.

    Returns:
        The expressions; empty if there is none.
    """
    names = {target.label, noun_phrase(target.label, target.color), description(target)}
    if target.text:
        names.add(noun_phrase(target.label, None, target.text))
    candidates = []
    for name in sorted(names):
        others = [other for other in phrases(name)[0].matches(objects) if other is not target]
        if not others:
            candidates.append(f"the {name}")
        candidates += [f"the {name} {p.phrase}" for p in POSITIONS if _is_unambiguous_position(p, target, others)]
        if others and "that says" not in name:
            candidates += [f"the {superlative} {name}" for superlative in _superlatives(target, others)]
    return [expression for expression in candidates if phrases(expression)[0].matches(objects) == [target]]


def _is_unambiguous_position(position: Position, target: SceneObject, others: Sequence[SceneObject]) -> bool:
    distance = position.distance(*center(target))
    return position.contains(*center(target)) and all(
        not position.contains(*center(other)) and position.distance(*center(other)) > distance + MIN_POSITION_MARGIN
        for other in others
    )


def _superlatives(target: SceneObject, others: Sequence[SceneObject]) -> list[str]:
    area, areas = relative_area(target), [relative_area(other) for other in others]
    superlatives = ["largest", "biggest"] * (area > MIN_AREA_RATIO * max(areas))
    return superlatives + ["smallest"] * (MIN_AREA_RATIO * area < min(areas))


def count_phrases(scene: SceneData, group_by_appearance: bool = False) -> list[str]:
    """Return a phrase with a number for each group of objects, in the order of their leftmost members.

    Args:
        scene: the scene.
        group_by_appearance: group by category, color and text. By default, objects are grouped by category, and the color is
            named if they share it.
    """
    groups: dict[tuple[str | None, ...], list[SceneObject]] = {}
    for scene_object in sort_left_to_right(scene.objects):
        appearance = (scene_object.label, scene_object.color, scene_object.text)
        groups.setdefault(appearance if group_by_appearance else appearance[:1], []).append(scene_object)
    counted = []
    for objects in groups.values():
        first = objects[0]
        color = first.color if all(other.color == first.color for other in objects) else None
        counted.append(counted_phrase(len(objects), first.label, color, first.text if group_by_appearance else None))
    return counted


def _capitalize(text: str) -> str:
    return text[0].upper() + text[1:]


def _verb(counted: Sequence[str]) -> str:
    return "is" if len(counted) == 1 and counted[0].split()[0] in ("a", "an", "the") else "are"


def _short_caption(scene: SceneData, phrasing: int) -> str:
    counted, background = count_phrases(scene), BACKGROUND_PHRASES[scene.background]
    return (
        f"A cartoon picture of {join_with_and(counted)} {background}.",
        f"{_capitalize(join_with_and(counted))} {background}.",
        f"There {_verb(counted[:1])} {join_with_and(counted)} {background}.",
        f"A drawing of {join_with_and(counted)} {background}.",
    )[phrasing % 4]


def _detailed_caption(scene: SceneData, phrasing: int) -> str:
    counted = join_with_and(count_phrases(scene, group_by_appearance=True))
    background, sentences = BACKGROUND_PHRASES[scene.background], BACKGROUND_SENTENCES[scene.background]
    return (
        f"The picture shows {counted} {background}. {sentences[0]}",
        f"This is a cartoon of {counted} {background}. {sentences[0]}",
        f"In this drawing we see {counted} {background}. {sentences[1]}",
        f"The image shows {counted} {background}. {sentences[1]}",
    )[phrasing % 4]


def _paragraph(scene: SceneData, phrasing: int) -> str:
    background = BACKGROUND_PHRASES[scene.background]
    opening = (
        f"This is a cartoon scene {background}.",
        f"The image is a colorful drawing of a scene {background}.",
        f"The picture shows a cartoon scene {background}.",
    )[phrasing % 3]
    sentences = [opening]
    for position in COLUMNS:
        groups = Counter(
            (scene_object.label, scene_object.color, scene_object.text)
            for scene_object in sort_left_to_right(scene.objects)
            if column_phrase(scene_object) == position.phrase
        )
        counted = [counted_phrase(count, *appearance) for appearance, count in groups.items()]
        if counted:
            sentences.append(f"{_capitalize(position.phrase)} there {_verb(counted[:1])} {join_with_and(counted)}.")
    return " ".join([*sentences, BACKGROUND_SENTENCES[scene.background][phrasing // 3 % 2]])


CAPTION_WRITERS: dict[str, Callable[[SceneData, int], str]] = {
    "<CAPTION>": _short_caption,
    "<DETAILED_CAPTION>": _detailed_caption,
    "<MORE_DETAILED_CAPTION>": _paragraph,
}


def caption(scene: SceneData, task: str = "<CAPTION>", phrasing: int = 0) -> str:
    """Write a caption that mentions every object once, with its number.

    Args:
        scene: the scene.
        task: `"<CAPTION>"`, `"<DETAILED_CAPTION>"` or `"<MORE_DETAILED_CAPTION>"`.
        phrasing: index of the wording; 0 is the plainest.
    """
    try:
        return CAPTION_WRITERS[task](scene, phrasing)
    except IndexError:
        raise ArgumentError(f"{task} has no wording {phrasing}") from None
