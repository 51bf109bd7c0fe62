"""Data types of the scenes: what is planned, and what is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

import numpy as np
from PIL import Image

from ..argument_validation import Range, validate_fields
from .contours import mask_to_polygons
from .sprites import SignLayout

TRAIN_SEEDS = range(1_000_000, 2**31)
"""Seeds of training scenes."""

HELD_OUT_SEEDS = range(0, 100_000)
"""Seeds of validation and test scenes. They share none with `TRAIN_SEEDS`."""


@dataclass(frozen=True)
class PlannedObject:
    """An object as planned, independent of the image size.

    Attributes:
        label: its category, a key of `sprites.SPRITES`.
        color: a name of `paint.PALETTE`; None if the object is not named after a color.
        seed: seed of the details of its drawing.
        x: horizontal center, as a fraction of the image width.
        y: lower edge, as a fraction of the image height.
        height, width: as fractions of the shorter side of the image.
        design_size: width and height of the drawing in design units.
        flip: whether it is mirrored horizontally.
        layer: drawing order; 0 is drawn first.
        floats: whether it swims.
        text: the word on a sign.
        sign_layout: the geometry of a sign.
    """

    label: str
    color: str | None
    seed: int
    x: float
    y: float
    height: float
    width: float
    design_size: tuple[float, float]
    flip: bool
    layer: int
    floats: bool = False
    text: str | None = None
    sign_layout: SignLayout | None = None

    def extent(self, image_size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return (left, top, width, height) in pixels of an image of (width, height), without the outline."""
        unit = min(image_size)
        width, height = self.width * unit, self.height * unit
        return self.x * image_size[0] - width / 2, self.y * image_size[1] - height, width, height


@dataclass(frozen=True)
class ScenePlan:
    """A scene before it is drawn: everything that its seed determines.

    Attributes:
        seed: the seed of the scene.
        background: a name of `BACKGROUNDS`.
        background_seed: seed of the details of the background.
        objects: back to front.
    """

    seed: int
    background: str
    background_seed: int
    objects: tuple[PlannedObject, ...]


@dataclass(frozen=True)
class SceneObject:
    """An object of a drawn scene, with its ground truth.

    Attributes:
        label: its category, one of `CATEGORIES` or one registered with `sprite`.
        color: a name of `paint.PALETTE`; None if the object is not named after a color (a sun, a cloud).
        text: the word on a sign; None for everything else.
        box: (x0, y0, x1, y1) of the visible part in pixels, half open: x1 - x0 is its width.
        quad: 4 x 2 pixels, the quad box of a sign's word, clockwise from the word's top left; None for everything else.
        depth: position in the drawing order; 0 is the farthest.
        area: number of visible pixels.
        visible_fraction: visible part of the object's area, in 0..1.
        visible_mask: h x w bool, the visible pixels of the crop of the image that `box` describes.
        mask_origin: (x, y) of the top left corner of that crop in the image.
        image_size: (width, height) of the image in pixels.
    """

    label: str
    color: str | None
    text: str | None
    box: tuple[float, float, float, float]
    quad: np.ndarray | None = field(repr=False, compare=False)
    depth: int
    area: int
    visible_fraction: float
    visible_mask: np.ndarray = field(repr=False, compare=False)
    mask_origin: tuple[int, int] = field(repr=False)
    image_size: tuple[int, int] = field(repr=False)

    def __post_init__(self) -> None:
        validate_fields(self)

    @cached_property
    def mask(self) -> np.ndarray:
        """The visible pixels: H x W bool, of the size of the image."""
        full = np.zeros((self.image_size[1], self.image_size[0]), bool)
        x, y = self.mask_origin
        full[y : y + self.visible_mask.shape[0], x : x + self.visible_mask.shape[1]] = self.visible_mask
        return full

    @cached_property
    def polygons(self) -> list[np.ndarray]:
        """Outlines of the visible parts, each N x 2 float pixels, clockwise from the topmost (then leftmost) vertex."""
        return [points + self.mask_origin for points in mask_to_polygons(self.visible_mask)]


@dataclass(frozen=True)
class SceneData:
    """A drawn scene: an image and the ground truth about it.

    Attributes:
        seed: the seed of the scene.
        image: PIL image, RGB. `image.info["Source"]` names the generator and the seed.
        background: one of `BACKGROUNDS`.
        objects: back to front.
    """

    seed: Annotated[int, Range()]
    image: Image.Image = field(repr=False, compare=False)
    background: str
    objects: tuple[SceneObject, ...]

    def __post_init__(self) -> None:
        validate_fields(self)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image in pixels."""
        return self.image.size
