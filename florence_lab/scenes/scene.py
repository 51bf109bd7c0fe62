"""Composing a scene: which things, where, and what of each is seen; then drawing it, back to front.

A scene is planned in fractions of the picture, on a small raster of its own, so that the same seed is the
same scene at every size. Drawing then happens at the size asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from PIL.PngImagePlugin import PngInfo

from ..catalog import unknown_name
from ..images import SCENE_SOURCE as SOURCE
from .backgrounds import BACKGROUNDS_TABLE, Background, Board
from .paint import FONTS, PALETTE, Color, Dice, Pen, darker
from .sprites import SPRITES, WORDS, SignLayout, sign_layout

CATEGORIES = tuple(SPRITES)
BACKGROUNDS = tuple(BACKGROUNDS_TABLE)
TRAIN_SEEDS = range(1_000_000, 2**31)
HELD_OUT_SEEDS = range(0, 100_000)

SUPERSAMPLE = 3  # objects are drawn this much larger and shrunk, so that edges are smooth
INK = 0.0056  # width of outlines, as a fraction of the picture's shorter side
PLAN_SIDE = 128  # the shorter side of the raster on which visibility is decided
LEAST_VISIBLE = 0.55  # of an object's area, on that raster: a little more than what is promised (0.45)
LEAST_SIDE = 0.08  # of the shorter side: a little more than what is promised (0.07)
WITH_TEXT = 0.36  # of scenes have a sign
HERD = 0.2  # of scenes show one kind of thing only, where it is one that comes in numbers
CAPITALS = (0.05, 0.085)  # height of a sign's capitals, as a fraction of the shorter side

# Back to front: the sky's layers, then everything that stands or swims, by how far down its feet are.
LAYERS = {"top": 0, "sky": 1, "water": 2, "ground": 2}
DAYLIGHT = (1.0, 1.0, 1.0)
COUNTS = {1: 1.3, 2: 1.5, 3: 1.6, 4: 1.5, 5: 1.2, 6: 1.0}


@dataclass(frozen=True)
class Item:
    """One thing as planned. x: its middle, y: its feet, in fractions of the picture; tall: its height and
    wide its width, in fractions of the picture's shorter side."""

    label: str
    color: str | None
    seed: int
    x: float
    y: float
    tall: float
    wide: float
    flip: bool
    layer: int
    afloat: bool = False
    word: str | None = None
    sign: SignLayout | None = None

    @property
    def design(self) -> tuple[float, float]:
        return self.sign.size if self.sign else SPRITES[self.label].size

    def place(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """(left, top, width, height) in pixels of a picture of that size, without the outline."""
        unit = min(size)
        wide, tall = self.wide * unit, self.tall * unit
        return self.x * size[0] - wide / 2, self.y * size[1] - tall, wide, tall


@dataclass(frozen=True)
class Plan:
    """A scene before it is drawn: all that its seed decides."""

    seed: int
    background: str
    backdrop_seed: int
    items: tuple[Item, ...]  # back to front


class Placed(NamedTuple):
    """An item and its silhouette on the planning raster."""

    item: Item
    shape: np.ndarray  # bool: what it covers, as far as it lies in the picture
    corner: tuple[int, int]  # (x, y) at which that begins
    whole: int  # pixels of all of it, those outside the picture included


@dataclass(frozen=True)
class SceneObject:
    """One thing in a scene, and what is true about it.

    Attributes:
        label: its category, one of `CATEGORIES`.
        color: one of the palette's names; None where colour says nothing (a sun, a cloud).
        text: the word on a sign, else None.
        box: (x0, y0, x1, y1) of the visible part in pixels, half open: x1 - x0 is its width.
        quad: 4 x 2 pixels for a sign's word, clockwise from the word's top left; else None.
        attributes: `depth` (0 is furthest), `visible` (share of its area that is seen), `area`
            (visible pixels).
    """

    label: str
    color: str | None
    text: str | None
    box: tuple[float, float, float, float]
    quad: np.ndarray | None = field(repr=False, compare=False)
    attributes: dict[str, float] = field(hash=False)
    visible: np.ndarray = field(repr=False, compare=False)  # bool, visible pixels of a cut-out of the picture
    corner: tuple[int, int] = field(repr=False)  # where in the picture that cut-out begins
    picture: tuple[int, int] = field(repr=False)  # (width, height) of the picture

    @cached_property
    def mask(self) -> np.ndarray:
        """H x W bool: the pixels of the picture that show this object."""
        full = np.zeros((self.picture[1], self.picture[0]), bool)
        x, y = self.corner
        full[y : y + self.visible.shape[0], x : x + self.visible.shape[1]] = self.visible
        return full

    @cached_property
    def polygons(self) -> list[np.ndarray]:
        """Outlines of what is seen, each N x 2 float pixels, clockwise from the topmost (leftmost) vertex."""
        from .outlines import outlines

        return [points + self.corner for points in outlines(self.visible)]


@dataclass(frozen=True)
class Scene:
    """A cartoon picture and everything true about it.

    Attributes:
        seed: what it was drawn from.
        image: PIL image, RGB.
        background: one of `BACKGROUNDS`.
        objects: back to front.
    """

    seed: int
    image: Image.Image = field(repr=False, compare=False)
    background: str
    objects: tuple[SceneObject, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.size

    def answer(self, task: str, text: str | None = None, variant: int = 0):
        """The right answer to a task about this scene, as a typed result whose `raw` is the target string."""
        from .answers import answer

        return answer(self, task, text, variant)

    def queries(self, task: str, rng) -> list[str | None]:
        """Inputs that make sense for a task here; `[None]` for a task without one."""
        from .answers import queries

        return queries(self, task, rng)


def draw_scene(
    seed: int, size: int | tuple[int, int] = 512, max_objects: int = 6, categories: Sequence[str] | None = None
) -> Scene:
    """Draw the scene of a seed: the same one every time, everywhere, at any size of the same proportions.

    Args:
        seed: any whole number; see `TRAIN_SEEDS` and `HELD_OUT_SEEDS`.
        size: pixels; a number is a square, a pair is (width, height).
        max_objects: at most this many things, 1 to 6.
        categories: which kinds of things, of `CATEGORIES` or drawn by a `sprite` of your own; by default the former. With
            other kinds it is another scene.

    Raises:
        ValueError: for an unknown category.
    """
    for name in categories or ():
        if name not in SPRITES:
            raise ValueError(unknown_name("category", name, SPRITES))
    width, height = (size, size) if isinstance(size, int) else size
    unit = min(width, height)
    raster = round(PLAN_SIDE * width / unit), round(PLAN_SIDE * height / unit)
    plan = plan_scene(seed, raster, max_objects, tuple(categories or CATEGORIES))
    return render(plan, (width, height))


# ---------------------------------------------------------------- planning


def plan_scene(
    seed: int, raster: tuple[int, int], max_objects: int = 6, categories: tuple[str, ...] = CATEGORIES
) -> Plan:
    """Decide everything about a scene; `raster` is the size of the pictures on which visibility is judged."""
    dice = Dice(seed)
    name = dice.pick(BACKGROUNDS)
    place, backdrop_seed = BACKGROUNDS_TABLE[name], dice.seed()
    wanted = dice.weighted({n: w for n, w in COUNTS.items() if n <= max_objects})
    crowd = _crowd(wanted) * dice.uniform(0.88, 1.14)
    planned: list[Placed] = []
    for label, color, word in _cast(place, wanted, categories, dice):
        own = Dice(dice.seed())
        for _ in range(14):
            item = _item(place, label, color, word, crowd, raster, own)
            trial = _with(planned, item, raster, own.chance(0.6))
            if trial is not None:
                planned = trial
                break
    return Plan(seed, name, backdrop_seed, tuple(placed.item for placed in planned))


def _crowd(count: int) -> float:
    """How large things are drawn: larger where there are few."""
    return {1: 1.55, 2: 1.34, 3: 1.18, 4: 1.08, 5: 1.0, 6: 0.95}[count]


def _cast(
    place: Background, wanted: int, categories: tuple[str, ...], dice: Dice
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


def _word(dice: Dice) -> str:
    return dice.pick((str.upper, str.upper, str.lower, str.capitalize))(dice.pick(WORDS))


def _item(
    place: Background,
    label: str,
    color: str | None,
    word: str | None,
    crowd: float,
    raster: tuple[int, int],
    dice: Dice,
) -> Item:
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
    return Item(label, color, seed, x, y, tall, wide, flip, LAYERS[zone], afloat, word, sign)


def _height_in(place: Background, zone: str, dice: Dice) -> tuple[float, float]:
    """Where a thing's feet are (for the sky: its middle), and how large perspective makes it."""
    share = dice.random()
    if zone == "top":
        return 0.13 + 0.1 * share, 1.0
    if zone == "sky":
        low, high = place.sky
        return low + (high - low) * share, dice.uniform(0.8, 1.1)
    low, high = place.water if zone == "water" and place.water else place.ground
    return low + (high - low) * share, 0.68 + 0.37 * share


def _with(planned: list[Placed], item: Item, raster: tuple[int, int], shy: bool) -> list[Placed] | None:
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


def _silhouette(item: Item, raster: tuple[int, int]) -> Placed:
    layer, (x, y), _ = _drawn(item, raster, 1, silhouette=True)
    shape = np.asarray(layer) > 127
    x0, y0 = max(0, x), max(0, y)
    x1, y1 = min(raster[0], x + layer.width), min(raster[1], y + layer.height)
    return Placed(item, shape[y0 - y : y1 - y, x0 - x : x1 - x], (x0, y0), int(shape.sum()))


# ---------------------------------------------------------------- drawing


def render(plan: Plan, size: tuple[int, int]) -> Scene:
    """Draw a plan in a picture of (width, height)."""
    place = BACKGROUNDS_TABLE[plan.background]
    board = Board(size)
    place.paint(board, Dice(plan.backdrop_seed))
    canvas = board.finish()
    cutouts = []
    for item in plan.items:
        if item.layer == LAYERS["ground"]:
            _shadow(canvas, item, size)
        cutouts.append((item, *_paste(canvas, item, size, DAYLIGHT if item.layer == LAYERS["top"] else place.light)))
    canvas.info["Source"] = f"{SOURCE} {plan.seed}"
    return Scene(plan.seed, canvas, plan.background, _objects(cutouts, size))


def save_picture(scene: Scene, path: str | Path) -> None:
    """As PNG, with a note in it of where it comes from."""
    note = PngInfo()
    note.add_text("Source", scene.image.info["Source"])
    scene.image.save(path, pnginfo=note, optimize=True)


def _drawn(
    item: Item, size: tuple[int, int], supersample: int, silhouette: bool = False
) -> tuple[Image.Image, tuple[int, int], Pen]:
    """A thing on a layer of its own, `supersample` times larger than in the picture.

    Returns the layer, the (x, y) in the picture at which it begins, and the pen that drew it.
    """
    left, top, wide, tall = item.place(size)
    ink = INK * min(size)
    pad = math.ceil(ink) + 1
    x, y = math.floor(left) - pad, math.floor(top) - pad
    columns, rows = math.ceil(left + wide) + pad - x, math.ceil(top + tall) + pad - y
    color = _body_color(item)
    mode, blank = ("L", 0) if silhouette else ("RGBA", (*darker(color, 0.4), 0))
    layer = Image.new(mode, (columns * supersample, rows * supersample), blank)
    design = item.design
    pen = Pen(
        layer,
        (wide / design[0] * supersample, tall / design[1] * supersample),
        ((left - x) * supersample, (top - y) * supersample),
        design,
        item.flip,
        max(0.6, ink) * supersample,
        silhouette,
        item.word,
        item.afloat,
    )
    dice = Dice(item.seed)
    if item.sign:
        SPRITES[item.label].draw(pen, dice, color, item.sign)
    else:
        SPRITES[item.label].draw(pen, dice, color)
    return layer, (x, y), pen


def _body_color(item: Item) -> Color:
    return PALETTE[item.color] if item.color else (255, 255, 255)


def _paste(
    canvas: Image.Image, item: Item, size: tuple[int, int], light: tuple[float, float, float]
) -> tuple[np.ndarray, tuple[int, int], int, np.ndarray | None]:
    """Draw a thing into the picture. Returns what it covers, where that begins, its whole area, its quad."""
    layer, (x, y), pen = _drawn(item, size, SUPERSAMPLE)
    layer = layer.reduce(SUPERSAMPLE)
    shade = _shade(light).resize(layer.size, Image.Resampling.BILINEAR)
    layer = ImageChops.multiply(layer, shade)
    canvas.paste(layer, (x, y), layer)
    solid = np.asarray(layer.getchannel("A")) > 127
    x0, y0, x1, y1 = max(0, x), max(0, y), min(size[0], x + layer.width), min(size[1], y + layer.height)
    quad = None if pen.quad is None else np.array(pen.quad) / SUPERSAMPLE + (x, y)
    return solid[y0 - y : y1 - y, x0 - x : x1 - x], (x0, y0), int(solid.sum()), quad


@lru_cache
def _shade(light: tuple[float, float, float]) -> Image.Image:
    """A soft light from the upper left, to multiply a layer with: 24 x 24 RGBA."""
    y, x = np.mgrid[0:1:24j, 0:1:24j]
    bright = 1.02 - 0.2 * np.clip(0.25 * x + 0.85 * y - 0.25, 0, 1) ** 1.3
    shade = np.clip(bright[..., None] * np.array([*light]) * 255, 0, 255)
    return Image.fromarray(np.concatenate([shade, np.full((24, 24, 1), 255.0)], axis=2).round().astype(np.uint8))


@lru_cache
def _soft_spot() -> Image.Image:
    spot = Image.new("L", (96, 32), 0)
    ImageDraw.Draw(spot).ellipse((12, 5, 84, 27), fill=105)
    return spot.filter(ImageFilter.GaussianBlur(3))


def _shadow(canvas: Image.Image, item: Item, size: tuple[int, int]) -> None:
    """A soft shadow under the feet, or a pale wake under what swims."""
    left, top, wide, tall = item.place(size)
    broad = wide * ((0.6, 0.95)[item.sign.posts - 1] if item.sign else 1.12)
    flat = max(3.0, broad * 0.15)
    spot = _soft_spot().resize((max(1, round(broad)), max(1, round(flat))), Image.Resampling.BILINEAR)
    x, y = round(left + (wide - broad) / 2), round(top + tall * (0.95 if item.afloat else 1.0) - flat * 0.62)
    canvas.paste((225, 244, 252) if item.afloat else (40, 42, 70), (x, y), spot)


def _objects(cutouts: Sequence[tuple], size: tuple[int, int]) -> tuple[SceneObject, ...]:
    """From what each thing covers, back to front, to what is seen of it."""
    covered = np.zeros((size[1], size[0]), bool)
    found = []
    for depth, (item, shape, (x, y), whole, quad) in reversed(list(enumerate(cutouts))):
        under = covered[y : y + shape.shape[0], x : x + shape.shape[1]]
        visible = shape & ~under
        under |= shape
        columns, rows = np.flatnonzero(visible.any(0)), np.flatnonzero(visible.any(1))
        x0, x1, y0, y1 = int(columns[0]), int(columns[-1]) + 1, int(rows[0]), int(rows[-1]) + 1
        area = int(visible.sum())
        found.append(
            SceneObject(
                item.label,
                item.color,
                item.word,
                (float(x + x0), float(y + y0), float(x + x1), float(y + y1)),
                quad,
                {"depth": depth, "visible": area / max(1, whole), "area": area},
                visible[y0:y1, x0:x1],
                (x + x0, y + y0),
                size,
            )
        )
    return tuple(reversed(found))
