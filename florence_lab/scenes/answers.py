"""The right answer to every task about a scene, in Florence-2's own target grammar.

`answer` writes the target string and has the library's own parser read it, so that truth and prediction go through
the same door.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from ..results import Result
from ..tasks import get_task
from ..template.locations import format_location_tokens, pixels_to_bins
from ..template.template import FlorenceTemplate
from . import captions, phrases

if TYPE_CHECKING:
    from .types import SceneData, SceneObject

LEAST_OVERLAP = 0.3  # IoU with a region from which on a thing counts as meant by it


class HasRandom(Protocol):
    """`random.Random` and numpy's `Generator` alike: all that is asked of them is `random()`."""

    def random(self) -> float: ...


def answer(scene: SceneData, task: str, text: str | Sequence[float] | None = None, variant: int = 0) -> Result:
    """The right answer to a task about a scene.

    Args:
        scene: what is asked about.
        task: a task token, `"<OD>"`.
        text: the phrase, caption or expression, or the region as four location tokens or four pixels, where the
            task takes one.
        variant: which phrasing of a caption; 0 is the plain one.

    Returns:
        The typed result; `raw` is the target string. What names nothing in the scene has an empty answer.

    Raises:
        ValueError: for a free question or an unknown task, for an input missing or superfluous, and for a region
            in which there is nothing.
    """
    known = get_task(task)
    if known.token not in WRITERS:
        raise ValueError(f"a scene answers these tasks and no free question: {', '.join(WRITERS)}")
    template = FlorenceTemplate()
    prompt = template.build_prompt(known.token, text, scene.size)
    raw = WRITERS[known.token](_Ask(scene, known.token, prompt.text, variant))
    result = template.parse_text(raw, prompt, scene.size)
    return replace(result, image=scene.image)


def queries(scene: SceneData, task: str, rng: HasRandom) -> list[str | None]:
    """Inputs that a task can be asked with here, in random order.

    Captions, phrases and expressions as text, regions as four location tokens; `[None]` for a task that takes no
    input, `[]` where there is nothing to ask (regions of text in a scene without any).
    """
    asked = QUERIES[get_task(task).token](scene, rng)
    return [asked[i] for i in sorted(range(len(asked)), key=[rng.random() for _ in asked].__getitem__)]


def referenced_objects(scene: SceneData, task: str, text: str | None) -> list[SceneObject]:
    """The things that a question's input, as `queries` gives it, speaks of; none for a task that takes none."""
    ask = _Ask(scene, task, text or "", 0)
    if get_task(task).input == "region":
        return [_in_region(ask, written=task == "<REGION_TO_OCR>")]
    return _named(ask)


class _Ask(NamedTuple):
    """One question: the scene, the task, its input as text, and the phrasing of the answer."""

    scene: SceneData
    task: str
    given: str
    variant: int

    def tokens(self, coordinates: np.ndarray | Sequence[float]) -> str:
        return format_location_tokens(coordinates, self.scene.size)

    def boxes(self, things: Sequence[SceneObject]) -> str:
        return "".join(self.tokens(thing.box) for thing in things)


# ---------------------------------------------------------------- writing the target strings


def _detection(ask: _Ask) -> str:
    by_label: dict[str, list[SceneObject]] = {}
    for thing in phrases.left_to_right(ask.scene.objects):
        by_label.setdefault(thing.label, []).append(thing)
    return "".join(label + ask.boxes(things) for label, things in by_label.items())


def _dense_captions(ask: _Ask) -> str:
    things = phrases.left_to_right(ask.scene.objects)
    return "".join(captions.description(thing) + ask.boxes([thing]) for thing in things)


def _proposals(ask: _Ask) -> str:
    return ask.boxes(phrases.left_to_right(ask.scene.objects))


def _caption(ask: _Ask) -> str:
    return captions.caption(ask.scene, ask.task, ask.variant)


def _grounding(ask: _Ask) -> str:
    named = [(phrase.span, phrase.matches(ask.scene.objects)) for phrase in phrases.phrases(ask.given)]
    return "".join(span + ask.boxes(things) for span, things in named if things)


def _open_detection(ask: _Ask) -> str:
    found = phrases.phrases(ask.given)
    if len(found) != 1:
        return _grounding(ask)
    things = found[0].matches(ask.scene.objects)
    return ask.given + ask.boxes(things) if things else ""


def _segmentation(ask: _Ask, things: Sequence[SceneObject]) -> str:
    """`<sep>` between the parts of one thing, `<and>` between things."""
    return "<and>".join("<sep>".join(ask.tokens(p) for p in thing.polygons) for thing in things)


def _named(ask: _Ask) -> list[SceneObject]:
    """What the phrases of the input name, each thing once."""
    found: dict[int, SceneObject] = {}
    for phrase in phrases.phrases(ask.given):
        found |= {id(thing): thing for thing in phrase.matches(ask.scene.objects)}
    return list(found.values())


def _referred(ask: _Ask) -> str:
    return _segmentation(ask, _named(ask))


def _region_outline(ask: _Ask) -> str:
    return _segmentation(ask, [_in_region(ask)])


def _region_category(ask: _Ask) -> str:
    return _in_region(ask).label + ask.given


def _region_description(ask: _Ask) -> str:
    thing = _in_region(ask)
    return f"{captions.description(thing)} {phrases.column(thing)}{ask.given}"


def _region_text(ask: _Ask) -> str:
    return _in_region(ask, written=True).text + ask.given


def _read(ask: _Ask) -> str:
    return " ".join(thing.text for thing in _reading_order(ask.scene))


def _read_with_regions(ask: _Ask) -> str:
    return "".join(thing.text + ask.tokens(thing.quad) for thing in _reading_order(ask.scene))


WRITERS: dict[str, Callable[[_Ask], str]] = {
    "<CAPTION>": _caption,
    "<DETAILED_CAPTION>": _caption,
    "<MORE_DETAILED_CAPTION>": _caption,
    "<OD>": _detection,
    "<DENSE_REGION_CAPTION>": _dense_captions,
    "<REGION_PROPOSAL>": _proposals,
    "<OCR>": _read,
    "<OCR_WITH_REGION>": _read_with_regions,
    "<CAPTION_TO_PHRASE_GROUNDING>": _grounding,
    "<REFERRING_EXPRESSION_SEGMENTATION>": _referred,
    "<OPEN_VOCABULARY_DETECTION>": _open_detection,
    "<REGION_TO_SEGMENTATION>": _region_outline,
    "<REGION_TO_CATEGORY>": _region_category,
    "<REGION_TO_DESCRIPTION>": _region_description,
    "<REGION_TO_OCR>": _region_text,
}


def _reading_order(scene: SceneData) -> list[SceneObject]:
    """Things with words, line by line: words whose middles are less than half a word's height apart are a line."""
    left = sorted((t for t in scene.objects if t.text), key=lambda t: t.quad[:, 1].mean())
    order: list[SceneObject] = []
    while left:
        top, height = left[0].quad[:, 1].mean(), np.ptp(left[0].quad[:, 1])
        line = [t for t in left if t.quad[:, 1].mean() - top < height / 2]
        order += sorted(line, key=lambda t: t.quad[:, 0].mean())
        left = left[len(line) :]
    return order


# ---------------------------------------------------------------- regions


def _text_box(thing: SceneObject) -> tuple[float, float, float, float]:
    """The upright box round a thing's word, within the picture."""
    (x0, y0), (x1, y1) = thing.quad.min(axis=0), thing.quad.max(axis=0)
    width, height = thing.picture
    return max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)


def _in_region(ask: _Ask, written: bool = False) -> SceneObject:
    """The thing whose box (with `written`: or whose word's box) agrees best with the region asked about."""
    region = np.array([int(n) for n in ask.given.replace("<loc_", "").rstrip(">").split(">")], float)
    choices = []
    for thing in ask.scene.objects:
        boxes = [thing.box] if not written else [thing.box, _text_box(thing)] if thing.text else []
        choices += [(_agreement(region, pixels_to_bins(box, ask.scene.size)), -i, thing) for i, box in enumerate(boxes)]
    best = max(choices, key=lambda choice: choice[:2], default=None)
    if best is None or best[0] < LEAST_OVERLAP:
        what = "text" if written else "thing"
        raise ValueError(f"there is no {what} in the region {ask.given} of scene {ask.scene.seed}")
    return best[2]


def _agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two (x0, y0, x1, y1) in location bins, whose last bin belongs to the box."""
    sides = np.minimum(a[2:], b[2:]) + 1 - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / float(np.prod(a[2:] + 1 - a[:2]) + np.prod(b[2:] + 1 - b[:2]) - shared)


# ---------------------------------------------------------------- asking


def _pick(options: Sequence, rng: HasRandom):
    return options[int(rng.random() * len(options))]


def _nothing(scene: SceneData, rng: HasRandom) -> list[None]:
    return [None]


def _names(scene: SceneData) -> list[str]:
    """Plain names that fit things here, singular or plural as their number asks: `"sheep"`, `"red cars"`."""
    labels = phrases.object_counts(scene)
    names = {phrases.named(label, None, many=n > 1): None for label, n in labels.items()}
    kinds = [(thing.label, thing.color) for thing in scene.objects]
    names |= {phrases.named(*kind, many=kinds.count(kind) > 1): None for kind in kinds}
    return list(names)


def _phrases(scene: SceneData, rng: HasRandom) -> list[str]:
    names = _names(scene)
    referring = [_pick(all_, rng) for t in scene.objects if (all_ := captions.referring(t, scene.objects))]
    phrases = [*names, *(f"the {name}" for name in names), *captions.spoken_groups(scene), *referring]
    return list(dict.fromkeys(phrases))


def _captions(scene: SceneData, rng: HasRandom) -> list[str]:
    """Whole captions, and phrases alone or joined."""
    tasks = ("<CAPTION>", "<CAPTION>", "<DETAILED_CAPTION>")
    whole = [captions.caption(scene, task, int(rng.random() * 4)) for task in tasks]
    single = _phrases(scene, rng)
    picked = [_pick(single, rng) for _ in range(6)]
    joined = [f"{a} and {b}" for a, b in zip(picked[:3], picked[3:], strict=True) if _of_two_kinds(a, b)]
    return list(dict.fromkeys([*whole, *joined, *picked[:3]]))


def _of_two_kinds(a: str, b: str) -> bool:
    return phrases.phrases(a)[0].label != phrases.phrases(b)[0].label


def _expressions(scene: SceneData, rng: HasRandom) -> list[str]:
    return [words for thing in scene.objects for words in captions.referring(thing, scene.objects)]


def _regions(scene: SceneData, rng: HasRandom) -> list[str]:
    return [format_location_tokens(thing.box, scene.size) for thing in scene.objects]


def _text_regions(scene: SceneData, rng: HasRandom) -> list[str]:
    """Both the whole sign and the word alone are regions to read."""
    written = [thing for thing in scene.objects if thing.text]
    boxes = [box for thing in written for box in (thing.box, _text_box(thing))]
    return [format_location_tokens(box, scene.size) for box in boxes]


QUERIES: dict[str, Callable[[SceneData, HasRandom], list]] = dict.fromkeys(WRITERS, _nothing) | {
    "<CAPTION_TO_PHRASE_GROUNDING>": _captions,
    "<OPEN_VOCABULARY_DETECTION>": _phrases,
    "<REFERRING_EXPRESSION_SEGMENTATION>": _expressions,
    "<REGION_TO_SEGMENTATION>": _regions,
    "<REGION_TO_CATEGORY>": _regions,
    "<REGION_TO_DESCRIPTION>": _regions,
    "<REGION_TO_OCR>": _text_regions,
}
