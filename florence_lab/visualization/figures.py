"""TODO"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

DPI = 100

LONG_SIDE = (640, 1000)  # pixels between which a picture is drawn when the figure is ours

SHORT_SIDE = 64  # pixels; thinner pictures are stretched, or a 20000 x 10 would be half a pixel high

MAX_BYTES = 700_000  # of a PNG; above it 256 colours have to do


class NotebookFigure(Figure):
    """A figure of its own, none of pyplot's, that a notebook shows as the last line of a cell.

    A plain `Figure` is shown only where pyplot has been imported, and would stay in pyplot's memory if it were pyplot's.
    """

    def __init__(self, width: float, height: float, **settings: Any) -> None:
        """Width and height in inches, at `DPI`."""
        super().__init__(dpi=DPI, facecolor="white", figsize=(width, height), **settings)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        return _png(self)


def _drawn_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) in pixels at which an image of (width, height) is drawn in a figure of ours."""
    width, height = image_size
    scale = np.clip(max(width, height), *LONG_SIDE) / max(width, height)
    return max(round(width * scale), SHORT_SIDE), max(round(height * scale), SHORT_SIDE)


def _aspect(image_size: tuple[int, int]) -> float:
    """How much higher than wide a pixel is drawn: 1, but for whole pixels of the figure and for too thin pictures."""
    across, down = np.divide(_drawn_size(image_size), image_size)
    return float(down / across)


def _frame(ax: Axes) -> np.ndarray:
    """(x0, y0, x1, y1) of the picture in pixels of the figure, y upwards."""
    ax.apply_aspect()  # which matplotlib itself does no sooner than it draws
    return ax.get_window_extent().extents


def _png(figure: Figure) -> bytes:
    canvas = figure.canvas
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    full = _saved(drawn)
    return full if len(full) <= MAX_BYTES else _saved(drawn.quantize(256))


def _saved(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", dpi=(DPI, DPI))
    return file.getvalue()


def _in_figure(figure: Figure, inches: tuple[float, float, float, float]) -> tuple[float, ...]:
    """(left, bottom, width, height): inches -> parts of the figure."""
    return tuple(np.array(inches) / np.tile(figure.get_size_inches(), 2))


def _label_size(ax: Axes, count: int) -> float:
    """Points for so many labels: smaller in a small picture, and in a crowded one."""
    x0, y0, x1, y1 = _frame(ax) / ax.figure.dpi
    size = np.clip(4 + 0.8 * math.sqrt((x1 - x0) * (y1 - y0)), 6.5, 10)
    return float(max(size * min(1, (14 / max(count, 1)) ** 0.3), 5.5))
