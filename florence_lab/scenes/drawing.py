"""Draw one planned object on a layer of its own. Planning needs its silhouette, rendering its pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PIL import Image

from .paint import PALETTE, Color, Pen, RandomSource, darker
from .sprites import SPRITES

if TYPE_CHECKING:
    from .types import PlannedObject

SUPERSAMPLE = 3
"""Objects are drawn at this multiple of the image size and reduced, which smooths their edges."""

OUTLINE_WIDTH = 0.0056
"""Width of outlines, as a fraction of the shorter side of the image."""

LAYERS = {"top": 0, "sky": 1, "water": 2, "ground": 2}
"""Zone -> layer, back to front. Within a layer, the object whose lower edge is further down is in front."""

DAYLIGHT = (1.0, 1.0, 1.0)
"""Factors of the red, green and blue of objects that give light themselves."""


def draw_object(
    planned: PlannedObject, image_size: tuple[int, int], supersample: int, silhouette: bool = False
) -> tuple[Image.Image, tuple[int, int], Pen]:
    """Draw an object on a layer.

    Args:
        planned: the object.
        image_size: (width, height) of the image in pixels.
        supersample: scale of the layer relative to the image.
        silhouette: draw only the covered area, as an `L` image in place of `RGBA`.

    Returns:
        The layer, the (x, y) position of its top left corner in the image, and the pen that has drawn it.
    """
    left, top, width, height = planned.extent(image_size)
    outline_width = OUTLINE_WIDTH * min(image_size)
    padding = math.ceil(outline_width) + 1
    x, y = math.floor(left) - padding, math.floor(top) - padding
    columns, rows = math.ceil(left + width) + padding - x, math.ceil(top + height) + padding - y
    color = _body_color(planned)
    layer_size = (columns * supersample, rows * supersample)
    layer = Image.new("L", layer_size, 0) if silhouette else Image.new("RGBA", layer_size, (*darker(color, 0.4), 0))
    design_width, design_height = planned.design_size
    pen = Pen(
        layer,
        (width / design_width * supersample, height / design_height * supersample),
        ((left - x) * supersample, (top - y) * supersample),
        planned.design_size,
        planned.flip,
        max(0.6, outline_width) * supersample,
        silhouette,
        planned.text,
        planned.floats,
    )
    draw, rng = SPRITES[planned.label].draw, RandomSource(planned.seed)
    if planned.sign_layout is not None:
        draw(pen, rng, color, planned.sign_layout)
    else:
        draw(pen, rng, color)
    return layer, (x, y), pen


def _body_color(planned: PlannedObject) -> Color:
    return PALETTE[planned.color] if planned.color else (255, 255, 255)
