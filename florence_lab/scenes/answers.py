"""Ground truth of the tasks about a scene, as target strings in Florence-2's grammar.

A target string is parsed by the same code as a prediction, so that both have the same types and the same quantization. A task
takes part if it has an entry in `SCENE_ANSWERS`; other tasks have no ground truth and no inputs here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from ..exceptions import ArgumentError
from ..results import Result
from ..tasks import get_task
from ..template.locations import format_location_tokens, parse_location_tokens, pixels_to_bins
from ..template.targets import Instance, format_target
from ..template.template import FlorenceTemplate
from . import captions, phrases

if TYPE_CHECKING:
    from .types import SceneData, SceneObject

MIN_REGION_IOU = 0.3
"""Smallest IoU, in location bins, of a region and an object's box for the region to refer to the object."""

T = TypeVar("T")


@runtime_checkable
class SupportsRandom(Protocol):
    """A source of random floats in [0, 1): `random.Random` or NumPy's `Generator`."""

    def random(self) -> float:
        """Return the next float."""
        ...


def answer(scene: SceneData, task: str, text: str | Sequence[float] | None = None, phrasing: int = 0) -> Result:
    """Return the ground truth of a task about a scene.

    Args:
        scene: the scene.
        task: a task token, `"<OD>"`.
        text: the phrase, caption or expression, or the region as four location tokens or (x0, y0, x1, y1) in pixels, if the
            task takes one.
        phrasing: index of the wording of a caption; 0 is the plainest.

    Returns:
        The typed result; `raw` is the target string. It is empty if nothing in the scene matches the input.

    Raises:
        ValueError: for a task without ground truth, a missing or superfluous input, and a region without an object.
    """
    known = get_task(task)
    entry = SCENE_ANSWERS.get(known.token)
    if entry is None:
        raise ArgumentError(f"scenes have no ground truth for {known.name}, only for {', '.join(SCENE_ANSWERS)}")
    template = FlorenceTemplate()
    prompt = template.build_prompt(known.token, text, scene.size)
    instances = entry.instances(AnswerContext(scene, known.token, prompt.text, phrasing))
    raw = format_target(known, instances, scene.size, prompt.text if known.input == "region" else "")
    result = template.parse_text(raw, prompt, scene.size)
    return replace(result, image=scene.image)


def sample_inputs(scene: SceneData, task: str, rng: SupportsRandom) -> list[str | None]:
    """Return inputs with which a task can be given for a scene, in random order. See `Scene.sample_inputs`."""
    entry = SCENE_ANSWERS.get(get_task(task).token)
    if entry is None:
        return []
    inputs = entry.sample_inputs(scene, rng)
    order = [rng.random() for _ in inputs]
    return [inputs[i] for i in sorted(range(len(inputs)), key=order.__getitem__)]


def referenced_objects(scene: SceneData, task: str, text: str | None) -> list[SceneObject]:
    """Return the objects that an input of `sample_inputs` refers to; none for a task without an input."""
    context = AnswerContext(scene, task, text or "", 0)
    if get_task(task).input == "region":
        return [_object_in_region(context, with_text=task == "<REGION_TO_OCR>")]
    return _find_named_objects(context)


class AnswerContext(NamedTuple):
    """What an answer depends on.

    Attributes:
        scene: the scene.
        task: the task token.
        text: the phrase, or the region as location tokens; empty if the task takes no input.
        phrasing: index of the wording of a caption.
    """

    scene: SceneData
    task: str
    text: str
    phrasing: int


# ---------------------------------------------------------------- instances


def _instance(scene_object: SceneObject, label: str = "") -> Instance:
    return Instance(label, scene_object.box)


def _outline(scene_object: SceneObject) -> Instance:
    return Instance(polygons=tuple(scene_object.polygons))


def _detection(context: AnswerContext) -> list[Instance]:
    return [_instance(o, o.label) for o in phrases.sort_left_to_right(context.scene.objects)]


def _dense_captions(context: AnswerContext) -> list[Instance]:
    return [_instance(o, captions.description(o)) for o in phrases.sort_left_to_right(context.scene.objects)]


def _proposals(context: AnswerContext) -> list[Instance]:
    return [_instance(o) for o in phrases.sort_left_to_right(context.scene.objects)]


def _caption(context: AnswerContext) -> list[Instance]:
    return [Instance(captions.caption(context.scene, context.task, context.phrasing))]


def _grounding(context: AnswerContext) -> list[Instance]:
    found = phrases.phrases(context.text)
    return [_instance(o, phrase.text) for phrase in found for o in phrase.matches(context.scene.objects)]


def _open_vocabulary_detection(context: AnswerContext) -> list[Instance]:
    found = phrases.phrases(context.text)
    if len(found) != 1:
        return _grounding(context)
    return [_instance(o, context.text) for o in found[0].matches(context.scene.objects)]


def _find_named_objects(context: AnswerContext) -> list[SceneObject]:
    """Return the objects that the phrases of the input refer to, each once."""
    found: dict[int, SceneObject] = {}
    for phrase in phrases.phrases(context.text):
        found |= {id(scene_object): scene_object for scene_object in phrase.matches(context.scene.objects)}
    return list(found.values())


def _referring_segmentation(context: AnswerContext) -> list[Instance]:
    return [_outline(o) for o in _find_named_objects(context)]


def _region_segmentation(context: AnswerContext) -> list[Instance]:
    return [_outline(_object_in_region(context))]


def _region_category(context: AnswerContext) -> list[Instance]:
    return [Instance(_object_in_region(context).label)]


def _region_description(context: AnswerContext) -> list[Instance]:
    scene_object = _object_in_region(context)
    return [Instance(f"{captions.description(scene_object)} {phrases.column_phrase(scene_object)}")]


def _region_ocr(context: AnswerContext) -> list[Instance]:
    return [Instance(_object_in_region(context, with_text=True).text or "")]


def _ocr(context: AnswerContext) -> list[Instance]:
    return [Instance(" ".join(text for text, _ in _text_in_reading_order(context.scene)))]


def _ocr_regions(context: AnswerContext) -> list[Instance]:
    return [Instance(text, polygons=(quad,)) for text, quad in _text_in_reading_order(context.scene)]


def _text_in_reading_order(scene: SceneData) -> list[tuple[str, np.ndarray]]:
    """Return the words of a scene and their quad boxes, line by line.

    Words whose centers differ in height by less than half the height of the uppermost one form a line.
    """
    written = [(o.text, o.quad) for o in scene.objects if o.text and o.quad is not None]
    remaining = sorted(written, key=lambda word: word[1][:, 1].mean())
    ordered: list[tuple[str, np.ndarray]] = []
    while remaining:
        first = remaining[0][1]
        top, height = first[:, 1].mean(), np.ptp(first[:, 1])
        line = [word for word in remaining if word[1][:, 1].mean() - top < height / 2]
        ordered += sorted(line, key=lambda word: word[1][:, 0].mean())
        remaining = remaining[len(line) :]
    return ordered


# ---------------------------------------------------------------- regions


def _text_box(scene_object: SceneObject) -> tuple[float, float, float, float] | None:
    """Return the bounding box of an object's text, clipped to the image; None without text."""
    if scene_object.quad is None:
        return None
    (x0, y0), (x1, y1) = scene_object.quad.min(axis=0), scene_object.quad.max(axis=0)
    width, height = scene_object.image_size
    return max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)


def _object_in_region(context: AnswerContext, with_text: bool = False) -> SceneObject:
    """Return the object whose box has the largest IoU with the region of the input.

    With `with_text`, only objects with text count, and the box of the text as well as that of the object.
    """
    region = parse_location_tokens(context.text).astype(float)
    found: SceneObject | None = None
    best_iou = 0.0
    for scene_object in context.scene.objects:
        text_box = _text_box(scene_object)
        if with_text and text_box is None:
            continue
        for box in (scene_object.box, text_box) if with_text and text_box else (scene_object.box,):
            iou = _bin_iou(region, pixels_to_bins(box, context.scene.size))
            if iou >= MIN_REGION_IOU and iou > best_iou:
                found, best_iou = scene_object, iou
    if found is None:
        kind = "text" if with_text else "object"
        raise ArgumentError(
            f"no {kind} in region {context.text} of scene {context.scene.seed}; `sample_inputs` returns regions that have one"
        )
    return found


def _bin_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Return the IoU of two boxes (x0, y0, x1, y1) in location bins. The last bin belongs to the box."""
    sides = np.minimum(a[2:], b[2:]) + 1 - np.maximum(a[:2], b[:2])
    intersection = float(np.prod(np.maximum(sides, 0)))
    return intersection / float(np.prod(a[2:] + 1 - a[:2]) + np.prod(b[2:] + 1 - b[:2]) - intersection)


# ---------------------------------------------------------------- inputs


def choose(options: Sequence[T], rng: SupportsRandom) -> T:
    """Return a random element."""
    return options[int(rng.random() * len(options))]


def _no_input(scene: SceneData, rng: SupportsRandom) -> Sequence[None]:
    return [None]


def _noun_phrases(scene: SceneData) -> list[str]:
    """Return noun phrases that apply to objects of the scene, singular or plural as their number requires."""
    names = {
        phrases.noun_phrase(label, None, is_plural=n > 1): None for label, n in phrases.object_counts(scene).items()
    }
    kinds = [(scene_object.label, scene_object.color) for scene_object in scene.objects]
    names |= {phrases.noun_phrase(*kind, is_plural=kinds.count(kind) > 1): None for kind in kinds}
    return list(names)


def _sample_phrases(scene: SceneData, rng: SupportsRandom) -> Sequence[str]:
    names = _noun_phrases(scene)
    expressions = [captions.referring_expressions(o, scene.objects) for o in scene.objects]
    chosen = [choose(options, rng) for options in expressions if options]
    return list(dict.fromkeys([*names, *(f"the {name}" for name in names), *captions.count_phrases(scene), *chosen]))


def _sample_captions(scene: SceneData, rng: SupportsRandom) -> Sequence[str]:
    """Return whole captions, single phrases, and pairs of phrases."""
    tasks = ("<CAPTION>", "<CAPTION>", "<DETAILED_CAPTION>")
    whole = [captions.caption(scene, task, int(rng.random() * 4)) for task in tasks]
    options = _sample_phrases(scene, rng)
    chosen = [choose(options, rng) for _ in range(6)]
    pairs = [f"{a} and {b}" for a, b in zip(chosen[:3], chosen[3:], strict=True) if _name_two_categories(a, b)]
    return list(dict.fromkeys([*whole, *pairs, *chosen[:3]]))


def _name_two_categories(a: str, b: str) -> bool:
    return phrases.phrases(a)[0].label != phrases.phrases(b)[0].label


def _sample_expressions(scene: SceneData, rng: SupportsRandom) -> Sequence[str]:
    return [expression for o in scene.objects for expression in captions.referring_expressions(o, scene.objects)]


def _sample_regions(scene: SceneData, rng: SupportsRandom) -> Sequence[str]:
    return [format_location_tokens(scene_object.box, scene.size) for scene_object in scene.objects]


def _sample_text_regions(scene: SceneData, rng: SupportsRandom) -> Sequence[str]:
    """Return the box of each sign and the box of its word."""
    boxes = [box for o in scene.objects if (text_box := _text_box(o)) for box in (o.box, text_box)]
    return [format_location_tokens(box, scene.size) for box in boxes]


@dataclass(frozen=True)
class SceneAnswer:
    """Ground truth of one task.

    Attributes:
        instances: returns the instances of the answer to an `AnswerContext`; for a task that answers with text, one instance
            whose label is the text.
        sample_inputs: returns inputs of the task for a scene, see `Scene.sample_inputs`.
    """

    instances: Callable[[AnswerContext], list[Instance]]
    sample_inputs: Callable[[SceneData, SupportsRandom], Sequence[str | None]] = _no_input


SCENE_ANSWERS: dict[str, SceneAnswer] = {
    "<CAPTION>": SceneAnswer(_caption),
    "<DETAILED_CAPTION>": SceneAnswer(_caption),
    "<MORE_DETAILED_CAPTION>": SceneAnswer(_caption),
    "<OD>": SceneAnswer(_detection),
    "<DENSE_REGION_CAPTION>": SceneAnswer(_dense_captions),
    "<REGION_PROPOSAL>": SceneAnswer(_proposals),
    "<OCR>": SceneAnswer(_ocr),
    "<OCR_WITH_REGION>": SceneAnswer(_ocr_regions),
    "<CAPTION_TO_PHRASE_GROUNDING>": SceneAnswer(_grounding, _sample_captions),
    "<REFERRING_EXPRESSION_SEGMENTATION>": SceneAnswer(_referring_segmentation, _sample_expressions),
    "<OPEN_VOCABULARY_DETECTION>": SceneAnswer(_open_vocabulary_detection, _sample_phrases),
    "<REGION_TO_SEGMENTATION>": SceneAnswer(_region_segmentation, _sample_regions),
    "<REGION_TO_CATEGORY>": SceneAnswer(_region_category, _sample_regions),
    "<REGION_TO_DESCRIPTION>": SceneAnswer(_region_description, _sample_regions),
    "<REGION_TO_OCR>": SceneAnswer(_region_ocr, _sample_text_regions),
}
"""Task token -> its ground truth. A registered task without an entry is skipped wherever scenes supply examples."""
