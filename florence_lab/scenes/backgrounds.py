"""The places of the cartoon world: a gradient sky, a horizon, and clutter that is none of the categories.

Each function paints one place on a `Board`; everything is given in fractions of the picture, y down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .paint import Color, Point, RandomSource, darker, lighter, mix, smooth

SUPERSAMPLE = 2  # backgrounds are drawn this much larger and shrunk, so that edges are smooth


@dataclass(frozen=True)
class Background:
    """A place, and where things may be in it (fractions of the height).

    `sky`: the band for the middles of things in the air. `ground`, `water`: bands for the feet of what stands
    or swims there; None where there is none. `light`: what daylight leaves of every colour.
    """

    name: str
    paint: Callable[[Board, RandomSource], None]
    sky: tuple[float, float]
    ground: tuple[float, float]
    water: tuple[float, float] | None
    light: tuple[float, float, float]


BACKGROUNDS_TABLE: dict[str, Background] = {}


def background(
    name: str,
    sky: tuple[float, float],
    ground: tuple[float, float],
    water: tuple[float, float] | None = None,
    light: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Callable:
    """Register the painting function below as the place `name`."""

    def register(paint: Callable[[Board, RandomSource], None]) -> Callable[[Board, RandomSource], None]:
        BACKGROUNDS_TABLE[name] = Background(name, paint, sky, ground, water, light)
        return paint

    return register


class Board:
    """A picture in the making, addressed in fractions of its sides."""

    def __init__(self, size: tuple[int, int]):
        self.width, self.height = size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE
        self.unit = min(self.width, self.height)
        self.image = Image.new("RGB", (self.width, self.height))
        self._draw = ImageDraw.Draw(self.image)

    def finish(self) -> Image.Image:
        return self.image.reduce(SUPERSAMPLE)

    def sky(self, stops: Sequence[tuple[float, Color]]) -> None:
        """Fill all with colours that flow from one stop (y, colour) to the next; equal y make an edge."""
        rows = (np.arange(self.height) + 0.5) / self.height
        at, colors = zip(*stops, strict=True)
        column = np.stack([np.interp(rows, at, channel) for channel in zip(*colors, strict=True)], axis=1)
        column = np.round(column).astype(np.uint8)[:, None, :]
        self.image = Image.fromarray(np.repeat(column, self.width, axis=1))
        self._draw = ImageDraw.Draw(self.image)

    def _flat(self, points: Sequence[Point]) -> list[float]:
        return [value for x, y in points for value in (x * self.width, y * self.height)]

    def polygon(self, points: Sequence[Point], fill: Color) -> None:
        self._draw.polygon(self._flat(points), fill=fill)

    def land(self, tops: Sequence[Point], fill: Color, bottom: float = 1.0) -> None:
        """Everything under a line from left to right."""
        self.polygon([*tops, (tops[-1][0], bottom), (tops[0][0], bottom)], fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Color) -> None:
        """An ellipse with radii in fractions of the shorter side."""
        x, y, rx, ry = x * self.width, y * self.height, rx * self.unit, ry * self.unit
        self._draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Color) -> None:
        self._draw.rectangle((x0 * self.width, y0 * self.height, x1 * self.width - 1, y1 * self.height - 1), fill=fill)

    def line(self, points: Sequence[Point], width: float, fill: Color) -> None:
        self._draw.line(self._flat(points), fill=fill, width=max(1, round(width * self.unit)), joint="curve")


def rolling(dice: RandomSource, y: float, swell: float, humps: int) -> list[Point]:
    """A soft hilly line from left to right about height y."""
    points = [(i / humps, y + dice.uniform(-swell, swell)) for i in range(-1, humps + 2)]
    curve = smooth([*points, (1.5, 1.5), (-0.5, 1.5)], 6)
    return [p for p in curve[: 6 * (len(points) - 1)] if -0.2 <= p[0] <= 1.2 and p[1] < 1.2]


def mountains(board: Board, dice: RandomSource, y: float, high: float, count: int, color: Color, snow: bool) -> None:
    """A range of peaks standing on height y, lit from the left."""
    for i in sorted(range(count), key=lambda _: dice.random()):
        x = (i + dice.uniform(0.2, 0.8)) / count
        top, half = y - high * dice.uniform(0.6, 1.0), dice.uniform(0.75, 1.05) / count
        board.polygon([(x - half, y), (x, top), (x + half, y)], color)
        board.polygon(
            [(x, top), (x + half, y), (x + half * 0.15, y), (x - half * 0.08, y - (y - top) * 0.45)],
            darker(color, 0.14),
        )
        if snow:
            cap, drop = (246, 249, 255), (y - top) * 0.3
            w = half * 0.3
            board.polygon(
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


def tufts(board: Board, dice: RandomSource, top: float, count: int, color: Color) -> None:
    """Little tufts of grass, larger towards the viewer."""
    for _ in range(count):
        x, share = dice.random(), dice.random()
        y, s = top + (0.99 - top) * share, 0.010 + 0.016 * share
        paint = mix(color, darker(color, 0.35), dice.random())
        board.polygon(
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
    board: Board,
    dice: RandomSource,
    band: tuple[float, float],
    count: int,
    radius: tuple[float, float],
    fill: Color,
    flat: float = 1.0,
) -> None:
    """Round specks: pebbles, snow flakes, stars."""
    for _ in range(count):
        r = dice.uniform(*radius)
        board.oval(dice.random(), dice.uniform(*band), r, r * flat, fill)


def ripples(board: Board, dice: RandomSource, band: tuple[float, float], count: int, fill: Color) -> None:
    """Short wave lines on water, longer towards the viewer."""
    for _ in range(count):
        share = dice.random()
        x, y = dice.random(), band[0] + (band[1] - band[0]) * share
        w, h = 0.02 + 0.035 * share, 0.004 + 0.004 * share
        board.line([(x - w, y), (x - w / 2, y - h), (x, y), (x + w / 2, y - h), (x + w, y)], 0.005, fill)


SKIES: tuple[tuple[Color, Color], ...] = (
    ((112, 186, 240), (214, 240, 250)),
    ((92, 170, 236), (196, 230, 250)),
    ((140, 196, 240), (255, 232, 204)),
    ((150, 206, 236), (232, 246, 240)),
)


def shaken(color: Color, dice: RandomSource, by: float = 0.08) -> Color:
    """Nearly this colour, a little lighter or darker."""
    share = dice.uniform(-by, by)
    return lighter(color, share) if share > 0 else darker(color, -share)


@background("field", sky=(0.1, 0.3), ground=(0.58, 0.97))
def paint_field(board: Board, dice: RandomSource) -> None:
    high, low = dice.pick(SKIES)
    grass = shaken((150, 204, 96), dice)
    board.sky(((0, high), (0.5, low), (0.5, grass), (0.62, grass), (1, mix(grass, (70, 150, 70), 0.7))))
    mountains(board, dice, 0.52, dice.uniform(0.2, 0.3), dice.integer(2, 4), shaken((142, 164, 200), dice), True)
    mountains(board, dice, 0.52, dice.uniform(0.1, 0.16), dice.integer(3, 5), shaken((128, 168, 172), dice), False)
    board.land(rolling(dice, 0.48, 0.02, 4), mix(grass, (110, 180, 130), 0.6), 0.56)
    board.land(rolling(dice, 0.52, 0.02, 3), mix(grass, (110, 190, 100), 0.4), 0.6)
    board.land(rolling(dice, 0.57, 0.018, 3), grass, 0.62)
    for _ in range(3):
        board.oval(
            dice.random(),
            dice.uniform(0.68, 0.95),
            dice.uniform(0.1, 0.22),
            dice.uniform(0.012, 0.025),
            mix(grass, (126, 190, 86), 0.7),
        )
    tufts(board, dice, 0.62, 16, (96, 166, 74))


@background("beach", sky=(0.09, 0.28), ground=(0.72, 0.97), water=(0.5, 0.62))
def paint_beach(board: Board, dice: RandomSource) -> None:
    high, low = dice.pick(SKIES)
    sea, sand = shaken((44, 156, 196), dice), shaken((250, 222, 164), dice, 0.05)
    board.sky(
        (
            (0, high),
            (0.42, low),
            (0.42, darker(sea, 0.12)),
            (0.66, lighter(sea, 0.35)),
            (0.66, sand),
            (1, darker(sand, 0.12)),
        )
    )
    ripples(board, dice, (0.45, 0.62), 14, lighter(sea, 0.5))
    shore = rolling(dice, 0.655, 0.012, 3)
    board.land([(x, y - 0.016) for x, y in shore], (248, 253, 255), 0.7)
    board.land(shore, darker(sand, 0.14), 0.7)
    board.land([(x, y + 0.018) for x, y in shore], sand, 0.72)
    specks(board, dice, (0.72, 0.99), 22, (0.003, 0.007), darker(sand, 0.18), 0.6)
    for _ in range(3):
        board.oval(dice.random(), dice.uniform(0.76, 0.97), dice.uniform(0.08, 0.2), 0.008, darker(sand, 0.07))


@background("street", sky=(0.08, 0.24), ground=(0.64, 0.97))
def paint_street(board: Board, dice: RandomSource) -> None:
    high, low = dice.pick(SKIES)
    road, pave = shaken((138, 140, 152), dice, 0.05), shaken((214, 206, 196), dice, 0.05)
    board.sky(((0, high), (0.55, low), (0.55, pave), (0.68, pave), (0.68, road), (1, darker(road, 0.16))))
    for depth, color in enumerate(((186, 204, 226), (164, 184, 212))):
        x = -0.05
        while x < 1:
            wide, top = dice.uniform(0.07, 0.15), 0.55 - dice.uniform(0.08, 0.3 - 0.08 * depth)
            tint = shaken(color, dice, 0.06)
            board.box(x, top, x + wide, 0.56, tint)
            for row in range(int((0.53 - top) / 0.04)) if depth else ():
                y = top + 0.02 + row * 0.04
                for k in (0.22, 0.6):
                    board.box(x + wide * k, y, x + wide * (k + 0.2), y + 0.018, lighter(tint, 0.4))
            x += wide + dice.uniform(0.0, 0.03)
    board.box(0, 0.55, 1, 0.565, mix(pave, (120, 160, 110), 0.8))
    for i in range(9):
        x = i / 8 + dice.uniform(-0.01, 0.01)
        board.line([(x, 0.565), (x + (x - 0.5) * 0.2, 0.668)], 0.003, darker(pave, 0.12))
    board.box(0, 0.668, 1, 0.684, darker(pave, 0.28))
    shift = dice.uniform(0, 0.2)
    for i in range(-1, 6):
        x = i * 0.22 + shift
        board.polygon([(x, 0.825), (x + 0.11, 0.825), (x + 0.10, 0.842), (x - 0.01, 0.842)], (250, 244, 222))
    specks(board, dice, (0.7, 0.99), 12, (0.002, 0.005), darker(road, 0.14), 0.6)


@background("snow", sky=(0.09, 0.28), ground=(0.58, 0.97), light=(0.98, 0.99, 1.0))
def paint_snow(board: Board, dice: RandomSource) -> None:
    high, low = dice.pick(
        (
            ((150, 186, 222), (226, 236, 246)),
            ((128, 168, 214), (238, 226, 236)),
            ((168, 190, 212), (230, 238, 244)),
        )
    )
    board.sky(((0, high), (0.55, low), (0.55, (246, 250, 255)), (1, (206, 222, 242))))
    mountains(board, dice, 0.54, dice.uniform(0.14, 0.26), dice.integer(2, 4), shaken((156, 176, 208), dice), True)
    board.land(rolling(dice, 0.5, 0.025, 3), (216, 228, 244), 0.6)
    board.land(rolling(dice, 0.56, 0.02, 2), (240, 246, 253), 0.6)
    for _ in range(5):
        board.oval(
            dice.random(),
            dice.uniform(0.64, 0.97),
            dice.uniform(0.08, 0.2),
            dice.uniform(0.008, 0.016),
            (222, 233, 248),
        )
    specks(board, dice, (0.02, 0.98), 46, (0.003, 0.008), (255, 255, 255))


@background("night", sky=(0.09, 0.3), ground=(0.6, 0.97), light=(0.9, 0.92, 1.0))
def paint_night(board: Board, dice: RandomSource) -> None:
    high, low = dice.pick(
        (((20, 24, 66), (70, 78, 146)), ((24, 20, 62), (104, 76, 140)), ((14, 30, 66), (52, 96, 142)))
    )
    grass = shaken((58, 98, 100), dice)
    board.sky(((0, high), (0.55, low), (0.55, grass), (1, darker(grass, 0.3))))
    specks(board, dice, (0.02, 0.46), 34, (0.0022, 0.005), (250, 246, 220))
    for _ in range(4):
        x, y, r = dice.random(), dice.uniform(0.04, 0.36), dice.uniform(0.008, 0.014)
        board.polygon(
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
    board.land(rolling(dice, 0.48, 0.035, 4), mix(grass, low, 0.6), 0.58)
    board.land(rolling(dice, 0.53, 0.025, 3), mix(grass, low, 0.3), 0.6)
    board.land(rolling(dice, 0.58, 0.015, 2), grass, 0.62)
    tufts(board, dice, 0.64, 14, (40, 76, 80))
    specks(board, dice, (0.5, 0.9), 7, (0.003, 0.006), (226, 236, 130))


@background("desert", sky=(0.09, 0.26), ground=(0.6, 0.97))
def paint_desert(board: Board, dice: RandomSource) -> None:
    high, low = dice.pick(
        (
            ((96, 178, 226), (250, 234, 200)),
            ((132, 190, 224), (255, 214, 170)),
            ((238, 150, 120), (255, 224, 170)),
        )
    )
    sand = shaken((240, 190, 122), dice, 0.06)
    board.sky(((0, high), (0.55, low), (0.55, sand), (1, darker(sand, 0.22))))
    for _ in range(dice.integer(1, 3)):
        x, w, top = dice.random(), dice.uniform(0.08, 0.16), dice.uniform(0.3, 0.42)
        rock = shaken((206, 128, 92), dice)
        board.polygon(
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
        board.polygon(
            [
                (x + w * 0.3, 0.56),
                (x + w * 0.4, top),
                (x + w * 0.9, top),
                (x + w, top + 0.04),
                (x + w * 1.25, 0.56),
            ],
            darker(rock, 0.14),
        )
        board.polygon(
            [
                (x - w * 1.07, top + 0.1),
                (x + w * 1.07, top + 0.1),
                (x + w * 1.1, top + 0.125),
                (x - w * 1.1, top + 0.125),
            ],
            lighter(rock, 0.16),
        )
    board.land(rolling(dice, 0.52, 0.03, 3), lighter(sand, 0.2), 0.6)
    board.land(rolling(dice, 0.57, 0.025, 2), mix(sand, lighter(sand, 0.2), 0.4), 0.62)
    for _ in range(5):
        x, y, w = dice.random(), dice.uniform(0.66, 0.96), dice.uniform(0.08, 0.18)
        board.line(
            [(x - w, y), (x - w / 2, y - 0.008), (x, y), (x + w / 2, y + 0.006), (x + w, y - 0.002)],
            0.005,
            darker(sand, 0.14),
        )
    specks(board, dice, (0.64, 0.99), 12, (0.004, 0.009), darker(sand, 0.3), 0.6)


@background("lake", sky=(0.09, 0.26), ground=(0.78, 0.97), water=(0.54, 0.68))
def paint_lake(board: Board, dice: RandomSource) -> None:
    high, low = dice.pick(SKIES)
    grass, water = shaken((132, 196, 100), dice), shaken((92, 158, 204), dice)
    board.sky(
        (
            (0, high),
            (0.45, low),
            (0.45, lighter(water, 0.4)),
            (0.74, water),
            (0.74, grass),
            (1, mix(grass, (70, 150, 80), 0.6)),
        )
    )
    hill = shaken((112, 150, 168), dice)
    mountains(board, dice, 0.46, dice.uniform(0.12, 0.22), dice.integer(2, 4), hill, False)
    board.land(rolling(dice, 0.435, 0.02, 4), mix((90, 156, 108), hill, 0.25), 0.468)
    board.box(0, 0.467, 1, 0.475, mix(water, (70, 120, 120), 0.6))
    ripples(board, dice, (0.5, 0.7), 16, lighter(water, 0.5))
    shore = rolling(dice, 0.735, 0.012, 3)
    board.land([(x, y - 0.012) for x, y in shore], mix(grass, (120, 110, 80), 0.55), 0.76)
    board.land(shore, grass, 0.78)
    for _ in range(dice.integer(6, 12)):
        x, y = dice.random(), dice.uniform(0.73, 0.755)
        board.line([(x, y), (x + dice.uniform(-0.01, 0.01), y - dice.uniform(0.03, 0.06))], 0.005, (84, 140, 76))
    tufts(board, dice, 0.78, 12, (92, 160, 78))
