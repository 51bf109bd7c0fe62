"""Drawing primitives of the scenes: platform-independent random numbers, colors, curves, and a pen.

Objects are drawn in *design units* (a sheep is 122 units wide and 98 high, x to the right, y downwards). The pen maps them
to pixels, so that one function draws an object at any size, mirrored or stretched.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
"""(red, green, blue) in 0..255."""

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
"""Name -> color of the objects."""

OUTLINE_COLOR: Color = (54, 46, 66)

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
"""Fonts of the signs; matplotlib ships them."""


class RandomSource:
    """Random choices from a seed, the same on every platform and in every release of Python.

    They are built on `random.Random.random` alone, whose sequence Python guarantees.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random

    def uniform(self, low: float, high: float) -> float:
        """Return a float in [low, high)."""
        return low + (high - low) * self.random()

    def integer(self, low: int, high: int) -> int:
        """Return an integer from low to high, both included."""
        return low + int(self.random() * (high - low + 1))

    def choice(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[int(self.random() * len(options))]

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.random() < probability

    def weighted_choice(self, weights: Mapping[T, float]) -> T:
        """Return one of the keys, with a probability in proportion to its weight."""
        remaining = self.random() * sum(weights.values())
        for option, weight in weights.items():
            remaining -= weight
            if remaining < 0:
                return option
        return option

    def seed(self) -> int:
        """Return a seed for an independent random stream."""
        return int(self.random() * 2**48)


def mix(a: Color, b: Color, fraction: float) -> Color:
    """Interpolate linearly from color `a` (fraction 0) to color `b` (fraction 1)."""
    red, green, blue = (round(p + (q - p) * fraction) for p, q in zip(a, b, strict=True))
    return red, green, blue


def darker(color: Color, fraction: float = 0.2) -> Color:
    """Mix a color with a fraction of dark violet."""
    return mix(color, (40, 30, 70), fraction)


def lighter(color: Color, fraction: float = 0.3) -> Color:
    """Mix a color with a fraction of white."""
    return mix(color, (255, 255, 255), fraction)


def arc(cx: float, cy: float, rx: float, ry: float, start: float, end: float, steps: int = 12) -> list[Point]:
    """Return points on an ellipse between two angles, in degrees clockwise from three o'clock."""
    angles = (math.radians(start + (end - start) * i / steps) for i in range(steps + 1))
    return [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]


def rounded_rectangle(x0: float, y0: float, x1: float, y1: float, radius: float) -> list[Point]:
    """Return the outline of a rectangle with round corners, clockwise from the left end of its upper edge."""
    corners = ((x0, y0, 1, 1, 180), (x1, y0, -1, 1, 270), (x1, y1, -1, -1, 0), (x0, y1, 1, -1, 90))
    points: list[Point] = []
    for x, y, sx, sy, start in corners:
        points += arc(x + sx * radius, y + sy * radius, radius, radius, start, start + 90, 4)
    return points


def rotate(points: Sequence[Point], cx: float, cy: float, degrees: float) -> list[Point]:
    """Rotate points clockwise about (cx, cy)."""
    if not degrees:
        return list(points)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(cx + (x - cx) * c - (y - cy) * s, cy + (x - cx) * s + (y - cy) * c) for x, y in points]


def smooth_curve(points: Sequence[Point], steps: int = 5) -> list[Point]:
    """Return a closed Catmull-Rom spline through the points, with `steps` vertices between each two."""
    weights = _catmull_rom_weights(steps)
    n = len(points)
    curve: list[Point] = []
    for i in range(n):
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = (points[(i + k) % n] for k in (-1, 0, 1, 2))
        curve += [(a * ax + b * bx + c * cx + d * dx, a * ay + b * by + c * cy + d * dy) for a, b, c, d in weights]
    return curve


@lru_cache
def _catmull_rom_weights(steps: int) -> list[tuple[float, float, float, float]]:
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
    """Load one of matplotlib's fonts, see `FONTS`. Basic layout gives the same glyph positions with and without raqm."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=1024)
def word_mask(word: str, font: str, size: int) -> Image.Image:
    """Return a word as an `L` image, 255 where it is written, cropped to its glyphs."""
    face = load_font(font, size)
    left, top, right, bottom = face.getbbox(word)
    mask = Image.new("L", (math.ceil(right - left) + 4, math.ceil(bottom - top) + 4), 0)
    ImageDraw.Draw(mask).text((2 - left, 2 - top), word, fill=255, font=face)
    return mask.crop(mask.getbbox())


def word_extent(word: str, font: str) -> tuple[float, float]:
    """Return (width, height) of a word's glyphs, in units of the height of a capital letter of the font."""
    mask = word_mask(word, font, 128)
    capital = word_mask("H", font, 128).height
    return mask.width / capital, mask.height / capital


class Pen:
    """Draws shapes given in design units on a layer, each with an outline of constant width.

    Shapes with `outline=False` are details inside a shape that has one. A silhouette pen omits them and draws
    everything in white, which is enough to decide visibility and much faster.

    Attributes:
        width, height: size of the drawing in design units.
        text_to_write: the word that `text` writes.
        floats: whether the object swims, so that its feet are not drawn.
        quad: corners of the written word in pixels of the layer, clockwise from its top left; None before `text`.
    """

    def __init__(
        self,
        layer: Image.Image,
        scale: tuple[float, float],
        origin: Point,
        design_size: tuple[float, float],
        flip: bool = False,
        outline_width: float = 2.0,
        silhouette: bool = False,
        text: str | None = None,
        floats: bool = False,
    ) -> None:
        """Prepare to draw on a layer.

        Args:
            layer: the image to draw on, `RGBA`, or `L` for a silhouette.
            scale: pixels per design unit, horizontally and vertically.
            origin: pixel position of the drawing's top left corner.
            design_size: width and height of the drawing in design units.
            flip: mirror the drawing horizontally.
            outline_width: width of the outlines in pixels.
            silhouette: draw only the covered area.
            text: the word that `text` writes.
            floats: whether the object swims.
        """
        self.layer = layer
        self.width, self.height = design_size
        self.text_to_write = text or ""
        self.floats = floats
        self.quad: list[Point] | None = None
        self.silhouette = silhouette
        self.outline_width = outline_width
        self._outline_fill: Color | int = 255 if silhouette else OUTLINE_COLOR
        self._draw = ImageDraw.Draw(layer)
        self._ax = -scale[0] if flip else scale[0]
        self._bx = origin[0] + (scale[0] * design_size[0] if flip else 0.0)
        self._ay, self._by = scale[1], origin[1]
        self._mean_scale = math.sqrt(scale[0] * scale[1])

    def _to_pixels(self, points: Sequence[Point]) -> list[float]:
        ax, bx, ay, by = self._ax, self._bx, self._ay, self._by
        return [value for x, y in points for value in (bx + ax * x, by + ay * y)]

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, fill: Color, outline: bool = True) -> None:
        """Draw an ellipse."""
        self._oval(cx, cy, rx * abs(self._ax), ry * self._ay, fill, outline)

    def circle(self, cx: float, cy: float, r: float, fill: Color, outline: bool = True) -> None:
        """Draw a circle, which stays round when the drawing is stretched."""
        self._oval(cx, cy, r * self._mean_scale, r * self._mean_scale, fill, outline)

    def _oval(self, cx: float, cy: float, rx: float, ry: float, fill: Color, outline: bool) -> None:
        if self.silhouette and not outline:
            return
        x, y = self._bx + self._ax * cx, self._by + self._ay * cy
        if outline:
            w = self.outline_width
            self._draw.ellipse((x - rx - w, y - ry - w, x + rx + w, y + ry + w), fill=self._outline_fill)
        if not self.silhouette:
            self._draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)

    def blob(self, circles: Sequence[tuple[float, float, float]], fill: Color, outline: bool = True) -> None:
        """Draw the union of circles (cx, cy, radius) with one outline."""
        passes: list[tuple[float, Color | int]] = [(self.outline_width, self._outline_fill)] if outline else []
        if not self.silhouette:
            passes.append((0.0, fill))
        for margin, color in passes:
            for cx, cy, radius in circles:
                x, y, r = self._bx + self._ax * cx, self._by + self._ay * cy, radius * self._mean_scale + margin
                self._draw.ellipse((x - r, y - r, x + r, y + r), fill=color)

    def polygon(self, points: Sequence[Point], fill: Color, outline: bool = True) -> None:
        """Draw a closed polygon."""
        if self.silhouette and not outline:
            return
        flat = self._to_pixels(points)
        if outline:
            width = max(1, round(2 * self.outline_width))
            self._draw.line(flat + flat[:4], fill=self._outline_fill, width=width, joint="curve")
        self._draw.polygon(flat, fill=255 if self.silhouette else fill)

    def curve(self, points: Sequence[Point], fill: Color, outline: bool = True, steps: int = 5) -> None:
        """Draw a smooth closed shape through the points, see `smooth_curve`."""
        self.polygon(smooth_curve(points, steps), fill, outline)

    def box(
        self, x0: float, y0: float, x1: float, y1: float, fill: Color, radius: float = 0, outline: bool = True
    ) -> None:
        """Draw a rectangle, with round corners if `radius` is not 0."""
        sharp: list[Point] = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        self.polygon(rounded_rectangle(x0, y0, x1, y1, radius) if radius else sharp, fill, outline)

    def stroke(self, points: Sequence[Point], width: float, fill: Color | None, outline: bool = True) -> None:
        """Draw a polyline with round ends. The width is in design units; `fill=None` takes the color of outlines."""
        if self.silhouette and not outline:
            return
        flat = self._to_pixels(points)
        color = self._outline_fill if fill is None or self.silhouette else fill
        radius = width * self._mean_scale / 2
        if outline:
            self._thick_line(flat, radius + self.outline_width, self._outline_fill)
        self._thick_line(flat, radius, color)

    def _thick_line(self, flat: list[float], radius: float, fill: Color | int) -> None:
        self._draw.line(flat, fill=fill, width=max(1, round(2 * radius)))
        if radius >= 1:
            for x, y in zip(flat[::2], flat[1::2], strict=True):
                self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)

    def eye(self, cx: float, cy: float, r: float, white: bool = True) -> None:
        """Draw an eye: a pupil of radius `r` with a highlight, on white if `white`."""
        if self.silhouette:
            return
        if white:
            self.circle(cx, cy, r * 1.5, (255, 255, 255), outline=False)
        self.circle(cx, cy, r, OUTLINE_COLOR, outline=False)
        self.circle(cx - r * 0.3, cy - r * 0.35, r * 0.35, (255, 255, 255), outline=False)

    def text(self, font: str, cx: float, cy: float, capital: float, degrees: float, fill: Color) -> None:
        """Write `text_to_write` centered at (cx, cy) and set `quad`.

        Args:
            font: one of `FONTS`.
            cx, cy: center in design units.
            capital: height of a capital letter in design units.
            degrees: rotation, clockwise.
            fill: color of the letters.
        """
        scale = self._mean_scale
        width, height = (capital * scale * v for v in word_extent(self.text_to_write, font))
        x, y = self._bx + self._ax * cx, self._by + self._ay * cy
        corners = [(x - width / 2, y - height / 2), (x + width / 2, y - height / 2)]
        corners += [(x + width / 2, y + height / 2), (x - width / 2, y + height / 2)]
        self.quad = rotate(corners, x, y, degrees)
        if self.silhouette:
            return
        size = next((s for s in (48, 96, 192, 384) if s * 0.73 >= capital * scale), 384)
        mask = word_mask(self.text_to_write, font, size)
        self._paste_mask(mask, self.quad, fill)

    def _paste_mask(self, mask: Image.Image, quad: Sequence[Point], fill: Color) -> None:
        """Paste a mask in color `fill`, its corners at those of the quad box (pixels, clockwise from the top left)."""
        (x0, y0), (x1, y1), _, (x3, y3) = quad
        along, down = (x1 - x0, y1 - y0), (x3 - x0, y3 - y0)
        xs, ys = zip(*quad, strict=True)
        left, top = math.floor(min(xs)) - 1, math.floor(min(ys)) - 1
        size = (math.ceil(max(xs)) + 1 - left, math.ceil(max(ys)) + 1 - top)
        along2, down2 = along[0] ** 2 + along[1] ** 2, down[0] ** 2 + down[1] ** 2
        a, b = along[0] / along2 * mask.width, along[1] / along2 * mask.width
        d, e = down[0] / down2 * mask.height, down[1] / down2 * mask.height
        cx, cy = left - x0, top - y0
        # maps pixels of the layer to pixels of the mask, as `Image.transform` expects
        matrix = (a, b, a * cx + b * cy, d, e, d * cx + e * cy)
        rotated = mask.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        self.layer.paste(fill, (left, top), rotated)
