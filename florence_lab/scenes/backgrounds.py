"""The backgrounds of the scenes: a sky, a horizon, and details that belong to none of the categories.

Each function paints one background on a `BackgroundCanvas`. Coordinates are fractions of the image, y downwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .paint import Color, Point, RandomSource, darker, lighter, mix, smooth_curve

SUPERSAMPLE = 2
"""Backgrounds are drawn at this multiple of the image size and reduced, which smooths their edges."""


@dataclass(frozen=True)
class Background:
    """A background, and where objects may be placed on it.

    Attributes:
        name: its key in `BACKGROUND_SPECS`.
        paint: the painting function.
        sky: range of the vertical centers of flying objects, as fractions of the image height.
        ground: range of the lower edges of standing objects, as fractions of the image height.
        water: range of the lower edges of swimming objects; None without water.
        light: factors of the red, green and blue of objects.
    """

    name: str
    paint: Callable[[BackgroundCanvas, RandomSource], None]
    sky: tuple[float, float]
    ground: tuple[float, float]
    water: tuple[float, float] | None
    light: tuple[float, float, float]


BACKGROUND_SPECS: dict[str, Background] = {}
"""Name -> `Background`."""

PaintFunction = Callable[["BackgroundCanvas", RandomSource], None]


def background(
    name: str,
    sky: tuple[float, float],
    ground: tuple[float, float],
    water: tuple[float, float] | None = None,
    light: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Callable[[PaintFunction], PaintFunction]:
    """Register the decorated painting function as the background `name`. For the arguments see `Background`."""

    def register(paint: PaintFunction) -> PaintFunction:
        BACKGROUND_SPECS[name] = Background(name, paint, sky, ground, water, light)
        return paint

    return register


class BackgroundCanvas:
    """An RGB image that is drawn on with coordinates in fractions of its sides.

    Attributes:
        width, height: size in pixels, `SUPERSAMPLE` times that of the finished image.
        unit: the shorter of the two.
        image: the image as drawn so far.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.width, self.height = size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE
        self.unit = min(self.width, self.height)
        self.image = Image.new("RGB", (self.width, self.height))
        self._draw = ImageDraw.Draw(self.image)

    def finish(self) -> Image.Image:
        """Return the image reduced to its final size."""
        return self.image.reduce(SUPERSAMPLE)

    def sky(self, stops: Sequence[tuple[float, Color]]) -> None:
        """Fill the image with a vertical gradient through stops (y, color); two stops at one y make an edge."""
        rows = (np.arange(self.height) + 0.5) / self.height
        at, colors = zip(*stops, strict=True)
        column = np.stack([np.interp(rows, at, channel) for channel in zip(*colors, strict=True)], axis=1)
        pixels = np.round(column).astype(np.uint8)[:, None, :]
        self.image = Image.fromarray(np.repeat(pixels, self.width, axis=1))
        self._draw = ImageDraw.Draw(self.image)

    def _to_pixels(self, points: Sequence[Point]) -> list[float]:
        return [value for x, y in points for value in (x * self.width, y * self.height)]

    def polygon(self, points: Sequence[Point], fill: Color) -> None:
        """Draw a filled polygon."""
        self._draw.polygon(self._to_pixels(points), fill=fill)

    def land(self, tops: Sequence[Point], fill: Color, bottom: float = 1.0) -> None:
        """Fill the area between a line from left to right and the height `bottom`."""
        self.polygon([*tops, (tops[-1][0], bottom), (tops[0][0], bottom)], fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Color) -> None:
        """Draw a filled ellipse. The radii are fractions of the shorter side."""
        x, y, rx, ry = x * self.width, y * self.height, rx * self.unit, ry * self.unit
        self._draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Color) -> None:
        """Draw a filled rectangle."""
        left, top = x0 * self.width, y0 * self.height
        right, bottom = max(left, x1 * self.width - 1), max(top, y1 * self.height - 1)
        self._draw.rectangle((left, top, right, bottom), fill=fill)

    def line(self, points: Sequence[Point], width: float, fill: Color) -> None:
        """Draw a polyline. The width is a fraction of the shorter side."""
        self._draw.line(self._to_pixels(points), fill=fill, width=max(1, round(width * self.unit)), joint="curve")


def hilly_line(rng: RandomSource, y: float, swell: float, humps: int) -> list[Point]:
    """Return a smooth hilly line from left to right around height `y`, with hills up to `swell` above and below it."""
    points = [(i / humps, y + rng.uniform(-swell, swell)) for i in range(-1, humps + 2)]
    curve = smooth_curve([*points, (1.5, 1.5), (-0.5, 1.5)], 6)
    return [p for p in curve[: 6 * (len(points) - 1)] if -0.2 <= p[0] <= 1.2 and p[1] < 1.2]


def mountains(
    canvas: BackgroundCanvas, rng: RandomSource, y: float, high: float, count: int, color: Color, snow: bool
) -> None:
    """Draw `count` peaks up to `high` above height `y`, lit from the left."""
    for i in sorted(range(count), key=lambda _: rng.random()):
        x = (i + rng.uniform(0.2, 0.8)) / count
        top, half = y - high * rng.uniform(0.6, 1.0), rng.uniform(0.75, 1.05) / count
        canvas.polygon([(x - half, y), (x, top), (x + half, y)], color)
        canvas.polygon(
            [(x, top), (x + half, y), (x + half * 0.15, y), (x - half * 0.08, y - (y - top) * 0.45)],
            darker(color, 0.14),
        )
        if snow:
            cap, drop = (246, 249, 255), (y - top) * 0.3
            w = half * 0.3
            canvas.polygon(
                [
                    (x - w, top + drop),
                    (x, top),
                    (x + w, top + drop),
                    (x + w * 0.4, top + drop * 0.75),
                    (x, top + drop * 1.15),
                    (x - w * 0.45, top + drop * 0.8),
                ],
                cap,
            )


def grass_tufts(canvas: BackgroundCanvas, rng: RandomSource, top: float, count: int, color: Color) -> None:
    """Draw tufts of grass below height `top`, larger towards the viewer."""
    for _ in range(count):
        x, fraction = rng.random(), rng.random()
        y, s = top + (0.99 - top) * fraction, 0.010 + 0.016 * fraction
        paint = mix(color, darker(color, 0.35), rng.random())
        canvas.polygon(
            [
                (x - s, y - s * 1.1),
                (x - s * 0.2, y - s * 0.6),
                (x, y - s * 1.9),
                (x + s * 0.3, y - s * 0.6),
                (x + s, y - s * 1.2),
                (x + s * 0.4, y),
                (x - s * 0.4, y),
            ],
            paint,
        )


def specks(
    canvas: BackgroundCanvas,
    rng: RandomSource,
    band: tuple[float, float],
    count: int,
    radius: tuple[float, float],
    fill: Color,
    flat: float = 1.0,
) -> None:
    """Draw small ellipses at random in a horizontal band: pebbles, snow flakes, stars."""
    for _ in range(count):
        r = rng.uniform(*radius)
        canvas.oval(rng.random(), rng.uniform(*band), r, r * flat, fill)


def ripples(canvas: BackgroundCanvas, rng: RandomSource, band: tuple[float, float], count: int, fill: Color) -> None:
    """Draw short wave lines in a horizontal band, longer towards the viewer."""
    for _ in range(count):
        fraction = rng.random()
        x, y = rng.random(), band[0] + (band[1] - band[0]) * fraction
        w, h = 0.02 + 0.035 * fraction, 0.004 + 0.004 * fraction
        canvas.line([(x - w, y), (x - w / 2, y - h), (x, y), (x + w / 2, y - h), (x + w, y)], 0.005, fill)


SKIES: tuple[tuple[Color, Color], ...] = (
    ((112, 186, 240), (214, 240, 250)),
    ((92, 170, 236), (196, 230, 250)),
    ((140, 196, 240), (255, 232, 204)),
    ((150, 206, 236), (232, 246, 240)),
)


def jitter_color(color: Color, rng: RandomSource, by: float = 0.08) -> Color:
    """Return the color, lightened or darkened by up to `by`."""
    fraction = rng.uniform(-by, by)
    return lighter(color, fraction) if fraction > 0 else darker(color, -fraction)


@background("field", sky=(0.1, 0.3), ground=(0.58, 0.97))
def paint_field(canvas: BackgroundCanvas, rng: RandomSource) -> None:
    """Paint green hills before mountains."""
    high, low = rng.choice(SKIES)
    grass = jitter_color((150, 204, 96), rng)
    canvas.sky(((0, high), (0.5, low), (0.5, grass), (0.62, grass), (1, mix(grass, (70, 150, 70), 0.7))))
    mountains(canvas, rng, 0.52, rng.uniform(0.2, 0.3), rng.integer(2, 4), jitter_color((142, 164, 200), rng), True)
    mountains(canvas, rng, 0.52, rng.uniform(0.1, 0.16), rng.integer(3, 5), jitter_color((128, 168, 172), rng), False)
    canvas.land(hilly_line(rng, 0.48, 0.02, 4), mix(grass, (110, 180, 130), 0.6), 0.56)
    canvas.land(hilly_line(rng, 0.52, 0.02, 3), mix(grass, (110, 190, 100), 0.4), 0.6)
    canvas.land(hilly_line(rng, 0.57, 0.018, 3), grass, 0.62)
    for _ in range(3):
        canvas.oval(
            rng.random(),
            rng.uniform(0.68, 0.95),
            rng.uniform(0.1, 0.22),
            rng.uniform(0.012, 0.025),
            mix(grass, (126, 190, 86), 0.7),
        )
    grass_tufts(canvas, rng, 0.62, 16, (96, 166, 74))


@background("beach", sky=(0.09, 0.28), ground=(0.72, 0.97), water=(0.5, 0.62))
def paint_beach(canvas: BackgroundCanvas, rng: RandomSource) -> None:
    """Paint sand before the sea."""
    high, low = rng.choice(SKIES)
    sea, sand = jitter_color((44, 156, 196), rng), jitter_color((250, 222, 164), rng, 0.05)
    canvas.sky(
        (
            (0, high),
            (0.42, low),
            (0.42, darker(sea, 0.12)),
            (0.66, lighter(sea, 0.35)),
            (0.66, sand),
            (1, darker(sand, 0.12)),
        )
    )
    ripples(canvas, rng, (0.45, 0.62), 14, lighter(sea, 0.5))
    shore = hilly_line(rng, 0.655, 0.012, 3)
    canvas.land([(x, y - 0.016) for x, y in shore], (248, 253, 255), 0.7)
    canvas.land(shore, darker(sand, 0.14), 0.7)
    canvas.land([(x, y + 0.018) for x, y in shore], sand, 0.72)
    specks(canvas, rng, (0.72, 0.99), 22, (0.003, 0.007), darker(sand, 0.18), 0.6)
    for _ in range(3):
        canvas.oval(rng.random(), rng.uniform(0.76, 0.97), rng.uniform(0.08, 0.2), 0.008, darker(sand, 0.07))


@background("street", sky=(0.08, 0.24), ground=(0.64, 0.97))
def paint_street(canvas: BackgroundCanvas, rng: RandomSource) -> None:
    """Paint a road before tall buildings."""
    high, low = rng.choice(SKIES)
    road, pave = jitter_color((138, 140, 152), rng, 0.05), jitter_color((214, 206, 196), rng, 0.05)
    canvas.sky(((0, high), (0.55, low), (0.55, pave), (0.68, pave), (0.68, road), (1, darker(road, 0.16))))
    for depth, color in enumerate(((186, 204, 226), (164, 184, 212))):
        x = -0.05
        while x < 1:
            width, top = rng.uniform(0.07, 0.15), 0.55 - rng.uniform(0.08, 0.3 - 0.08 * depth)
            tint = jitter_color(color, rng, 0.06)
            canvas.box(x, top, x + width, 0.56, tint)
            for row in range(int((0.53 - top) / 0.04)) if depth else ():
                y = top + 0.02 + row * 0.04
                for k in (0.22, 0.6):
                    canvas.box(x + width * k, y, x + width * (k + 0.2), y + 0.018, lighter(tint, 0.4))
            x += width + rng.uniform(0.0, 0.03)
    canvas.box(0, 0.55, 1, 0.565, mix(pave, (120, 160, 110), 0.8))
    for i in range(9):
        x = i / 8 + rng.uniform(-0.01, 0.01)
        canvas.line([(x, 0.565), (x + (x - 0.5) * 0.2, 0.668)], 0.003, darker(pave, 0.12))
    canvas.box(0, 0.668, 1, 0.684, darker(pave, 0.28))
    shift = rng.uniform(0, 0.2)
    for i in range(-1, 6):
        x = i * 0.22 + shift
        canvas.polygon([(x, 0.825), (x + 0.11, 0.825), (x + 0.10, 0.842), (x - 0.01, 0.842)], (250, 244, 222))
    specks(canvas, rng, (0.7, 0.99), 12, (0.002, 0.005), darker(road, 0.14), 0.6)


@background("snow", sky=(0.09, 0.28), ground=(0.58, 0.97), light=(0.98, 0.99, 1.0))
def paint_snow(canvas: BackgroundCanvas, rng: RandomSource) -> None:
    """Paint snowy hills before mountains, with falling snow."""
    high, low = rng.choice(
        (
            ((150, 186, 222), (226, 236, 246)),
            ((128, 168, 214), (238, 226, 236)),
            ((168, 190, 212), (230, 238, 244)),
        )
    )
    canvas.sky(((0, high), (0.55, low), (0.55, (246, 250, 255)), (1, (206, 222, 242))))
    mountains(canvas, rng, 0.54, rng.uniform(0.14, 0.26), rng.integer(2, 4), jitter_color((156, 176, 208), rng), True)
    canvas.land(hilly_line(rng, 0.5, 0.025, 3), (216, 228, 244), 0.6)
    canvas.land(hilly_line(rng, 0.56, 0.02, 2), (240, 246, 253), 0.6)
    for _ in range(5):
        canvas.oval(
            rng.random(),
            rng.uniform(0.64, 0.97),
            rng.uniform(0.08, 0.2),
            rng.uniform(0.008, 0.016),
            (222, 233, 248),
        )
    specks(canvas, rng, (0.02, 0.98), 46, (0.003, 0.008), (255, 255, 255))


@background("night", sky=(0.09, 0.3), ground=(0.6, 0.97), light=(0.9, 0.92, 1.0))
def paint_night(canvas: BackgroundCanvas, rng: RandomSource) -> None:
    """Paint dark hills under a starry sky."""
    high, low = rng.choice(
        (((20, 24, 66), (70, 78, 146)), ((24, 20, 62), (104, 76, 140)), ((14, 30, 66), (52, 96, 142)))
    )
    grass = jitter_color((58, 98, 100), rng)
    canvas.sky(((0, high), (0.55, low), (0.55, grass), (1, darker(grass, 0.3))))
    specks(canvas, rng, (0.02, 0.46), 34, (0.0022, 0.005), (250, 246, 220))
    for _ in range(4):
        x, y, r = rng.random(), rng.uniform(0.04, 0.36), rng.uniform(0.008, 0.014)
        canvas.polygon(
            [
                (x, y - r),
                (x + r * 0.25, y - r * 0.25),
                (x + r, y),
                (x + r * 0.25, y + r * 0.25),
                (x, y + r),
                (x - r * 0.25, y + r * 0.25),
                (x - r, y),
                (x - r * 0.25, y - r * 0.25),
            ],
            (255, 252, 230),
        )
    canvas.land(hilly_line(rng, 0.48, 0.035, 4), mix(grass, low, 0.6), 0.58)
    canvas.land(hilly_line(rng, 0.53, 0.025, 3), mix(grass, low, 0.3), 0.6)
    canvas.land(hilly_line(rng, 0.58, 0.015, 2), grass, 0.62)
    grass_tufts(canvas, rng, 0.64, 14, (40, 76, 80))
    specks(canvas, rng, (0.5, 0.9), 7, (0.003, 0.006), (226, 236, 130))


@background("desert", sky=(0.09, 0.26), ground=(0.6, 0.97))
def paint_desert(canvas: BackgroundCanvas, rng: RandomSource) -> None:
    """Paint sand with red rocks."""
    high, low = rng.choice(
        (
            ((96, 178, 226), (250, 234, 200)),
            ((132, 190, 224), (255, 214, 170)),
            ((238, 150, 120), (255, 224, 170)),
        )
    )
    sand = jitter_color((240, 190, 122), rng, 0.06)
    canvas.sky(((0, high), (0.55, low), (0.55, sand), (1, darker(sand, 0.22))))
    for _ in range(rng.integer(1, 3)):
        x, w, top = rng.random(), rng.uniform(0.08, 0.16), rng.uniform(0.3, 0.42)
        rock = jitter_color((206, 128, 92), rng)
        canvas.polygon(
            [
                (x - w * 1.25, 0.56),
                (x - w, top + 0.04),
                (x - w * 0.9, top),
                (x + w * 0.9, top),
                (x + w, top + 0.04),
                (x + w * 1.25, 0.56),
            ],
            rock,
        )
        canvas.polygon(
            [
                (x + w * 0.3, 0.56),
                (x + w * 0.4, top),
                (x + w * 0.9, top),
                (x + w, top + 0.04),
                (x + w * 1.25, 0.56),
            ],
            darker(rock, 0.14),
        )
        canvas.polygon(
            [
                (x - w * 1.07, top + 0.1),
                (x + w * 1.07, top + 0.1),
                (x + w * 1.1, top + 0.125),
                (x - w * 1.1, top + 0.125),
            ],
            lighter(rock, 0.16),
        )
    canvas.land(hilly_line(rng, 0.52, 0.03, 3), lighter(sand, 0.2), 0.6)
    canvas.land(hilly_line(rng, 0.57, 0.025, 2), mix(sand, lighter(sand, 0.2), 0.4), 0.62)
    for _ in range(5):
        x, y, w = rng.random(), rng.uniform(0.66, 0.96), rng.uniform(0.08, 0.18)
        canvas.line(
            [(x - w, y), (x - w / 2, y - 0.008), (x, y), (x + w / 2, y + 0.006), (x + w, y - 0.002)],
            0.005,
            darker(sand, 0.14),
        )
    specks(canvas, rng, (0.64, 0.99), 12, (0.004, 0.009), darker(sand, 0.3), 0.6)


@background("lake", sky=(0.09, 0.26), ground=(0.78, 0.97), water=(0.54, 0.68))
def paint_lake(canvas: BackgroundCanvas, rng: RandomSource) -> None:
    """Paint water before mountains."""
    high, low = rng.choice(SKIES)
    grass, water = jitter_color((132, 196, 100), rng), jitter_color((92, 158, 204), rng)
    canvas.sky(
        (
            (0, high),
            (0.45, low),
            (0.45, lighter(water, 0.4)),
            (0.74, water),
            (0.74, grass),
            (1, mix(grass, (70, 150, 80), 0.6)),
        )
    )
    hill = jitter_color((112, 150, 168), rng)
    mountains(canvas, rng, 0.46, rng.uniform(0.12, 0.22), rng.integer(2, 4), hill, False)
    canvas.land(hilly_line(rng, 0.435, 0.02, 4), mix((90, 156, 108), hill, 0.25), 0.468)
    canvas.box(0, 0.467, 1, 0.475, mix(water, (70, 120, 120), 0.6))
    ripples(canvas, rng, (0.5, 0.7), 16, lighter(water, 0.5))
    shore = hilly_line(rng, 0.735, 0.012, 3)
    canvas.land([(x, y - 0.012) for x, y in shore], mix(grass, (120, 110, 80), 0.55), 0.76)
    canvas.land(shore, grass, 0.78)
    for _ in range(rng.integer(6, 12)):
        x, y = rng.random(), rng.uniform(0.73, 0.755)
        canvas.line([(x, y), (x + rng.uniform(-0.01, 0.01), y - rng.uniform(0.03, 0.06))], 0.005, (84, 140, 76))
    grass_tufts(canvas, rng, 0.78, 12, (92, 160, 78))
