"""The categories of the scenes: one drawing function each, registered in the table `SPRITES`.

A drawing function draws with a `Pen` in its own design units (width x height as registered, y downwards, feet at the
bottom). It gets a `RandomSource` for its variations, and the color that names the object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from ..argument_validation import Range, validate_arguments
from ..exceptions import ArgumentError, unknown_name
from .backgrounds import BACKGROUND_SPECS
from .paint import (
    OUTLINE_COLOR,
    PALETTE,
    Color,
    Pen,
    RandomSource,
    arc,
    darker,
    lighter,
    mix,
    rotate,
    rounded_rectangle,
    word_extent,
)

SKIN_COLORS = ((255, 219, 190), (240, 190, 150), (198, 140, 100), (140, 94, 66))
HAIR_COLORS = ((70, 48, 40), (40, 36, 44), (196, 140, 70), (178, 84, 50), (226, 196, 120))
GLASS: Color = (190, 228, 246)
WOOD: Color = (158, 108, 70)
LEAF: Color = (88, 168, 82)
CREAM: Color = (255, 246, 224)
TIRE: Color = (60, 58, 72)
STEEL: Color = (196, 202, 212)

Zone = Literal["ground", "sky", "top", "water"]

DesignUnits = Annotated[float, Range(1, 10_000)]
"""A side of a drawing."""

ColorWeights = dict[str | None, float]
"""Name of a color of `PALETTE` -> relative frequency; None for objects that are not named after a color."""

DrawFunction = Callable[..., None]
"""`draw(pen, rng, color)`; the function of signs takes a `SignLayout` as well."""


@dataclass(frozen=True)
class Sprite:
    """A category: how it is drawn, how large it is, and where it may stand.

    Attributes:
        label: name of the category.
        draw: the drawing function.
        size: width and height of the drawing in design units.
        height: height in the foreground, as a fraction of the shorter side of the image.
        colors: colors and their relative frequencies.
        zone: `"ground"`, `"sky"`, `"top"` (upper edge of the sky) or `"water"`.
        backgrounds: names of the backgrounds that it appears in; all of them if empty.
        group_weight: relative probability of appearing in groups.
        aspect_jitter: half the range of the log aspect ratio; 0 keeps the proportions.
        can_flip: whether it may be mirrored horizontally.
    """

    label: str
    draw: DrawFunction
    size: tuple[float, float]
    height: float
    colors: ColorWeights
    zone: str
    backgrounds: tuple[str, ...]
    group_weight: float
    aspect_jitter: float
    can_flip: bool


SPRITES: dict[str, Sprite] = {}
"""Category -> `Sprite`, including categories that users register with `sprite`."""

VIVID_COLORS: ColorWeights = dict.fromkeys(("red", "orange", "yellow", "green", "blue", "purple", "pink"), 1.0)
NO_COLOR: ColorWeights = {None: 1.0}


@validate_arguments
def sprite(
    label: str,
    size: tuple[DesignUnits, DesignUnits],
    height: Annotated[float, Range(0, 1, is_open=True)],
    colors: ColorWeights,
    zone: Zone = "ground",
    backgrounds: str = "",
    group_weight: Annotated[float, Range(0)] = 1.0,
    aspect_jitter: Annotated[float, Range(0, 1)] = 0.08,
    can_flip: bool = True,
) -> Callable[[DrawFunction], DrawFunction]:
    """Register the decorated drawing function as a category.

    The category appears only in scenes that request it: `draw_scene(seed, categories=["robot", "sheep"])`. The function is
    called as `draw(pen, rng, color)` with a `Pen` in design units (origin at the top left, y downwards), a `RandomSource` and
    a color as (red, green, blue) in 0..255.

    Args:
        label: name of the category.
        size: width and height of the drawing in design units.
        height: height in the foreground, as a fraction of the shorter side of the image.
        colors: names of `PALETTE` and their relative frequencies; `{None: 1}` if the object is not named after a color.
        zone: where it is placed: `"ground"`, `"sky"`, `"top"` (upper edge of the sky) or `"water"`.
        backgrounds: names of the backgrounds that it appears in, separated by spaces; all of them by default.
        group_weight: relative probability of appearing in groups.
        aspect_jitter: half the range of the log aspect ratio; 0 keeps the proportions.
        can_flip: whether it may be mirrored horizontally.

    Raises:
        ArgumentError: for a number out of range, and an unknown zone, color or background.
    """
    if not label.strip() or min(colors.values(), default=0) <= 0:
        raise ArgumentError(f"a category needs a label and colors with positive weights, got {label!r} and {colors}")
    for color in colors:
        if color is not None and color not in PALETTE:
            raise ArgumentError(unknown_name("color", color, PALETTE))
    names = tuple(backgrounds.split())
    for name in names:
        if name not in BACKGROUND_SPECS:
            raise ArgumentError(unknown_name("background", name, BACKGROUND_SPECS))

    @validate_arguments
    def register(draw: DrawFunction) -> DrawFunction:
        SPRITES[label] = Sprite(label, draw, size, height, colors, zone, names, group_weight, aspect_jitter, can_flip)
        return draw

    return register


# ---------------------------------------------------------------- animals


@sprite(
    "sheep",
    (122, 98),
    0.25,
    {"white": 6, "black": 2, "brown": 1},
    backgrounds="field snow night lake",
    group_weight=3.0,
)
def draw_sheep(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a sheep."""
    dark = color == PALETTE["black"]
    face = (226, 200, 176) if dark else (84, 72, 82)
    wool = lighter(color, 0.08) if dark else color
    step, drop = rng.uniform(-4, 4), rng.uniform(-3, 5)
    for x, s in ((46, step), (60, -step), (86, step), (98, -step)):
        pen.stroke([(x, 66), (x + s, 92)], 8, face if not dark else (70, 62, 74))
    pen.circle(112, 46 + rng.uniform(-4, 6), 7, wool)
    puff = rng.uniform(0.95, 1.08)
    middles = (
        (44, 50, 19),
        (54, 36, 18),
        (72, 31, 19),
        (90, 37, 18),
        (101, 52, 16),
        (88, 65, 17),
        (70, 68, 17),
        (52, 65, 16),
    )
    pen.blob([(x, y, r * puff) for x, y, r in middles] + [(72, 50, 24)], wool)
    for x, y in ((60, 44), (80, 48), (66, 60), (90, 56)):
        pen.stroke(arc(x, y, 6, 5, 20, 150, 4), 2.2, darker(wool, 0.16), outline=False)
    head = 46 + drop
    pen.ellipse(38, head - 6, 8, 4.5, face)
    pen.ellipse(24, head, 13.5, 17, face)
    pen.blob([(22, head - 16, 7), (31, head - 16, 7), (26, head - 20, 7)], wool)
    pen.eye(20, head - 3, 3.0)
    pen.eye(30, head - 3, 3.0)
    pen.stroke(arc(24, head + 7, 4, 3, 20, 160, 4), 1.8, darker(face, 0.3) if dark else (150, 130, 140), outline=False)


@sprite(
    "cow",
    (146, 104),
    0.29,
    {"white": 3, "brown": 3, "black": 2},
    backgrounds="field night lake desert",
    group_weight=1.5,
)
def draw_cow(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a cow."""
    white = color == PALETTE["white"]
    spot = (70, 64, 76) if white else CREAM
    step = rng.uniform(-4, 4)
    pen.stroke([(126, 40), (136, 56), (134, 70)], 4, color)
    pen.circle(134, 73, 5, darker(color, 0.35))
    for x, s in ((50, step), (64, -step), (104, step), (118, -step)):
        pen.stroke([(x, 68), (x + s, 90)], 10, color if x in (50, 118) else darker(color, 0.12))
        pen.box(x + s - 6, 92, x + s + 6, 99, (84, 72, 78), 2)
    pen.ellipse(98, 77, 10, 8, (248, 176, 180))
    pen.box(36, 30, 128, 77, color, 19)
    for x, y, rx, ry in ((74, 42, 13, 9), (106, 56, 12, 14), (60, 62, 9, 7)):
        pen.ellipse(x + rng.uniform(-4, 4), y, rx * rng.uniform(0.8, 1.1), ry, spot, outline=False)
    head = rng.uniform(-3, 7)
    pen.polygon([(15, 22 + head), (7, 8 + head), (22, 15 + head)], CREAM)
    pen.polygon([(35, 15 + head), (46, 8 + head), (42, 22 + head)], CREAM)
    pen.ellipse(7, 27 + head, 7, 4.5, color)
    pen.ellipse(49, 27 + head, 7, 4.5, color)
    pen.box(12, 14 + head, 44, 58 + head, color, 13)
    if white:
        pen.ellipse(37, 29 + head, 6, 9, spot, outline=False)
    pen.ellipse(28, 52 + head, 19, 11, (248, 186, 186))
    pen.ellipse(21, 51 + head, 2.4, 3.2, (160, 92, 104), outline=False)
    pen.ellipse(35, 51 + head, 2.4, 3.2, (160, 92, 104), outline=False)
    pen.eye(20, 31 + head, 3.4)
    pen.eye(36, 31 + head, 3.4)


@sprite("dog", (116, 96), 0.22, {"brown": 3, "white": 2, "black": 2, "gray": 1.5}, group_weight=1.3)
def draw_dog(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a dog."""
    shade, wag, step = darker(color, 0.2), rng.uniform(-8, 8), rng.uniform(-5, 5)
    pen.stroke([(100, 52), (108, 38), (106 + wag * 0.3, 20 + wag)], 7.5, color)
    for x, s, paint in ((54, -step, shade), (92, -step, shade), (46, step, color), (100, step, color)):
        pen.stroke([(x, 64), (x + s, 89)], 9.5, paint)
    pen.box(40, 42, 108, 76, color, 15)
    pen.ellipse(78, 71, 20, 4.5, lighter(color, 0.35), outline=False)
    if rng.chance(0.35):
        pen.ellipse(84, 50, 12, 7, shade, outline=False)
    pen.stroke([(42, 54), (52, 60)], 6, rng.choice((PALETTE["red"], PALETTE["blue"], PALETTE["green"])))
    pen.circle(38, 32, 20, color)
    pen.curve([(34, 30), (14, 32), (6, 40), (12, 48), (34, 48)], lighter(color, 0.25))
    pen.ellipse(9, 38, 6, 5, OUTLINE_COLOR, outline=False)
    pen.stroke([(14, 46), (22, 47), (28, 44)], 2, OUTLINE_COLOR, outline=False)
    pen.eye(30, 25, 3.6)
    ear = rng.uniform(-3, 4)
    pen.curve([(42, 14), (56, 16), (62 + ear, 38), (54 + ear, 46), (46, 32)], darker(color, 0.34))


@sprite("cat", (86, 98), 0.22, {"orange": 3, "black": 2.5, "gray": 2, "white": 2}, group_weight=1.3)
def draw_cat(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a cat."""
    dark, stripe = color == PALETTE["black"], darker(color, 0.28)
    curl = rng.uniform(-6, 6)
    pen.stroke([(58, 86), (74, 84), (79, 68), (75 + curl * 0.3, 52 + curl)], 8, color)
    pen.curve([(40, 42), (56, 54), (64, 80), (58, 94), (40, 95), (22, 94), (16, 80), (24, 54)], color)
    pen.ellipse(40, 76, 11, 14, lighter(color, 0.12 if dark else 0.5), outline=False)
    for x in (30, 50):
        pen.ellipse(x, 91, 9, 5.5, lighter(color, 0.1 if dark else 0.2))
    tilt = rng.uniform(-2, 2)
    for a, b, c in (((16, 28), (15, 2 + tilt), (36, 14)), ((64, 28), (65, 2 - tilt), (44, 14))):
        pen.polygon([a, b, c], color)
        cx, cy = (a[0] + b[0] + c[0]) / 3, (a[1] + b[1] + c[1]) / 3
        inner = [(round(x + (cx - x) * 0.42), round(y + (cy - y) * 0.42)) for x, y in (a, b, c)]
        pen.polygon(inner, (246, 164, 170), outline=False)
    pen.ellipse(40, 33, 28, 22, color)
    if rng.chance(0.6) and not dark:
        for x, h in ((33, 6), (40, 9), (47, 6)):
            pen.stroke([(x, 14), (x, 14 + h)], 3, stripe, outline=False)
    iris = (250, 214, 90) if dark else (255, 255, 255)
    for x in (29, 51):
        pen.ellipse(x, 32, 6, 6, iris, outline=False)
        pen.eye(x, 32.5, 3.8, white=False)
    pen.polygon([(36.5, 40), (43.5, 40), (40, 44)], (240, 120, 136), outline=False)
    for side in (-1, 1):
        for dy in (-2, 3):
            line = lighter(color, 0.55) if dark else OUTLINE_COLOR
            pen.stroke([(40 + side * 14, 42 + dy * 0.4), (40 + side * 30, 41 + dy)], 1.4, line, outline=False)


@sprite(
    "duck",
    (96, 84),
    0.19,
    {"yellow": 3, "white": 2, "brown": 1},
    "water",
    backgrounds="lake beach field",
    group_weight=2.0,
)
def draw_duck(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a duck."""
    bill, nod = (248, 146, 44), rng.uniform(-3, 3)
    for x in () if pen.floats else (50, 62):
        pen.stroke([(x, 74), (x, 79)], 4, bill)
        pen.ellipse(x - 4, 80, 8, 2.8, bill)
    pen.curve([(28, 44), (46, 48), (66, 42), (90, 28), (89, 52), (76, 72), (46, 76), (26, 66)], color)
    pen.curve([(46, 54), (64, 50), (80, 50), (72, 64), (54, 66)], darker(color, 0.13))
    pen.polygon([(16, 24 + nod), (1, 28 + nod), (2, 34 + nod), (18, 36 + nod)], bill)
    pen.circle(32, 28 + nod, 19.5, color)
    pen.circle(33, 35 + nod, 8, mix(color, (250, 130, 90), 0.22), outline=False)
    pen.eye(25, 23 + nod, 3.8)


@sprite("bird", (108, 84), 0.16, {"blue": 2, "red": 2, "yellow": 1, "white": 1, "black": 1}, "sky", group_weight=1.8)
def draw_bird(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a bird."""
    lift = rng.uniform(-4, 12)
    pen.polygon([(82, 50), (105, 40), (101, 52), (106, 62)], darker(color, 0.25))
    pen.curve([(52, 48), (44, 16 + lift), (58, 3 + lift), (74, 16 + lift), (76, 46)], darker(color, 0.3))
    pen.curve([(14, 46), (30, 30), (58, 36), (86, 50), (70, 66), (40, 70), (20, 62)], color)
    pen.ellipse(44, 61, 18, 6, lighter(color, 0.5), outline=False)
    pen.polygon([(15, 44), (1, 51), (16, 55)], (250, 166, 48))
    pen.eye(27, 44, 3.8)
    pen.curve([(46, 46), (58, 20 + lift), (80, 5 + lift), (90, 14 + lift), (84, 34), (68, 54)], darker(color, 0.12))


# ---------------------------------------------------------------- people


@sprite("person", (70, 136), 0.36, VIVID_COLORS, group_weight=1.4, aspect_jitter=0.1)
def draw_person(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a person."""
    skin, hair = rng.choice(SKIN_COLORS), rng.choice(HAIR_COLORS)
    trousers = rng.choice(((70, 86, 140), (88, 80, 92), (120, 100, 84)))
    long_hair, skirt, stance = rng.chance(0.45), rng.chance(0.35), rng.uniform(0, 5)
    if long_hair:
        pen.curve([(18, 24), (35, 3), (52, 24), (55, 54), (35, 58), (15, 54)], hair)
    legs = skin if skirt else trousers
    for x, s in ((28, -stance), (42, stance)):
        pen.stroke([(x, 88), (x + s, 122)], 9, legs)
        pen.ellipse(x + s - 2, 130, 9, 4.5, (84, 66, 66))
    swing, hand = rng.choice(((-2, 28), (-4, 24), (-9, -18))), rng.choice(((2, 28), (4, 24)))
    for x, (dx, dy), side in ((20, swing, -1), (50, hand, 1)):
        elbow = (x + side * 9, 66 + dy * 0.4)
        pen.stroke([(x, 62), elbow, (elbow[0] + dx, 64 + dy)], 8, color)
        pen.circle(elbow[0] + dx, 64 + dy, 5, skin)
    pen.box(30, 46, 40, 60, skin)
    if skirt:
        pen.polygon([(21, 56), (49, 56), (58, 102), (12, 102)], color)
    else:
        pen.box(18, 54, 52, 94, color, 9)
    pen.stroke([(22, 82), (48, 82)], 2.2, darker(color, 0.25), outline=False)
    pen.circle(35, 30, 17.5, skin)
    pen.polygon([*arc(35, 28, 18.5, 19, 180, 360, 10), (49, 22), (36, 18), (24, 25)], hair)
    for x in (29, 41):
        pen.circle(x, 32, 2.3, OUTLINE_COLOR, outline=False)
    pen.stroke(arc(35, 36, 5, 4, 20, 160, 4), 1.8, (176, 70, 70), outline=False)


@sprite("snowman", (98, 134), 0.31, NO_COLOR, backgrounds="snow", group_weight=0.7)
def draw_snowman(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a snowman."""
    snow, scarf = (250, 252, 255), rng.choice((PALETTE["red"], PALETTE["blue"], PALETTE["green"]))
    raise_left, raise_right = rng.uniform(-14, 4), rng.uniform(-14, 4)
    pen.stroke([(26, 70), (5, 62 + raise_left)], 3, WOOD)
    pen.stroke([(72, 70), (93, 62 + raise_right)], 3, WOOD)
    pen.circle(49, 102, 29, snow)
    pen.circle(49, 66, 22, snow)
    pen.circle(49, 36, 18, snow)
    pen.stroke([(36, 50), (49, 54), (62, 50)], 7, scarf)
    pen.stroke([(58, 52), (62, 70)], 6.5, scarf)
    pen.box(34, 3, 64, 22, (70, 64, 80), 3)
    pen.box(27, 19, 71, 24, (70, 64, 80), 2)
    pen.box(35, 14, 63, 19, scarf, outline=False)
    for x in (42, 56):
        pen.circle(x, 33, 2.6, OUTLINE_COLOR, outline=False)
    pen.polygon([(49, 36), (32, 41), (49, 42)], (248, 140, 50))
    for y in (68, 78, 98):
        pen.circle(49, y, 2.6, OUTLINE_COLOR, outline=False)


# ---------------------------------------------------------------- plants


@sprite(
    "tree",
    (100, 138),
    0.43,
    {"green": 5, "orange": 1.6, "pink": 1.4},
    backgrounds="field street snow night lake",
    group_weight=1.4,
    aspect_jitter=0.14,
)
def draw_tree(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a tree."""
    if color == PALETTE["green"] and rng.chance(0.45):
        draw_pine(pen, rng, color)
        return
    pen.polygon([(43, 76), (57, 76), (62, 134), (38, 134)], WOOD)
    pen.stroke([(50, 92), (64, 74)], 5, WOOD)
    shape = [(32, 62, 27), (68, 62, 27), (50, 36, 30), (28, 42, 22), (72, 42, 22), (50, 68, 24)]
    crown = [(x, y, r * rng.uniform(0.92, 1.05)) for x, y, r in shape]
    pen.blob(crown, color)
    pen.blob([(44, 30, 18), (32, 42, 14), (58, 36, 14)], lighter(color, 0.16), outline=False)
    for _ in range(5):
        pen.circle(rng.uniform(28, 72), rng.uniform(30, 76), rng.uniform(2, 3.4), darker(color, 0.18), outline=False)


def draw_pine(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a pine."""
    base = mix(color, (30, 120, 96), rng.uniform(0.2, 0.6))
    pen.box(43, 112, 57, 134, WOOD)
    for i, (top, bottom, half) in enumerate(((62, 118, 44), (34, 90, 36), (5, 60, 27))):
        paint = lighter(base, 0.07 * i)
        pen.polygon([(50, top), (50 + half, bottom), (50, bottom + 5), (50 - half, bottom)], paint)
        pen.polygon(
            [(50, top + 4), (50 - half * 0.75, bottom - 2), (50 - half * 0.25, bottom)],
            lighter(paint, 0.16),
            outline=False,
        )


@sprite(
    "flower",
    (66, 112),
    0.24,
    {"red": 1, "yellow": 1, "pink": 1, "purple": 1, "white": 1, "blue": 1},
    backgrounds="field street lake night",
    group_weight=2.4,
    aspect_jitter=0.1,
)
def draw_flower(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a flower."""
    lean, petals = rng.uniform(-4, 4), rng.integer(5, 7)
    pen.stroke([(33 + lean, 36), (33 + lean * 0.4, 74), (33, 108)], 5, LEAF)
    pen.curve([(33, 98), (44, 80), (60, 76), (54, 92)], LEAF)
    pen.curve([(33, 104), (20, 88), (6, 86), (14, 100)], LEAF)
    ring = arc(33 + lean, 33, 18, 18, -90, 270, petals)[:-1]
    radius = 11.5 if petals > 5 else 12.5
    pen.blob([(x, y, radius) for x, y in ring], color)
    for x, y in ring:
        pen.stroke([(33 + lean, 33), (x, y)], 2, darker(color, 0.15), outline=False)
    heart = (150, 92, 50) if color == PALETTE["yellow"] else (255, 204, 70)
    pen.circle(33 + lean, 33, 10.5, heart)
    pen.circle(30 + lean, 30, 3, lighter(heart, 0.4), outline=False)


@sprite(
    "mushroom",
    (94, 92),
    0.2,
    {"red": 3, "brown": 2, "purple": 1.2, "orange": 1},
    backgrounds="field night lake snow",
    group_weight=2.0,
    aspect_jitter=0.12,
)
def draw_mushroom(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a mushroom."""
    pen.curve([(36, 46), (58, 46), (60, 66), (66, 84), (47, 90), (28, 84), (34, 66)], CREAM)
    pen.ellipse(47, 51, 30, 7, (236, 220, 196))
    top = rng.uniform(3, 12)
    pen.polygon([*arc(47, 50, 43, 50 - top, 180, 360, 16), *arc(47, 50, 43, 8, 0, 180, 8)], color)
    for x, y, r in ((30, 36, 6.5), (52, 24, 7.5), (68, 40, 6), (46, 44, 4.5)):
        pen.ellipse(x + rng.uniform(-3, 3), y, r, r * 0.85, (255, 252, 244), outline=False)


@sprite("cactus", (88, 124), 0.31, NO_COLOR, backgrounds="desert beach", group_weight=1.6, aspect_jitter=0.12)
def draw_cactus(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a cactus."""
    green = mix((70, 160, 92), (120, 180, 80), rng.random())
    left, right = rng.uniform(-10, 10), rng.uniform(-10, 10)
    pen.stroke([(44, 78 + left), (17, 76 + left), (15, 48 + left)], 16, green)
    pen.stroke([(44, 66 + right), (71, 64 + right), (73, 34 + right)], 15, green)
    pen.stroke([(44, 110), (44, 24)], 27, green)
    pen.stroke([(44, 78 + left), (17, 76 + left), (15, 48 + left)], 16, green, outline=False)
    pen.stroke([(44, 66 + right), (71, 64 + right), (73, 34 + right)], 15, green, outline=False)
    for x in (37, 44, 51):
        pen.stroke([(x, 22), (x, 112)], 1.8, darker(green, 0.22), outline=False)
    if rng.chance(0.5):
        pen.blob([(38, 10, 5), (50, 10, 5), (44, 6.5, 5)], (246, 120, 160))


# ---------------------------------------------------------------- vehicles


def wheel(pen: Pen, cx: float, cy: float, radius: float) -> None:
    pen.circle(cx, cy, radius, TIRE)
    pen.circle(cx, cy, radius * 0.52, STEEL, outline=False)
    pen.circle(cx, cy, radius * 0.2, (120, 124, 138), outline=False)


@sprite(
    "car",
    (152, 78),
    0.2,
    {"red": 2, "blue": 2, "yellow": 1.5, "green": 1.5, "white": 1, "black": 1, "orange": 1, "pink": 1},
    backgrounds="street field desert snow night",
    group_weight=1.6,
)
def draw_car(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a car."""
    back = rng.uniform(-6, 8)
    pen.polygon([(38, 36), (56 + back * 0.4, 7), (100, 6), (126 + back * 0.5, 36)], color)
    pen.polygon([(48, 35), (60 + back * 0.4, 13), (78, 12), (78, 35)], GLASS, outline=False)
    pen.polygon([(84, 35), (84, 12), (97, 12), (116 + back * 0.4, 35)], GLASS, outline=False)
    pen.polygon([(62, 33), (72, 14), (77, 14), (68, 33)], (226, 244, 252), outline=False)
    pen.curve([(6, 58), (8, 42), (34, 34), (80, 33), (126, 34), (146, 42), (147, 60), (128, 65), (24, 65)], color)
    pen.box(10, 54, 142, 62, darker(color, 0.22), 4, outline=False)
    pen.stroke([(80, 38), (80, 58)], 1.8, darker(color, 0.35), outline=False)
    pen.stroke([(86, 43), (93, 43)], 2.4, darker(color, 0.45), outline=False)
    pen.ellipse(11, 47, 5, 5, (255, 240, 170))
    pen.ellipse(143, 46, 3.5, 5, (255, 120, 100), outline=False)
    for x in (38, 114):
        wheel(pen, x, 62, 13.5)


@sprite(
    "bus",
    (172, 98),
    0.27,
    {"red": 2, "yellow": 2, "blue": 1.5, "green": 1.5, "orange": 1, "purple": 1},
    backgrounds="street snow night desert field",
    group_weight=0.9,
)
def draw_bus(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a bus."""
    pen.box(5, 6, 167, 82, color, 11)
    pen.box(8, 56, 164, 63, lighter(color, 0.55), outline=False)
    pen.box(8, 70, 164, 80, darker(color, 0.2), 4, outline=False)
    pen.box(10, 16, 30, 50, GLASS, 4)
    windows = rng.integer(3, 4)
    step = 96 / windows
    for i in range(windows):
        x = 62 + i * step
        pen.box(x, 16, x + step - 7, 46, GLASS, 4)
        pen.polygon(
            [(x + 4, 42), (x + step * 0.35, 19), (x + step * 0.5, 19), (x + step * 0.2, 42)],
            (226, 244, 252),
            outline=False,
        )
    pen.box(36, 18, 55, 79, mix(GLASS, (120, 150, 180), 0.3), 3)
    pen.stroke([(45.5, 20), (45.5, 78)], 1.8, OUTLINE_COLOR, outline=False)
    pen.ellipse(10, 68, 4.5, 4.5, (255, 240, 170))
    for x in (42, 132):
        wheel(pen, x, 82, 13)


@sprite(
    "bicycle",
    (132, 88),
    0.22,
    {"red": 1, "blue": 1, "green": 1, "yellow": 1, "pink": 1, "black": 0.7},
    backgrounds="street field beach lake",
    group_weight=0.9,
    aspect_jitter=0.05,
)
def draw_bicycle(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a bicycle."""
    for x in (28, 104):
        pen.circle(x, 60, 25, (232, 238, 244))
        for points in (
            ((x - 21, 60), (x + 21, 60)),
            ((x, 39), (x, 81)),
            ((x - 15, 45), (x + 15, 75)),
            ((x - 15, 75), (x + 15, 45)),
        ):
            pen.stroke(points, 1.2, (160, 168, 180), outline=False)
        ring = arc(x, 60, 24, 24, 0, 360, 20)
        pen.stroke(ring, 4.5, TIRE, outline=False)
    frame = ([(104, 60), (64, 62), (52, 30), (94, 28), (64, 62)], [(52, 30), (28, 60)], [(64, 62), (28, 60)])
    for line in frame:
        pen.stroke(line, 4.5, color)
    for line in frame:
        pen.stroke(line, 4.5, color, outline=False)
    pen.stroke([(104, 60), (92, 18)], 4.5, color)
    pen.stroke([(82, 12), (92, 16), (100, 10)], 4, TIRE)
    pen.stroke([(52, 30), (49, 20)], 4, STEEL)
    pen.box(37, 14, 62, 21, (92, 66, 58), 3)
    pen.circle(64, 62, 6.5, STEEL)


@sprite(
    "boat",
    (118, 124),
    0.3,
    {"red": 1, "blue": 1, "white": 1, "yellow": 1, "green": 1, "purple": 1},
    "water",
    backgrounds="beach lake",
    group_weight=1.2,
)
def draw_boat(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a boat."""
    height, sail = rng.uniform(4, 16), (255, 250, 240)
    pen.stroke([(56, 92), (56, height)], 4, WOOD)
    pen.curve([(62, height + 6), (84, 44), (106, 82), (84, 84), (62, 83)], sail, steps=4)
    pen.polygon([(50, height + 14), (50, 82), (14, 82)], mix(sail, color, 0.55))
    pen.stroke([(66, 60), (92, 62)], 3, color, outline=False)
    pen.polygon([(57, height - 2), (74, height + 4), (57, height + 9)], PALETTE["red"])
    pen.polygon([(5, 90), (113, 90), (98, 116), (84, 119), (32, 119), (18, 114)], color)
    pen.polygon([(8, 93), (110, 93), (107, 99), (12, 99)], lighter(color, 0.5), outline=False)
    for x in (42, 58, 74):
        pen.circle(x, 107, 3.4, lighter(color, 0.75), outline=False)


@sprite(
    "airplane",
    (158, 88),
    0.17,
    {"white": 2, "red": 1, "blue": 1, "yellow": 1, "orange": 1, "green": 0.6},
    "sky",
    group_weight=1.0,
)
def draw_airplane(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw an airplane."""
    trim = rng.choice([c for c in (PALETTE["red"], PALETTE["blue"], PALETTE["orange"]) if c != color])
    pen.polygon([(78, 34), (98, 9), (110, 9), (102, 36)], darker(color, 0.18))
    pen.polygon([(124, 38), (142, 8), (155, 8), (150, 44)], trim)
    pen.curve([(5, 48), (18, 34), (50, 30), (120, 31), (152, 38), (146, 50), (110, 58), (50, 60), (16, 58)], color)
    pen.curve([(12, 44), (20, 36), (34, 34), (34, 44)], GLASS, outline=False)
    pen.stroke([(10, 53), (136, 51)], 3, trim, outline=False)
    for x in range(46, 122, 13):
        pen.circle(x, 42, 3.7, mix(GLASS, (70, 130, 190), 0.35), outline=False)
    pen.polygon([(64, 50), (94, 50), (124, 82), (108, 84)], darker(color, 0.1))
    pen.polygon([(134, 46), (150, 44), (156, 56), (146, 57)], darker(trim, 0.1))


@sprite(
    "balloon",
    (94, 134),
    0.3,
    VIVID_COLORS,
    "sky",
    group_weight=1.4,
    can_flip=False,
)
def draw_balloon(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a balloon."""
    for x0, x1 in ((30, 38), (64, 56)):
        pen.stroke([(x0, 88), (x1, 114)], 1.8, (110, 84, 70))
    pen.box(35, 110, 59, 129, WOOD, 3)
    pen.box(34, 108, 60, 114, lighter(WOOD, 0.2), 2)
    pen.curve([(47, 4), (76, 15), (89, 45), (74, 78), (60, 96), (34, 96), (20, 78), (5, 45), (18, 15)], color)
    stripe = lighter(color, 0.45) if rng.chance(0.6) else darker(color, 0.14)
    pen.curve(
        [(47, 5), (62, 24), (67, 48), (60, 78), (52, 95), (42, 95), (34, 78), (27, 48), (32, 24)],
        stripe,
        outline=False,
    )
    pen.curve(
        [(47, 5), (53, 24), (55, 48), (52, 78), (49, 95), (45, 95), (42, 78), (39, 48), (41, 24)],
        color,
        outline=False,
    )
    pen.ellipse(22, 32, 4, 10, lighter(color, 0.6), outline=False)


# ---------------------------------------------------------------- buildings and objects


@sprite(
    "house",
    (128, 124),
    0.4,
    {"white": 1, "yellow": 1.2, "blue": 1.2, "pink": 1, "red": 1, "green": 0.8, "orange": 0.6},
    backgrounds="field street snow night lake",
    group_weight=1.1,
    aspect_jitter=0.12,
)
def draw_house(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a house."""
    roof = rng.choice(((128, 78, 74), (92, 92, 116), (112, 86, 66)))
    wall, left = lighter(color, 0.12), rng.chance(0.5)
    chimney = rng.choice((28, 86))
    pen.box(chimney, 12, chimney + 15, 46, (178, 112, 96))
    pen.box(16, 50, 112, 119, wall)
    pen.polygon([(64, 5), (124, 54), (4, 54)], roof)
    for y in (24, 38):
        pen.stroke([(64 - (y - 5) * 0.8, y + 6), (64 + (y - 5) * 0.8, y + 6)], 2, darker(roof, 0.25), outline=False)
    door = 26 if left else 76
    pen.box(door, 76, door + 25, 119, rng.choice(((140, 84, 60), (96, 116, 92), (90, 80, 120))), 2)
    pen.circle(door + 20, 98, 2.2, (255, 220, 110), outline=False)
    pane = rng.choice((GLASS, (255, 236, 160)))
    window = 64 if left else 28
    pen.box(window, 72, window + 34, 98, pane, 1)
    pen.stroke([(window + 17, 73), (window + 17, 97)], 2, OUTLINE_COLOR, outline=False)
    pen.stroke([(window + 1, 85), (window + 33, 85)], 2, OUTLINE_COLOR, outline=False)
    pen.circle(64, 37, 7.5, pane)


@sprite(
    "lighthouse",
    (72, 156),
    0.48,
    {"red": 2, "blue": 1.4, "black": 1, "green": 1},
    backgrounds="beach lake night field",
    group_weight=0.6,
    can_flip=False,
)
def draw_lighthouse(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a lighthouse."""

    def edge(y: float) -> float:
        return 13 + (y - 44) * 0.13

    pen.polygon(
        [(36 - edge(44), 44), (36 + edge(44), 44), (36 + edge(148), 148), (36 - edge(148), 148)],
        (252, 250, 244),
    )
    bands = rng.integer(2, 3)
    height = 104 / (2 * bands)
    for i in range(bands):
        a, b = 44 + height * 2 * i, 44 + height * (2 * i + 1)
        pen.polygon([(36 - edge(a), a), (36 + edge(a), a), (36 + edge(b), b), (36 - edge(b), b)], color, outline=False)
    pen.box(26, 22, 46, 42, (255, 232, 130))
    pen.stroke([(36, 22), (36, 41)], 2, OUTLINE_COLOR, outline=False)
    pen.box(18, 39, 54, 46, (110, 104, 120), 2)
    pen.polygon([(22, 23), (50, 23), (36, 5)], color)
    pen.polygon([*arc(36, 152, 8, 26, 180, 360, 8)], (120, 84, 70))
    pen.circle(36, 82, 4, (120, 140, 170))
    pen.box(8, 145, 64, 152, (150, 148, 156), 3)


@sprite("umbrella", (124, 118), 0.27, VIVID_COLORS, backgrounds="beach street lake desert", group_weight=1.3)
def draw_umbrella(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw an umbrella."""
    pen.stroke([(62, 40), (62, 113)], 4.5, (226, 220, 210))
    top = arc(62, 60, 57, 54, 180, 360, 20)
    scallops = [(119 - 19 * i - 9.5, 55) if half else (119 - 19 * i, 60) for i in range(6) for half in (0, 1)]
    pen.polygon([*top, *scallops, (5, 60)], color)
    other = (255, 250, 240)
    for a, b in ((24, 43), (81, 100)) if rng.chance(0.7) else ((43, 81),):
        low = [(b, 59), ((a + b) / 2, 55), (a, 59)]
        pen.polygon([(62, 7), (62 + (b - 62) * 0.78, 28), *low, (62 + (a - 62) * 0.78, 28)], other, outline=False)
    pen.circle(62, 6, 3.2, darker(color, 0.2))


@sprite("ball", (84, 84), 0.15, VIVID_COLORS, group_weight=1.8, aspect_jitter=0.0)
def draw_ball(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a ball."""
    pen.circle(42, 42, 38, color)
    light = (255, 252, 244)
    if rng.chance(0.5):
        pen.curve([(42, 5), (58, 24), (58, 60), (42, 79), (30, 60), (30, 24)], light, outline=False)
        pen.curve([(42, 6), (50, 24), (50, 60), (42, 78), (38, 60), (38, 24)], color, outline=False)
        pen.ellipse(23, 25, 5, 6, lighter(color, 0.6), outline=False)
    else:
        pen.circle(42, 42, 13, light, outline=False)
        for x, y in arc(42, 42, 29, 29, rng.uniform(0, 70), 360, 5)[:-1]:
            pen.circle(x, y, 5.5, light, outline=False)


# ---------------------------------------------------------------- the sky


@sprite(
    "sun",
    (104, 104),
    0.2,
    NO_COLOR,
    "top",
    backgrounds="field beach street snow desert lake",
    group_weight=0.0,
    aspect_jitter=0.0,
)
def draw_sun(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw the sun."""
    rays, tilt, gold = rng.integer(9, 12), rng.uniform(0, 40), (255, 205, 60)
    for i in range(rays):
        a = tilt + i * 360 / rays
        reach = 49 if i % 2 else 44
        (ax, ay), (bx, by) = arc(52, 52, 31, 31, a - 9, a + 9, 1)
        (tx, ty) = arc(52, 52, reach, reach, a, a, 1)[0]
        pen.polygon([(ax, ay), (tx, ty), (bx, by)], (255, 176, 50))
    pen.circle(52, 52, 31, gold)
    pen.circle(48, 46, 20, lighter(gold, 0.3), outline=False)
    if rng.chance(0.7):
        for x in (42, 62):
            pen.circle(x, 48, 3, OUTLINE_COLOR, outline=False)
        pen.stroke(arc(52, 54, 10, 8, 20, 160, 6), 2.6, OUTLINE_COLOR, outline=False)
        for x in (35, 69):
            pen.ellipse(x, 57, 5, 3, (255, 150, 110), outline=False)


@sprite("moon", (84, 96), 0.2, NO_COLOR, "top", backgrounds="night", group_weight=0.0, aspect_jitter=0.0)
def draw_moon(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw the moon."""
    pale, thin = (255, 232, 130), rng.uniform(0, 14)
    inner = arc(62 + thin * 0.4, 42, 38 - thin * 0.2, 38, 112, 250, 14)
    outer = arc(44, 48, 41, 44, 270, 55, 18)
    pen.polygon([*outer, *inner], pale)
    for x, y, r in ((18, 50, 4.5), (24, 70, 3.5), (22, 32, 3)):
        pen.circle(x, y, r, darker(pale, 0.12), outline=False)


@sprite("cloud", (148, 82), 0.15, NO_COLOR, "sky", group_weight=1.4, aspect_jitter=0.15)
def draw_cloud(pen: Pen, rng: RandomSource, color: Color) -> None:
    """Draw a cloud."""
    circles = [
        (30, 54, 23),
        (58, 36, 27),
        (92, 38, 24),
        (118, 55, 21),
        (74, 56, 22),
        (48, 58, 20),
        (98, 60, 17),
    ]
    puffs = [(x, y, r * rng.uniform(0.92, 1.06)) for x, y, r in circles]
    pen.blob(puffs, (216, 228, 244))
    pen.blob([(x - 1, y - 4, r - 4.5) for x, y, r in puffs], (255, 255, 255), outline=False)


# ---------------------------------------------------------------- signs

SIGN_COLORS: ColorWeights = {
    "brown": 2,
    "white": 2,
    "yellow": 1.5,
    "green": 1.2,
    "blue": 1.4,
    "red": 1.2,
}
SIGN_TEXT_COLORS: dict[str, tuple[Color, ...]] = {
    "white": ((50, 46, 66), (40, 84, 170), (190, 40, 44)),
    "yellow": ((50, 46, 66),),
    "brown": ((255, 248, 230),),
}
CAPITAL_HEIGHT = 20.0
"""Height of a capital letter of a sign, in design units."""


@dataclass(frozen=True)
class SignLayout:
    """Geometry of a sign with a given word, in design units.

    Attributes:
        font: one of `paint.FONTS`.
        degrees: rotation of the board, clockwise.
        posts: number of posts, 1 or 2.
        corner_radius: radius of the board's corners.
        board: width and height of the board before rotation.
        size: width and height of the whole sign.
    """

    font: str
    degrees: float
    posts: int
    corner_radius: float
    board: tuple[float, float]
    size: tuple[float, float]


def sign_layout(word: str, font: str, rng: RandomSource) -> SignLayout:
    """Sample the geometry of a sign that shows `word` in `font`."""
    degrees = rng.uniform(-13, 13) if rng.chance(0.4) else 0.0
    posts = rng.choice((1, 1, 2))
    width, height = (CAPITAL_HEIGHT * v for v in word_extent(word, font))
    board = (max(width, 20) + rng.uniform(16, 26), height + rng.uniform(14, 22))
    corners = rotate([(0, 0), (board[0], 0), board, (0, board[1])], board[0] / 2, board[1] / 2, degrees)
    xs, ys = zip(*corners, strict=True)
    post = rng.uniform(16, 40)
    size = (max(xs) - min(xs) + 6, max(ys) - min(ys) + post + 4)
    return SignLayout(font, degrees, posts, rng.choice((2.0, 5.0, 8.0)), board, size)


def draw_sign(pen: Pen, rng: RandomSource, color: Color, layout: SignLayout) -> None:
    """Draw a sign."""
    (board_width, board_height), (width, height) = layout.board, layout.size
    cx, cy = width / 2, _rotated_half_height(layout) + 2
    post = darker(WOOD, 0.1) if color == PALETTE["brown"] or layout.posts == 2 else (150, 152, 164)
    for x in (cx,) if layout.posts == 1 else (cx - board_width * 0.3, cx + board_width * 0.3):
        pen.box(x - 3.5, cy, x + 3.5, height - 2, post)
    x0, y0, x1, y1 = cx - board_width / 2, cy - board_height / 2, cx + board_width / 2, cy + board_height / 2
    pen.polygon(rotate(rounded_rectangle(x0, y0, x1, y1, layout.corner_radius), cx, cy, layout.degrees), color)
    name = next(n for n, c in PALETTE.items() if c == color)
    text_color = rng.choice(SIGN_TEXT_COLORS.get(name, ((255, 255, 255),)))
    if name == "brown":
        for fraction in (0.3, 0.72):
            y = y0 + board_height * fraction
            line = rotate([(x0 + 4, y), (x1 - 4, y)], cx, cy, layout.degrees)
            pen.stroke(line, 1.6, darker(color, 0.2), outline=False)
    else:
        inner = rounded_rectangle(x0 + 3, y0 + 3, x1 - 3, y1 - 3, layout.corner_radius * 0.6)
        rim = rotate(inner, cx, cy, layout.degrees)
        pen.stroke([*rim, rim[0]], 1.5, mix(color, text_color, 0.6), outline=False)
    pen.text(layout.font, cx, cy, CAPITAL_HEIGHT, layout.degrees, text_color)


def _rotated_half_height(layout: SignLayout) -> float:
    (width, height), degrees = layout.board, layout.degrees
    corners = rotate([(0, 0), (width, 0), (width, height), (0, height)], width / 2, height / 2, degrees)
    ys = [y for _, y in corners]
    return (max(ys) - min(ys)) / 2


sprite("sign", (100, 60), 0.2, SIGN_COLORS, group_weight=0.4, aspect_jitter=0.0, can_flip=False)(draw_sign)

SIGN_WORDS = tuple(
    """
    stop open sale cafe bank shop zoo park taxi bus train hotel books bread milk fish pizza tea coffee juice
    apple lemon cake candy toys music art dance film news post pool gym farm barn eggs honey corn soup rice
    salt sugar hello welcome hi yes no go slow fast left right north south east west up down in out exit enter
    push pull hot cold new free big small red blue green gold silver moon star sky sea lake river hill beach
    sand wave wind rain snow sun home house garden rose tree bee cat dog pony bear lion duck frog one two ten
    7 10 24 42 99 100 2024 lab school class math quiz team win play game fun magic love peace dream hope wow
    yay ice lucky robot rocket
    """.split()
)
