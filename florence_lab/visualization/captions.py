"""TODO"""

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
from matplotlib.figure import Figure

from ..results import Result, Text
from ..tasks import get_task
from .figures import _aspect
from .instances import _items
from .style import _POINTS, _elided, _fitting, _ink_on, font_properties, printable

CAPTION_WIDTH = 360  # pixels that a text gets at least, under a narrow picture

CAPTION_LINES = 30

_LINE_SPACING = 1.5  # of the caption, in font sizes

_SPACE = 0.33  # between runs of the caption, in font sizes

_MARGIN = 0.5  # around the caption, in font sizes


class _Run(NamedTuple):
    """A piece of one line of the caption."""

    text: str
    colour: str | None  # of the chip behind it
    spaced: bool  # whether a space stands in front of it


def _caption(result: Result) -> str:
    """What stands under the picture."""
    if isinstance(result, Text):
        return printable(result.text)
    return printable(result.phrase) if get_task(result.task).result == "grounding" else ""


def _caption_colours(result: Result, caption: str) -> list[str | None]:
    """The colour behind each character of the caption: that of the phrase it belongs to."""
    colours: list[str | None] = [None] * len(caption)
    if isinstance(result, Text):
        return colours
    items = {item.name: item.colour for item in _items(result) if item.name}
    for name in sorted(items, key=len, reverse=True):  # "the white sheep" before "sheep"
        words = list(re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", caption, re.IGNORECASE))
        for found in words or re.finditer(re.escape(name), caption, re.IGNORECASE):
            if not any(colours[found.start() : found.end()]):
                colours[found.start() : found.end()] = [items[name]] * len(found[0])
    return colours


def _write_caption(ax: Axes, result: Result) -> None:
    """Make room under the picture, within the Axes' own place, and write there what belongs there."""
    figure, caption = ax.figure, _caption(result)
    if not caption:
        return
    cell = ax.get_position(original=True)
    width, height = np.array([cell.width, cell.height]) * figure.bbox.size / figure.dpi
    font_size = _caption_size(width)
    line_height = _LINE_SPACING * font_size
    # in a figure of ours the picture fills the width; in a low Axes of others it keeps at least 40 % of the height
    picture = min(0.4 * height, width / result.image_size[0] * result.image_size[1] * _aspect(result.image_size))
    fitting = int(((height - picture) * _POINTS - 2 * _MARGIN * font_size) / line_height + 0.01)
    lines = _caption_lines(figure, result, width, max(1, min(fitting, CAPTION_LINES)))
    if figure.get_layout_engine() is None:  # else the layout makes the room, and moving the Axes would end it
        taken = _lines_height(figure, len(lines), font_size) / height * cell.height
        ax.set_position((cell.x0, cell.y0 + taken, cell.width, max(cell.height - taken, 1e-3)))
    ax.set_anchor("NW")
    face = to_rgba(figure.get_facecolor())
    ink = _ink_on(face) if face[3] else rcParams["text.color"]
    for number, runs in enumerate(lines):
        _write_line(ax, runs, -_MARGIN * font_size - (number + 0.78) * line_height, ink, font_size)


def _write_line(ax: Axes, runs: Sequence[_Run], y: float, ink: str, font_size: float) -> None:
    """One line of the caption, its baseline at y points from the picture's lower edge.

    Each run hangs on the end of the one before, for widths in points change with the dpi that a figure is saved at.
    """
    x, before, gap = 0, "axes fraction", _MARGIN
    for text, colour, spaced in runs:
        before = ax.annotate(
            text,
            xy=(x, 0),
            xycoords=(before, "axes fraction"),
            xytext=(gap * font_size + spaced * _SPACE * font_size, y),
            textcoords="offset points",
            annotation_clip=False,
            va="baseline",
            bbox={"boxstyle": "round,pad=0.14,rounding_size=0.2", "facecolor": colour, "edgecolor": "none"}
            if colour
            else None,
            color=_ink_on(colour) if colour else ink,
            **font_properties(font_size),
        )
        x, gap = 1, 0


def _caption_size(width: float) -> float:
    """Points, for a caption so many inches wide."""
    return float(np.clip(6 + 0.5 * width, 7, 11))


def _caption_height(figure: Figure, result: Result, width: float) -> float:
    """Inches that the caption takes when it is so many inches wide."""
    lines = _caption_lines(figure, result, width, CAPTION_LINES)
    return _lines_height(figure, len(lines), _caption_size(width))


def _lines_height(figure: Figure, count: int, font_size: float) -> float:
    """Inches for so many lines and the margins around them: whole pixels, so that the picture above stays sharp."""
    points = (count * _LINE_SPACING + 2 * _MARGIN) * font_size if count else 0
    return math.ceil(points / _POINTS * figure.dpi) / figure.dpi


def _caption_lines(figure: Figure, result: Result, width: float, most: int) -> list[list[_Run]]:
    """The caption in at most so many lines of at most `width` inches, each in runs of one colour."""
    font_size = _caption_size(width)
    # a little less than there is, for the same reason as in `_write_line`
    room = 0.96 * (width - 2 * _MARGIN * font_size / _POINTS) * figure.dpi
    caption = _caption(result)
    colours = _caption_colours(result, caption)
    spans = _wrapped(figure, caption, font_size, room, most + 1)
    lines = [(caption[start:end], colours[start:end]) for start, end in spans[:most]]
    if len(spans) > most:
        start = spans[most - 1][0]
        text = _elided(figure, caption[start:], font_size, room)
        lines[-1] = (text, [*colours[start : start + len(text) - 1], None])
    return [_runs(text, colours) for text, colours in lines]


def _runs(text: str, colours: Sequence[str | None]) -> list[_Run]:
    runs, spaced = [], False
    for colour, group in groupby(zip(text, colours, strict=True), key=lambda pair: pair[1]):
        piece = "".join(character for character, _ in group)
        if piece.strip():
            runs.append(_Run(piece.strip(), colour, spaced or piece.startswith(" ")))
        spaced = piece.endswith(" ")
    return runs


def _wrapped(figure: Figure, text: str, font_size: float, room: float, most: int) -> list[tuple[int, int]]:
    """(start, end) of the first lines of at most `room` pixels: broken at spaces, or anywhere if there are none."""
    spans = []
    start = 0
    while start < len(text) and len(spans) < most:
        end = start + _fitting(figure, text[start:], font_size, room)
        if end < len(text) and text[end] != " ":
            end = max(text.rfind(" ", start, end), 0) or end
        spans.append((start, end))
        start = end + (text[end : end + 1] == " ")
    return spans
