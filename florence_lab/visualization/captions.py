"""Text under an image: captions and answers, wrapped, with grounded phrases in the colors of their boxes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.text import Annotation

from ..results import Instances, Result, Text
from ..tasks import get_task
from .figures import pixel_aspect
from .instances import drawable_instances
from .style import POINTS_PER_INCH, AnyFigure, elide, fitting_length, font_properties, printable, text_color_on

CAPTION_WIDTH = 360
"""The least width of the text under a narrow image, in pixels of the package's own figures."""

MAX_CAPTION_LINES = 30

# in font sizes
_LINE_SPACING = 1.5
_WORD_SPACING = 0.33  # between runs
_MARGIN = 0.5


class _TextRun(NamedTuple):
    """Consecutive characters of one line that have the same background."""

    text: str
    color: str | None  # of the background
    has_leading_space: bool


def caption_text(result: Result) -> str:
    """Return the text under the image: the answer, or the caption that was grounded; empty for other results."""
    if isinstance(result, Text):
        return printable(result.text)
    return printable(result.phrase) if get_task(result.task).result == "grounding" else ""


def caption_height(figure: AnyFigure, result: Result, width: float) -> float:
    """Return the height in inches of the text under an image that is `width` inches wide; 0 without a text."""
    lines = _caption_lines(figure, result, width, MAX_CAPTION_LINES)
    return _lines_height(figure, len(lines), _caption_font_size(width))


def draw_caption(ax: Axes, result: Result) -> None:
    """Draw the text under the image. The Axes shrink, so that the text stays within their previous extent."""
    figure = ax.figure
    if not caption_text(result):
        return
    cell = ax.get_position(original=True)
    width, height = np.array([cell.width, cell.height]) * figure.bbox.size / figure.dpi
    font_size = _caption_font_size(width)
    line_height = _LINE_SPACING * font_size
    # the image fills the width in the package's own figures, and keeps at least 40% of the height of low Axes of others
    image_height = min(
        0.4 * height, width / result.image_size[0] * result.image_size[1] * pixel_aspect(result.image_size)
    )
    text_height = (height - image_height) * POINTS_PER_INCH - 2 * _MARGIN * font_size
    fitting = int(text_height / line_height + 0.01)
    lines = _caption_lines(figure, result, width, max(1, min(fitting, MAX_CAPTION_LINES)))
    if figure.get_layout_engine() is None:  # a layout engine makes room itself, and would ignore Axes that were moved
        used = _lines_height(figure, len(lines), font_size) / height * cell.height
        ax.set_position((cell.x0, cell.y0 + used, cell.width, max(cell.height - used, 1e-3)))
    ax.set_anchor("NW")
    background = to_rgba(figure.get_facecolor())
    text_color = text_color_on(background) if background[3] else rcParams["text.color"]
    for number, runs in enumerate(lines):
        _draw_line(ax, runs, -_MARGIN * font_size - (number + 0.78) * line_height, text_color, font_size)


def _draw_line(ax: Axes, runs: Sequence[_TextRun], y: float, text_color: str, font_size: float) -> None:
    """Draw one line with its baseline `y` points above the lower edge of the image.

    Each run is anchored at the end of the one before: widths in points depend on the dpi at which a figure is saved.
    """
    anchor: str | Annotation = "axes fraction"
    x, gap = 0, _MARGIN
    for text, color, has_leading_space in runs:
        background = {"boxstyle": "round,pad=0.14,rounding_size=0.2", "facecolor": color, "edgecolor": "none"}
        anchor = ax.annotate(
            text,
            xy=(x, 0),
            xycoords=(anchor, "axes fraction"),
            xytext=(gap * font_size + has_leading_space * _WORD_SPACING * font_size, y),
            textcoords="offset points",
            annotation_clip=False,
            va="baseline",
            bbox=background if color else None,
            color=text_color_on(color) if color else text_color,
            **font_properties(font_size),
        )
        x, gap = 1, 0.0


def _caption_font_size(width: float) -> float:
    """Return the font size in points for a text that is `width` inches wide."""
    return float(np.clip(6 + 0.5 * width, 7, 11))


def _lines_height(figure: AnyFigure, count: int, font_size: float) -> float:
    """Return the height of lines and margins in inches: whole pixels, so that the image above stays sharp."""
    points = (count * _LINE_SPACING + 2 * _MARGIN) * font_size if count else 0
    return math.ceil(points / POINTS_PER_INCH * figure.dpi) / figure.dpi


def _caption_colors(result: Result, caption: str) -> list[str | None]:
    """Return the background of each character: the color of the instance whose label it belongs to, or None."""
    colors: list[str | None] = [None] * len(caption)
    if not isinstance(result, Instances):
        return colors
    of_label = {instance.label: instance.color for instance in drawable_instances(result) if instance.label}
    for label in sorted(of_label, key=len, reverse=True):  # "the white sheep" before "sheep"
        whole_words = list(re.finditer(rf"(?<!\w){re.escape(label)}(?!\w)", caption, re.IGNORECASE))
        for match in whole_words or re.finditer(re.escape(label), caption, re.IGNORECASE):
            if not any(colors[match.start() : match.end()]):
                colors[match.start() : match.end()] = [of_label[label]] * len(match[0])
    return colors


def _caption_lines(figure: AnyFigure, result: Result, width: float, max_lines: int) -> list[list[_TextRun]]:
    """Return the text in at most `max_lines` lines of at most `width` inches; the last one is elided if needed."""
    font_size = _caption_font_size(width)
    # 4% are reserved, since widths depend on the dpi at which a figure is saved
    max_width = 0.96 * (width - 2 * _MARGIN * font_size / POINTS_PER_INCH) * figure.dpi
    caption = caption_text(result)
    colors = _caption_colors(result, caption)
    spans = _wrap(figure, caption, font_size, max_width, max_lines + 1)
    lines = [(caption[start:end], colors[start:end]) for start, end in spans[:max_lines]]
    if len(spans) > max_lines:
        start = spans[max_lines - 1][0]
        text = elide(figure, caption[start:], font_size, max_width)
        lines[-1] = (text, [*colors[start : start + len(text) - 1], None])
    return [_split_runs(text, colors) for text, colors in lines]


def _split_runs(text: str, colors: Sequence[str | None]) -> list[_TextRun]:
    """Split a line where the background changes. Spaces around a run are not part of it."""
    runs, after_space = [], False
    for color, group in groupby(zip(text, colors, strict=True), key=lambda pair: pair[1]):
        part = "".join(character for character, _ in group)
        if part.strip():
            runs.append(_TextRun(part.strip(), color, after_space or part.startswith(" ")))
        after_space = part.endswith(" ")
    return runs


def _wrap(figure: AnyFigure, text: str, font_size: float, max_width: float, max_lines: int) -> list[tuple[int, int]]:
    """Return (start, end) of the first lines of at most `max_width` pixels, broken at spaces, or anywhere without one."""
    spans: list[tuple[int, int]] = []
    start = 0
    while start < len(text) and len(spans) < max_lines:
        end = start + fitting_length(figure, text[start:], font_size, max_width)
        if end < len(text) and text[end] != " ":
            end = max(text.rfind(" ", start, end), 0) or end
        spans.append((start, end))
        start = end + (text[end : end + 1] == " ")
    return spans
