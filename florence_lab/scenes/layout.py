"""TODO"""

from __future__ import annotations

import math

import numpy as np

from .backgrounds import BACKGROUNDS_TABLE, Background
from .drawing import LAYERS, _drawn
from .paint import FONTS, RandomSource
from .sprites import SPRITES, WORDS, sign_layout
from .types import Placed, PlannedObject, ScenePlan

CATEGORIES = tuple(SPRITES)

BACKGROUNDS = tuple(BACKGROUNDS_TABLE)

PLAN_SIDE = 128  # the shorter side of the raster on which visibility is decided

LEAST_VISIBLE = 0.55  # of an object's area, on that raster: a little more than what is promised (0.45)

LEAST_SIDE = 0.08  # of the shorter side: a little more than what is promised (0.07)

WITH_TEXT = 0.36  # of scenes have a sign

HERD = 0.2  # of scenes show one kind of thing only, where it is one that comes in numbers

CAPITALS = (0.05, 0.085)  # height of a sign's capitals, as a fraction of the shorter side

COUNTS = {1: 1.3, 2: 1.5, 3: 1.6, 4: 1.5, 5: 1.2, 6: 1.0}


def plan_scene(
    seed: int, raster: tuple[int, int], max_objects: int = 6, categories: tuple[str, ...] = CATEGORIES
) -> ScenePlan:
    """Decide everything about a scene; `raster` is the size of the pictures on which visibility is judged."""
    dice = RandomSource(seed)
    name = dice.pick(BACKGROUNDS)
    place, backdrop_seed = BACKGROUNDS_TABLE[name], dice.seed()
    wanted = dice.weighted({n: w for n, w in COUNTS.items() if n <= max_objects})
    crowd = _crowd(wanted) * dice.uniform(0.88, 1.14)
    planned: list[Placed] = []
    for label, color, word in _cast(place, wanted, categories, dice):
        own = RandomSource(dice.seed())
        for _ in range(14):
            item = _item(place, label, color, word, crowd, raster, own)
            trial = _with(planned, item, raster, own.chance(0.6))
            if trial is not None:
                planned = trial
                break
    return ScenePlan(seed, name, backdrop_seed, tuple(placed.item for placed in planned))


def _crowd(count: int) -> float:
    """How large things are drawn: larger where there are few."""
    return {1: 1.55, 2: 1.34, 3: 1.18, 4: 1.08, 5: 1.0, 6: 0.95}[count]


def _cast(
    place: Background, wanted: int, categories: tuple[str, ...], dice: RandomSource
) -> list[tuple[str, str | None, str | None]]:
    """(label, colour, word) of the things of a scene, in the order in which they find their places.

    Of kinds that have no home here, or are used up, there are none: a scene may hold less than is wanted.
    """
    cast: list[tuple[str, str | None, str | None]] = []
    signs = "sign" in categories and dice.chance(WITH_TEXT) and dice.weighted({1: 0.7, 2: 0.25, 3: 0.05})
    for _ in range(wanted if categories == ("sign",) else min(wanted, signs)):
        cast.append(("sign", dice.weighted(SPRITES["sign"].colors), _word(dice)))
    weights = {label: weight for label, weight in _weights(place.name).items() if label in categories}
    herd = dice.chance(HERD)
    while len(cast) < wanted and weights:
        label = dice.weighted(weights)
        kind = SPRITES[label]
        count = 1
        if herd and kind.group > 1:
            count = wanted - len(cast)
        elif dice.chance(min(0.6, 0.3 * kind.group)):
            count = min(dice.weighted({2: 1.2, 3: 1.0, 4: 0.8, 5: 0.25}), wanted - len(cast))
        color, alike = dice.weighted(kind.colors), dice.chance(0.7)
        for _ in range(count):
            cast.append((label, color if alike else dice.weighted(kind.colors), None))
        del weights[label]
    return cast


def _weights(background: str) -> dict[str, float]:
    """Categories that belong in a place; those with few homes are likelier there, so that none is rare."""
    weights = {}
    for label, kind in SPRITES.items():
        if label != "sign" and (not kind.homes or background in kind.homes):
            weights[label] = (len(kind.homes) or len(BACKGROUNDS)) ** -0.7 / (1 + 0.17 * kind.group)
    return weights


def _word(dice: RandomSource) -> str:
    return dice.pick((str.upper, str.upper, str.lower, str.capitalize))(dice.pick(WORDS))


def _item(
    place: Background,
    label: str,
    color: str | None,
    word: str | None,
    crowd: float,
    raster: tuple[int, int],
    dice: RandomSource,
) -> PlannedObject:
    """A place, a size and a look for one thing; whether it fits is for others to judge."""
    kind, seed, aspect = SPRITES[label], dice.seed(), raster[0] / raster[1]
    zone = kind.zone
    afloat = zone == "water" and place.water is not None and (label == "boat" or dice.chance(0.7))
    if zone == "water" and not afloat:
        zone = "ground"
    y, scale = _height_in(place, zone, dice)
    sign = None
    if word is not None:
        sign = sign_layout(word, dice.pick(FONTS), dice)
        capital = min(dice.uniform(*CAPITALS) * (0.8 + 0.2 * crowd), 0.8 * max(1, aspect) / sign.size[0] * 20)
        wide, tall = (v * capital / 20 for v in sign.size)
    else:
        stretch = math.exp(dice.uniform(-kind.stretch, kind.stretch))
        tall = kind.tall * scale * min(crowd, 0.62 / kind.tall) * dice.uniform(0.86, 1.16)
        wide = tall * kind.size[0] / kind.size[1] * stretch
        fit = min(1.0, (y - 0.02) / min(1, aspect) / tall) if zone in ("ground", "water") else 1.0
        fit = max(fit, 0.105 / min(wide, tall))
        wide, tall = wide * fit, tall * fit
    if zone in ("sky", "top"):
        y += tall / 2 * min(1, aspect)
    y = max(y, tall * min(1, aspect) + 0.02)
    half = wide / 2 * min(1, 1 / aspect)
    slack = 0.0 if word or not dice.chance(0.12) else 0.3 * half
    x = dice.uniform(min(half + 0.01 - slack, 0.5), max(1 - half - 0.01 + slack, 0.5))
    flip = kind.flip and dice.chance(0.5)
    return PlannedObject(label, color, seed, x, y, tall, wide, flip, LAYERS[zone], afloat, word, sign)


def _height_in(place: Background, zone: str, dice: RandomSource) -> tuple[float, float]:
    """Where a thing's feet are (for the sky: its middle), and how large perspective makes it."""
    share = dice.random()
    if zone == "top":
        return 0.13 + 0.1 * share, 1.0
    if zone == "sky":
        low, high = place.sky
        return low + (high - low) * share, dice.uniform(0.8, 1.1)
    low, high = place.water if zone == "water" and place.water else place.ground
    return low + (high - low) * share, 0.68 + 0.37 * share


def _with(planned: list[Placed], item: PlannedObject, raster: tuple[int, int], shy: bool) -> list[Placed] | None:
    """The plan with one more thing, or None if then something could not be seen well enough."""
    area = item.place(raster)
    if any(_overlap(area, other.item.place(raster)) > (0.1 if shy else 0.45) for other in planned):
        return None
    trial = sorted([*planned, _silhouette(item, raster)], key=lambda placed: (placed.item.layer, placed.item.y))
    covered = np.zeros((raster[1], raster[0]), bool)
    for placed in reversed(trial):
        (x, y), shape = placed.corner, placed.shape
        under = covered[y : y + shape.shape[0], x : x + shape.shape[1]]
        if not _seen(placed, under, raster):
            return None
        under |= shape
    return trial


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """The share of the smaller of two (left, top, width, height) that lies in the other."""
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    tall = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(wide, 0.0) * max(tall, 0.0) / min(a[2] * a[3], b[2] * b[3])


def _seen(placed: Placed, under: np.ndarray, raster: tuple[int, int]) -> bool:
    """Whether enough of a silhouette is neither covered nor outside the picture; of a sign, all."""
    visible = placed.shape & ~under
    if visible.sum() < (0.99 if placed.item.word else LEAST_VISIBLE) * placed.whole:
        return False
    columns, rows = np.flatnonzero(visible.any(0)), np.flatnonzero(visible.any(1))
    return min(columns[-1] - columns[0], rows[-1] - rows[0]) + 1 >= LEAST_SIDE * min(raster)


def _silhouette(item: PlannedObject, raster: tuple[int, int]) -> Placed:
    layer, (x, y), _ = _drawn(item, raster, 1, silhouette=True)
    shape = np.asarray(layer) > 127
    x0, y0 = max(0, x), max(0, y)
    x1, y1 = min(raster[0], x + layer.width), min(raster[1], y + layer.height)
    return Placed(item, shape[y0 - y : y1 - y, x0 - x : x1 - x], (x0, y0), int(shape.sum()))
