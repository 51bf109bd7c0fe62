"""TODO"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PIL import Image

from .paint import PALETTE, Color, Pen, RandomSource, darker
from .sprites import SPRITES

if TYPE_CHECKING:
    from .types import PlannedObject

SUPERSAMPLE = 3  # objects are drawn this much larger and shrunk, so that edges are smooth

INK = 0.0056  # width of outlines, as a fraction of the picture's shorter side

# Back to front: the sky's layers, then everything that stands or swims, by how far down its feet are.
LAYERS = {"top": 0, "sky": 1, "water": 2, "ground": 2}

DAYLIGHT = (1.0, 1.0, 1.0)


def _drawn(
    item: PlannedObject, size: tuple[int, int], supersample: int, silhouette: bool = False
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
    dice = RandomSource(item.seed)
    if item.sign:
        SPRITES[item.label].draw(pen, dice, color, item.sign)
    else:
        SPRITES[item.label].draw(pen, dice, color)
    return layer, (x, y), pen


def _body_color(item: PlannedObject) -> Color:
    return PALETTE[item.color] if item.color else (255, 255, 255)
