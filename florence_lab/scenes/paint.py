"""What every drawing function shares: dice that fall the same everywhere, colours, and a pen.

A drawing is described in *design units* (a sheep is 120 units wide and 95 tall, x right, y down); the pen
knows where in which picture that lands, so one function draws a thing of any size, mirrored or stretched.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
Point = tuple[float, float]
T = TypeVar("T")

PALETTE: dict[str, Color] = {
    "red": (226, 58, 56),
    "orange": (248, 140, 36),
    "yellow": (253, 212, 62),
    "green": (82, 170, 84),
    "blue": (56, 120, 218),
    "purple": (142, 84, 194),
    "pink": (247, 142, 182),
    "white": (250, 249, 245),
    "black": (62, 60, 72),
    "brown": (150, 98, 62),
    "gray": (154, 159, 168),
}
INK: Color = (54, 46, 66)

FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
)


class RandomSource:
    """Random choices built on `Random.random()` alone, which Python promises never to change."""

    def __init__(self, seed: int):
        self.random = random.Random(seed).random

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.random()

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self.random() * (high - low + 1))

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.random() * len(options))]

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def weighted(self, weights: dict[T, float]) -> T:
        left = self.random() * sum(weights.values())
        for option, weight in weights.items():
            left -= weight
            if left < 0:
                return option
        return option

    def seed(self) -> int:
        """A seed for dice of one's own, so that one thing's throws never disturb another's."""
        return int(self.random() * 2**48)


def mix(a: Color, b: Color, share: float) -> Color:
    """The colour `share` of the way from a to b."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))


def darker(color: Color, share: float = 0.2) -> Color:
    return mix(color, (40, 30, 70), share)


def lighter(color: Color, share: float = 0.3) -> Color:
    return mix(color, (255, 255, 255), share)


def arc(cx: float, cy: float, rx: float, ry: float, start: float, end: float, steps: int = 12) -> list[Point]:
    """Points on an ellipse from angle start to angle end, degrees clockwise from three o'clock."""
    angles = (math.radians(start + (end - start) * i / steps) for i in range(steps + 1))
    return [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]


def rounded(x0: float, y0: float, x1: float, y1: float, radius: float) -> list[Point]:
    """A rectangle with round corners, as points, clockwise from the left end of its top edge."""
    corners = ((x0, y0, 1, 1, 180), (x1, y0, -1, 1, 270), (x1, y1, -1, -1, 0), (x0, y1, 1, -1, 90))
    points: list[Point] = []
    for x, y, sx, sy, start in corners:
        points += arc(x + sx * radius, y + sy * radius, radius, radius, start, start + 90, 4)
    return points


def turned(points: Sequence[Point], cx: float, cy: float, degrees: float) -> list[Point]:
    """Points turned clockwise about (cx, cy)."""
    if not degrees:
        return list(points)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(cx + (x - cx) * c - (y - cy) * s, cy + (x - cx) * s + (y - cy) * c) for x, y in points]


def smooth(points: Sequence[Point], steps: int = 5) -> list[Point]:
    """A closed Catmull-Rom curve through the points: rounded shapes from few numbers."""
    weights = _catmull_rom(steps)
    n, curve = len(points), []
    for i in range(n):
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = (points[(i + k) % n] for k in (-1, 0, 1, 2))
        curve += [(a * ax + b * bx + c * cx + d * dx, a * ay + b * by + c * cy + d * dy) for a, b, c, d in weights]
    return curve


@lru_cache
def _catmull_rom(steps: int) -> list[tuple[float, float, float, float]]:
    weights = []
    for i in range(steps):
        t = i / steps
        a = (-t + 2 * t * t - t**3) / 2
        b = (2 - 5 * t * t + 3 * t**3) / 2
        c = (t + 4 * t * t - 3 * t**3) / 2
        weights.append((a, b, c, (-t * t + t**3) / 2))
    return weights


@lru_cache(maxsize=64)
def load_font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """One of the fonts matplotlib ships. Basic layout: the same glyph positions with or without raqm."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=1024)
def word_mask(word: str, font: str, size: int) -> Image.Image:
    """The ink of a word, cut tight: L image, 255 where there is ink."""
    face = load_font(font, size)
    left, top, right, bottom = face.getbbox(word)
    mask = Image.new("L", (right - left + 4, bottom - top + 4), 0)
    ImageDraw.Draw(mask).text((2 - left, 2 - top), word, fill=255, font=face)
    return mask.crop(mask.getbbox())


def word_extent(word: str, font: str) -> tuple[float, float]:
    """(width, height) of a word's ink, in units of the font's capital height."""
    mask = word_mask(word, font, 128)
    capital = word_mask("H", font, 128).height
    return mask.width / capital, mask.height / capital


class Pen:
    """Draws in design units into a layer, with an ink outline of constant width round every shape.

    Shapes with `ink=False` are details inside a shape that has one. A *silhouette* pen leaves them out and
    draws everything in white: enough to know what would be covered, at a fraction of the cost.
    """

    def __init__(
        self,
        layer: Image.Image,
        scale: tuple[float, float],
        origin: Point,
        design: tuple[float, float],
        flip: bool = False,
        ink_width: float = 2.0,
        silhouette: bool = False,
        word: str | None = None,
        afloat: bool = False,
    ):
        self.layer = layer
        self.width, self.height = design
        self.word = word
        self.afloat = afloat
        self.quad: list[Point] | None = None
        self.silhouette = silhouette
        self.ink_width = ink_width
        self.ink: object = 255 if silhouette else INK
        self._draw = ImageDraw.Draw(layer)
        self._ax = -scale[0] if flip else scale[0]
        self._bx = origin[0] + (scale[0] * design[0] if flip else 0.0)
        self._ay, self._by = scale[1], origin[1]
        self._mean = math.sqrt(scale[0] * scale[1])

    def _flat(self, points: Sequence[Point]) -> list[float]:
        ax, bx, ay, by = self._ax, self._bx, self._ay, self._by
        return [value for x, y in points for value in (bx + ax * x, by + ay * y)]

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, fill: Color, ink: bool = True) -> None:
        self._oval(cx, cy, rx * abs(self._ax), ry * self._ay, fill, ink)

    def circle(self, cx: float, cy: float, r: float, fill: Color, ink: bool = True) -> None:
        """Round however the drawing is stretched."""
        self._oval(cx, cy, r * self._mean, r * self._mean, fill, ink)

    def _oval(self, cx: float, cy: float, rx: float, ry: float, fill: Color, ink: bool) -> None:
        if self.silhouette and not ink:
            return
        x, y = self._bx + self._ax * cx, self._by + self._ay * cy
        if ink:
            w = self.ink_width
            self._draw.ellipse((x - rx - w, y - ry - w, x + rx + w, y + ry + w), fill=self.ink)
        if not self.silhouette:
            self._draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)

    def blob(self, circles: Sequence[tuple[float, float, float]], fill: Color, ink: bool = True) -> None:
        """Several circles (cx, cy, radius) melted into one shape with one outline."""
        layers = ([(self.ink_width, self.ink)] if ink else []) + ([] if self.silhouette else [(0.0, fill)])
        for extra, paint in layers:
            for cx, cy, r in circles:
                x, y, r = self._bx + self._ax * cx, self._by + self._ay * cy, r * self._mean + extra
                self._draw.ellipse((x - r, y - r, x + r, y + r), fill=paint)

    def polygon(self, points: Sequence[Point], fill: Color, ink: bool = True) -> None:
        if self.silhouette and not ink:
            return
        flat = self._flat(points)
        if ink:
            width = max(1, round(2 * self.ink_width))
            self._draw.line(flat + flat[:4], fill=self.ink, width=width, joint="curve")
        self._draw.polygon(flat, fill=255 if self.silhouette else fill)

    def curve(self, points: Sequence[Point], fill: Color, ink: bool = True, steps: int = 5) -> None:
        """A smooth closed shape through the points."""
        self.polygon(smooth(points, steps), fill, ink)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Color, radius: float = 0, ink: bool = True) -> None:
        corners = rounded(x0, y0, x1, y1, radius) if radius else [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        self.polygon(corners, fill, ink)

    def stroke(self, points: Sequence[Point], width: float, fill: Color | None, ink: bool = True) -> None:
        """A thick line with round ends, width in units. fill None: the ink itself."""
        if self.silhouette and not ink:
            return
        flat = self._flat(points)
        fill = self.ink if fill is None or self.silhouette else fill
        radius = width * self._mean / 2
        if ink:
            self._thick(flat, radius + self.ink_width, self.ink)
        self._thick(flat, radius, fill)

    def _thick(self, flat: list[float], radius: float, fill: object) -> None:
        self._draw.line(flat, fill=fill, width=max(1, round(2 * radius)))
        if radius >= 1:
            for x, y in zip(flat[::2], flat[1::2], strict=True):
                self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)

    def eye(self, cx: float, cy: float, r: float, white: bool = True) -> None:
        """A friendly eye: pupil with a spark, on white if asked."""
        if self.silhouette:
            return
        if white:
            self.circle(cx, cy, r * 1.5, (255, 255, 255), ink=False)
        self.circle(cx, cy, r, INK, ink=False)
        self.circle(cx - r * 0.3, cy - r * 0.35, r * 0.35, (255, 255, 255), ink=False)

    def text(self, font: str, cx: float, cy: float, capital: float, degrees: float, fill: Color) -> None:
        """Write the pen's word about (cx, cy), its capitals that tall, turned clockwise; note its quad."""
        scale = self._mean
        wide, tall = (capital * scale * v for v in word_extent(self.word, font))
        x, y = self._bx + self._ax * cx, self._by + self._ay * cy
        corners = [(x - wide / 2, y - tall / 2), (x + wide / 2, y - tall / 2)]
        corners += [(x + wide / 2, y + tall / 2), (x - wide / 2, y + tall / 2)]
        self.quad = turned(corners, x, y, degrees)
        if self.silhouette:
            return
        size = next((s for s in (48, 96, 192, 384) if s * 0.73 >= capital * scale), 384)
        mask = word_mask(self.word, font, size)
        (ax, ay), (bx, by), _, (dx, dy) = self.quad
        self._paste_turned(mask, (ax, ay), (bx - ax, by - ay), (dx - ax, dy - ay), fill)

    def _paste_turned(self, mask: Image.Image, corner: Point, along: Point, down: Point, fill: Color) -> None:
        """Paste a mask with its top left at corner, its sides lying along and down; all in pixels."""
        xs, ys = zip(*(self.quad or ()), strict=True)
        left, top = math.floor(min(xs)) - 1, math.floor(min(ys)) - 1
        size = (math.ceil(max(xs)) + 1 - left, math.ceil(max(ys)) + 1 - top)
        along2, down2 = along[0] ** 2 + along[1] ** 2, down[0] ** 2 + down[1] ** 2
        a, b = along[0] / along2 * mask.width, along[1] / along2 * mask.width
        d, e = down[0] / down2 * mask.height, down[1] / down2 * mask.height
        cx, cy = left - corner[0], top - corner[1]
        matrix = (a, b, a * cx + b * cy, d, e, d * cx + e * cy)
        ink = mask.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        self.layer.paste(fill, (left, top), ink)
