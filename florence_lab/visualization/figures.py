"""Figures for notebooks, and the size of images and labels within figures."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure
from PIL import Image

from ..argument_validation import Range, validate_arguments
from .style import POINTS_PER_INCH

DPI = 100
"""Resolution of the package's own figures."""

VECTOR_IMAGE_DPI = 150
"""Resolution of the images in SVG and PDF files: 960 to 1,500 pixels on the longer side."""

DISPLAY_LONG_SIDE = (640, 1000)
"""Range of the longer side of an image in the package's own figures, in pixels."""

MIN_SHORT_SIDE = 64
"""The least shorter side in pixels. Thinner images are stretched: 20000 x 10 would be half a pixel high."""

MAX_PNG_BYTES = 700_000
"""Larger PNG files are reduced to 256 colors."""


Inches = Annotated[float, Range(0, 1000, is_open=True)]
"""A side of a figure."""


class NotebookFigure(Figure):
    """A figure that is independent of pyplot, and that a notebook displays as the last expression of a cell.

    IPython displays a plain `Figure` only after pyplot has been imported, and figures of pyplot stay in memory until they
    are closed.
    """

    @validate_arguments
    def __init__(self, width: Inches, height: Inches, **settings: Any) -> None:
        """Create an empty figure of `width` x `height` inches; `settings` go to `matplotlib.figure.Figure`."""
        super().__init__(dpi=DPI, facecolor="white", figsize=(width, height), **settings)
        FigureCanvasAgg(self)

    def to_png(self) -> bytes:
        """Return the figure as a PNG file, with 256 colors if it would exceed `MAX_PNG_BYTES` otherwise."""
        canvas = FigureCanvasAgg(self)
        canvas.draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        png = encode_png(image)
        return png if len(png) <= MAX_PNG_BYTES else encode_png(image.quantize(256))

    def to_svg(self) -> bytes:
        """Return the figure as an SVG file: shapes are vectors, text can be selected and edited, images are embedded."""
        width, height = (self.get_size_inches() * POINTS_PER_INCH).tolist()
        file = io.StringIO()
        with _resolution_of_points(self):
            renderer = _SelectableTextRenderer(width, height, file, image_dpi=VECTOR_IMAGE_DPI)
            self.draw(renderer)
            renderer.finalize()
        return file.getvalue().encode()

    def to_pdf(self) -> bytes:
        """Return the figure as a PDF file of one page: shapes are vectors, text can be selected, images are embedded."""
        file = io.BytesIO()
        self.savefig(file, format="pdf", dpi=VECTOR_IMAGE_DPI)
        return file.getvalue()

    def _repr_png_(self) -> bytes:
        return self.to_png()


class _SelectableTextRenderer(RendererSVG):
    """Writes text as text. Matplotlib's own switch, `rcParams["svg.fonttype"]`, would change the figures of other threads."""

    def _draw_text_as_path(self, *args: Any, **settings: Any) -> None:
        self._draw_text_as_text(*args, **settings)


@contextmanager
def _resolution_of_points(figure: Figure) -> Iterator[None]:
    """Give a figure one pixel for each point, as vector formats have."""
    own = figure.dpi
    figure.dpi = POINTS_PER_INCH
    try:
        yield
    finally:
        figure.dpi = own


def encode_png(image: Image.Image) -> bytes:
    """Return an image as a PNG file with the resolution of the package's own figures."""
    file = io.BytesIO()
    image.save(file, "PNG", dpi=(DPI, DPI))
    return file.getvalue()


def display_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Return (width, height) in pixels at which an image of (width, height) is drawn in the package's own figures."""
    width, height = image_size
    scale = np.clip(max(width, height), *DISPLAY_LONG_SIDE) / max(width, height)
    return max(round(width * scale), MIN_SHORT_SIDE), max(round(height * scale), MIN_SHORT_SIDE)


def pixel_aspect(image_size: tuple[int, int]) -> float:
    """Return the ratio of height to width of a drawn pixel: 1 except for rounding and for stretched thin images."""
    horizontal, vertical = np.divide(display_size(image_size), image_size)
    return float(vertical / horizontal)


def axes_extent(ax: Axes) -> np.ndarray:
    """Return the extent (x0, y0, x1, y1) of the Axes in pixels of the figure; y points upwards."""
    ax.apply_aspect()  # matplotlib applies it when it draws, which is too late
    return np.asarray(ax.get_window_extent().extents)


def figure_fraction(figure: Figure, inches: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Convert (left, bottom, width, height) from inches to fractions of the figure."""
    left, bottom, width, height = (np.array(inches) / np.tile(figure.get_size_inches(), 2)).tolist()
    return left, bottom, width, height


def label_font_size(ax: Axes, label_count: int) -> float:
    """Return the font size of labels in points, 5.5 to 10: smaller in small Axes and for more than 14 labels."""
    x0, y0, x1, y1 = axes_extent(ax) / ax.figure.dpi
    size = np.clip(4 + 0.8 * math.sqrt((x1 - x0) * (y1 - y0)), 6.5, 10)
    return float(max(size * min(1, (14 / max(label_count, 1)) ** 0.3), 5.5))
