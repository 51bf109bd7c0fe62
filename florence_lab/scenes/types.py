"""TODO"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from PIL import Image

from .sprites import SPRITES, SignLayout

TRAIN_SEEDS = range(1_000_000, 2**31)

HELD_OUT_SEEDS = range(0, 100_000)


@dataclass(frozen=True)
class PlannedObject:
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
class ScenePlan:
    """A scene before it is drawn: all that its seed decides."""

    seed: int
    background: str
    backdrop_seed: int
    items: tuple[PlannedObject, ...]  # back to front


class Placed(NamedTuple):
    """An item and its silhouette on the planning raster."""

    item: PlannedObject
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
        from .contours import outlines

        return [points + self.corner for points in outlines(self.visible)]


@dataclass(frozen=True)
class SceneData:
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
