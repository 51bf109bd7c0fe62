"""Plan a scene: choose its background and objects, and place them so that each one is visible."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .backgrounds import BACKGROUND_SPECS, Background
from .drawing import LAYERS, draw_object
from .paint import FONTS, RandomSource
from .sprites import CAPITAL_HEIGHT, SIGN_WORDS, SPRITES, sign_layout
from .types import PlannedObject, ScenePlan

CATEGORIES = tuple(SPRITES)
"""The categories of the scenes. Categories that users register with `sprite` are not among them."""

BACKGROUNDS = tuple(BACKGROUND_SPECS)
"""Names of the backgrounds."""

PLAN_SIDE = 128
"""Shorter side, in pixels, of the raster on which visibility is decided."""

MIN_VISIBLE_FRACTION = 0.55
"""Visible fraction of each object on that raster; at least 0.45 remain at any image size."""

MIN_SIDE = 0.08
"""Shorter side of each object's box on that raster, as a fraction of the shorter side; at least 0.07 remain."""

SIGN_PROBABILITY = 0.36
"""Fraction of scenes with a sign."""

SINGLE_CATEGORY_PROBABILITY = 0.2
"""Probability that the first category, if it is one that appears in groups, fills the scene."""

CAPITAL_HEIGHT_RANGE = (0.05, 0.085)
"""Height of a sign's capital letters, as a fraction of the shorter side of the image."""

OBJECT_COUNT_WEIGHTS = {1: 1.3, 2: 1.5, 3: 1.6, 4: 1.5, 5: 1.2, 6: 1.0}
"""Number of objects -> relative frequency."""

MAX_TRIALS = 14
"""Positions tried for each object before it is left out."""


class Silhouette(NamedTuple):
    """A planned object on the raster.

    Attributes:
        planned: the object.
        mask: h x w bool, the pixels that it covers inside the raster.
        origin: (x, y) of the mask's top left corner.
        full_area: number of pixels that it covers, those outside the raster included.
    """

    planned: PlannedObject
    mask: np.ndarray
    origin: tuple[int, int]
    full_area: int


class _Candidate(NamedTuple):
    """What to place: a category, its color, and the word of a sign."""

    label: str
    color: str | None
    text: str | None = None


def plan_scene(
    seed: int, raster: tuple[int, int], max_objects: int = 6, categories: tuple[str, ...] = CATEGORIES
) -> ScenePlan:
    """Plan the scene of a seed.

    Args:
        seed: the seed. Together with the other arguments it determines the plan.
        raster: (width, height) in pixels of the raster on which visibility is decided.
        max_objects: largest number of objects, 1 to 6.
        categories: the categories to choose from.
    """
    rng = RandomSource(seed)
    name = rng.choice(BACKGROUNDS)
    background, background_seed = BACKGROUND_SPECS[name], rng.seed()
    count = rng.weighted_choice({n: w for n, w in OBJECT_COUNT_WEIGHTS.items() if n <= max_objects})
    scale = _scale_for_count(count) * rng.uniform(0.88, 1.14)
    placed: list[Silhouette] = []
    for candidate in _choose_objects(background, count, categories, rng):
        object_rng = RandomSource(rng.seed())
        for _ in range(MAX_TRIALS):
            planned = _place_object(background, candidate, scale, raster, object_rng)
            trial = _try_add(placed, planned, raster, max_overlap=0.1 if object_rng.chance(0.6) else 0.45)
            if trial is not None:
                placed = trial
                break
    return ScenePlan(seed, name, background_seed, tuple(silhouette.planned for silhouette in placed))


def _scale_for_count(count: int) -> float:
    """Return the relative size of the objects of a scene; the fewer, the larger."""
    return {1: 1.55, 2: 1.34, 3: 1.18, 4: 1.08, 5: 1.0, 6: 0.95}[count]


def _choose_objects(
    background: Background, count: int, categories: tuple[str, ...], rng: RandomSource
) -> list[_Candidate]:
    """Choose the objects of a scene, in the order in which they are placed.

    There are fewer than `count` if too few of the categories appear on the background.
    """
    chosen: list[_Candidate] = []
    signs = "sign" in categories and rng.chance(SIGN_PROBABILITY) and rng.weighted_choice({1: 0.7, 2: 0.25, 3: 0.05})
    for _ in range(count if categories == ("sign",) else min(count, signs)):
        chosen.append(_Candidate("sign", rng.weighted_choice(SPRITES["sign"].colors), _sample_word(rng)))
    weights = {label: weight for label, weight in _category_weights(background.name).items() if label in categories}
    fill_with_one = rng.chance(SINGLE_CATEGORY_PROBABILITY)
    while len(chosen) < count and weights:
        label = rng.weighted_choice(weights)
        sprite = SPRITES[label]
        group = 1
        if fill_with_one and sprite.group_weight > 1:
            group = count - len(chosen)
        elif rng.chance(min(0.6, 0.3 * sprite.group_weight)):
            group = min(rng.weighted_choice({2: 1.2, 3: 1.0, 4: 0.8, 5: 0.25}), count - len(chosen))
        color, is_one_color = rng.weighted_choice(sprite.colors), rng.chance(0.7)
        for _ in range(group):
            chosen.append(_Candidate(label, color if is_one_color else rng.weighted_choice(sprite.colors)))
        del weights[label]
    return chosen


def _category_weights(background: str) -> dict[str, float]:
    """Return the relative frequencies of the categories on a background.

    Categories that appear on few backgrounds are more frequent there, so that none is rare overall.
    """
    weights = {}
    for label, sprite in SPRITES.items():
        if label != "sign" and (not sprite.backgrounds or background in sprite.backgrounds):
            count = len(sprite.backgrounds) or len(BACKGROUNDS)
            weights[label] = count**-0.7 / (1 + 0.17 * sprite.group_weight)
    return weights


def _sample_word(rng: RandomSource) -> str:
    return rng.choice((str.upper, str.upper, str.lower, str.capitalize))(rng.choice(SIGN_WORDS))


def _place_object(
    background: Background, candidate: _Candidate, scale: float, raster: tuple[int, int], rng: RandomSource
) -> PlannedObject:
    """Sample a position, a size and an appearance for an object, regardless of the other objects."""
    label, color, text = candidate
    sprite, seed, aspect = SPRITES[label], rng.seed(), raster[0] / raster[1]
    zone = sprite.zone
    floats = zone == "water" and background.water is not None and (label == "boat" or rng.chance(0.7))
    if zone == "water" and not floats:
        zone = "ground"
    y, perspective = _sample_vertical_position(background, zone, rng)
    sign = None
    if text is not None:
        sign = sign_layout(text, rng.choice(FONTS), rng)
        capital = rng.uniform(*CAPITAL_HEIGHT_RANGE) * (0.8 + 0.2 * scale)
        capital = min(capital, 0.8 * max(1, aspect) / sign.size[0] * CAPITAL_HEIGHT)
        width, height = (v * capital / CAPITAL_HEIGHT for v in sign.size)
    else:
        stretch = math.exp(rng.uniform(-sprite.aspect_jitter, sprite.aspect_jitter))
        height = sprite.height * perspective * min(scale, 0.62 / sprite.height) * rng.uniform(0.86, 1.16)
        width = height * sprite.size[0] / sprite.size[1] * stretch
        # a standing object fits between its lower edge and the top of the image, but is never too small to recognize
        fit = min(1.0, (y - 0.02) / min(1, aspect) / height) if zone in ("ground", "water") else 1.0
        fit = max(fit, 0.105 / min(width, height))
        width, height = width * fit, height * fit
    if zone in ("sky", "top"):
        y += height / 2 * min(1, aspect)
    y = max(y, height * min(1, aspect) + 0.02)
    half = width / 2 * min(1, 1 / aspect)
    overhang = 0.0 if text or not rng.chance(0.12) else 0.3 * half
    x = rng.uniform(min(half + 0.01 - overhang, 0.5), max(1 - half - 0.01 + overhang, 0.5))
    flip = sprite.can_flip and rng.chance(0.5)
    design_size = sign.size if sign else sprite.size
    return PlannedObject(label, color, seed, x, y, height, width, design_size, flip, LAYERS[zone], floats, text, sign)


def _sample_vertical_position(background: Background, zone: str, rng: RandomSource) -> tuple[float, float]:
    """Sample the lower edge of an object (in the sky: its center), and the size that perspective gives it there."""
    fraction = rng.random()
    if zone == "top":
        return 0.13 + 0.1 * fraction, 1.0
    if zone == "sky":
        low, high = background.sky
        return low + (high - low) * fraction, rng.uniform(0.8, 1.1)
    low, high = background.water if zone == "water" and background.water else background.ground
    return low + (high - low) * fraction, 0.68 + 0.37 * fraction


def _try_add(
    placed: list[Silhouette], planned: PlannedObject, raster: tuple[int, int], max_overlap: float
) -> list[Silhouette] | None:
    """Return the plan with the object added, or None if any object would be insufficiently visible."""
    extent = planned.extent(raster)
    if any(_overlap(extent, other.planned.extent(raster)) > max_overlap for other in placed):
        return None
    trial = sorted([*placed, _silhouette(planned, raster)], key=lambda s: (s.planned.layer, s.planned.y))
    covered = np.zeros((raster[1], raster[0]), bool)
    for silhouette in reversed(trial):
        (x, y), mask = silhouette.origin, silhouette.mask
        covered_here = covered[y : y + mask.shape[0], x : x + mask.shape[1]]
        if not _is_visible_enough(silhouette, covered_here, raster):
            return None
        covered_here |= mask
    return trial


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Return the intersection of two (left, top, width, height) as a fraction of the smaller one."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0) / min(a[2] * a[3], b[2] * b[3])


def _is_visible_enough(silhouette: Silhouette, covered: np.ndarray, raster: tuple[int, int]) -> bool:
    """Return whether enough of a silhouette is neither covered nor outside the raster. Signs are visible entirely."""
    visible = silhouette.mask & ~covered
    if visible.sum() < (0.99 if silhouette.planned.text else MIN_VISIBLE_FRACTION) * silhouette.full_area:
        return False
    columns, rows = np.flatnonzero(visible.any(0)), np.flatnonzero(visible.any(1))
    return bool(min(columns[-1] - columns[0], rows[-1] - rows[0]) + 1 >= MIN_SIDE * min(raster))


def _silhouette(planned: PlannedObject, raster: tuple[int, int]) -> Silhouette:
    layer, (x, y), _ = draw_object(planned, raster, 1, silhouette=True)
    mask = np.asarray(layer) > 127
    x0, y0 = max(0, x), max(0, y)
    x1, y1 = min(raster[0], x + layer.width), min(raster[1], y + layer.height)
    return Silhouette(planned, mask[y0 - y : y1 - y, x0 - x : x1 - x], (x0, y0), int(mask.sum()))
