"""TODO"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from PIL.PngImagePlugin import PngInfo

from ..images import GENERATOR_TAG as SOURCE
from .backgrounds import BACKGROUNDS_TABLE, Board
from .drawing import DAYLIGHT, LAYERS, SUPERSAMPLE, _drawn
from .paint import RandomSource
from .types import SceneData, SceneObject

if TYPE_CHECKING:
    from .types import PlannedObject, ScenePlan


def render(plan: ScenePlan, size: tuple[int, int]) -> SceneData:
    """Draw a plan in a picture of (width, height)."""
    place = BACKGROUNDS_TABLE[plan.background]
    board = Board(size)
    place.paint(board, RandomSource(plan.backdrop_seed))
    canvas = board.finish()
    cutouts = []
    for item in plan.items:
        if item.layer == LAYERS["ground"]:
            _shadow(canvas, item, size)
        cutouts.append((item, *_paste(canvas, item, size, DAYLIGHT if item.layer == LAYERS["top"] else place.light)))
    canvas.info["Source"] = f"{SOURCE} {plan.seed}"
    return SceneData(plan.seed, canvas, plan.background, _objects(cutouts, size))


def save_picture(scene: SceneData, path: str | Path) -> None:
    """As PNG, with a note in it of where it comes from."""
    note = PngInfo()
    note.add_text("Source", scene.image.info["Source"])
    scene.image.save(path, pnginfo=note, optimize=True)


def _paste(
    canvas: Image.Image, item: PlannedObject, size: tuple[int, int], light: tuple[float, float, float]
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


def _shadow(canvas: Image.Image, item: PlannedObject, size: tuple[int, int]) -> None:
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
