"""Render a planned scene: its image, and the ground truth of what is visible in it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from PIL.PngImagePlugin import PngInfo

from ..images import GENERATOR_TAG
from .backgrounds import BACKGROUND_SPECS, BackgroundCanvas
from .drawing import DAYLIGHT, LAYERS, SUPERSAMPLE, draw_object
from .paint import RandomSource
from .types import SceneData, SceneObject

if TYPE_CHECKING:
    from .types import PlannedObject, ScenePlan


class _Rendered(NamedTuple):
    """What an object covers in the image.

    Attributes:
        planned: the object.
        mask: h x w bool, the pixels that it covers inside the image, whether they are visible or not.
        origin: (x, y) of the mask's top left corner in the image.
        full_area: number of pixels that it covers, those outside the image included.
        quad: 4 x 2 pixels, the quad box of its text.
    """

    planned: PlannedObject
    mask: np.ndarray
    origin: tuple[int, int]
    full_area: int
    quad: np.ndarray | None


def render(plan: ScenePlan, image_size: tuple[int, int]) -> SceneData:
    """Draw a plan as an image of (width, height) pixels."""
    background = BACKGROUND_SPECS[plan.background]
    canvas = BackgroundCanvas(image_size)
    background.paint(canvas, RandomSource(plan.background_seed))
    image = canvas.finish()
    rendered = []
    for planned in plan.objects:
        if planned.layer == LAYERS["ground"]:
            _draw_shadow(image, planned, image_size)
        light = DAYLIGHT if planned.layer == LAYERS["top"] else background.light
        rendered.append(_paste_object(image, planned, image_size, light))
    image.info["Source"] = f"{GENERATOR_TAG} {plan.seed}"
    return SceneData(plan.seed, image, plan.background, _scene_objects(rendered, image_size))


def save_image(scene: SceneData, path: str | Path) -> None:
    """Write the image of a scene as a PNG file whose text chunk `Source` names the generator and the seed."""
    metadata = PngInfo()
    metadata.add_text("Source", scene.image.info["Source"])
    scene.image.save(path, pnginfo=metadata, optimize=True)


def _paste_object(
    image: Image.Image, planned: PlannedObject, image_size: tuple[int, int], light: tuple[float, float, float]
) -> _Rendered:
    large, (x, y), pen = draw_object(planned, image_size, SUPERSAMPLE)
    layer = large.reduce(SUPERSAMPLE)
    layer = ImageChops.multiply(layer, _shading_mask(light).resize(layer.size, Image.Resampling.BILINEAR))
    image.paste(layer, (x, y), layer)
    mask = np.asarray(layer.getchannel("A")) > 127
    x0, y0 = max(0, x), max(0, y)
    x1, y1 = min(image_size[0], x + layer.width), min(image_size[1], y + layer.height)
    quad = None if pen.quad is None else np.array(pen.quad) / SUPERSAMPLE + (x, y)
    return _Rendered(planned, mask[y0 - y : y1 - y, x0 - x : x1 - x], (x0, y0), int(mask.sum()), quad)


@lru_cache
def _shading_mask(light: tuple[float, float, float]) -> Image.Image:
    """Return a 24 x 24 RGBA image to multiply a layer with: soft light from the upper left."""
    y, x = np.mgrid[0:1:24j, 0:1:24j]
    bright = 1.02 - 0.2 * np.clip(0.25 * x + 0.85 * y - 0.25, 0, 1) ** 1.3
    shade = np.clip(bright[..., None] * np.array([*light]) * 255, 0, 255)
    return Image.fromarray(np.concatenate([shade, np.full((24, 24, 1), 255.0)], axis=2).round().astype(np.uint8))


@lru_cache
def _shadow_mask() -> Image.Image:
    mask = Image.new("L", (96, 32), 0)
    ImageDraw.Draw(mask).ellipse((12, 5, 84, 27), fill=105)
    return mask.filter(ImageFilter.GaussianBlur(3))


def _draw_shadow(image: Image.Image, planned: PlannedObject, image_size: tuple[int, int]) -> None:
    """Draw a soft shadow at the feet of an object, or a pale wake if it swims."""
    left, top, width, height = planned.extent(image_size)
    sign = planned.sign_layout
    shadow_width = width * ((0.6, 0.95)[sign.posts - 1] if sign else 1.12)
    shadow_height = max(3.0, shadow_width * 0.15)
    size = (max(1, round(shadow_width)), max(1, round(shadow_height)))
    mask = _shadow_mask().resize(size, Image.Resampling.BILINEAR)
    x = round(left + (width - shadow_width) / 2)
    y = round(top + height * (0.95 if planned.floats else 1.0) - shadow_height * 0.62)
    image.paste((225, 244, 252) if planned.floats else (40, 42, 70), (x, y), mask)


def _scene_objects(rendered: Sequence[_Rendered], image_size: tuple[int, int]) -> tuple[SceneObject, ...]:
    """Return the objects of a scene, back to front, with the visible part of each."""
    covered = np.zeros((image_size[1], image_size[0]), bool)
    objects = []
    for depth, (planned, mask, (x, y), full_area, quad) in reversed(list(enumerate(rendered))):
        covered_here = covered[y : y + mask.shape[0], x : x + mask.shape[1]]
        visible = mask & ~covered_here
        covered_here |= mask
        columns, rows = np.flatnonzero(visible.any(0)), np.flatnonzero(visible.any(1))
        x0, x1, y0, y1 = int(columns[0]), int(columns[-1]) + 1, int(rows[0]), int(rows[-1]) + 1
        area = int(visible.sum())
        objects.append(
            SceneObject(
                label=planned.label,
                color=planned.color,
                text=planned.text,
                box=(float(x + x0), float(y + y0), float(x + x1), float(y + y1)),
                quad=quad,
                depth=depth,
                area=area,
                visible_fraction=area / max(1, full_area),
                visible_mask=visible[y0:y1, x0:x1],
                mask_origin=(x + x0, y + y0),
                image_size=image_size,
            )
        )
    return tuple(reversed(objects))
